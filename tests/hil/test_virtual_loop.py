"""The virtual loop: order, time, repeatability, and what it refuses."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading  # noqa: TID251 - to call the loop from outside
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import Deadlock, Escape, ReplayDiverged, SimulationError
from flightsw.ports import Random
from hil.sim.loop import CANCELLED_TIMERS_MIN, SECOND_NS, VirtualLoop
from hil.sim.repeat import run_twice
from hil.sim.standstill import DEADLOCK_TASKS_MAX

DAY_S = 86_400


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def rises_at(instant_s: float, order: list[int], number: int) -> None:
    await asyncio.sleep(instant_s)
    order.append(number)


# Time


def test_a_day_of_sleep_takes_a_day_of_virtual_time() -> None:
    async def main() -> int:
        await asyncio.sleep(DAY_S)
        return virtual_loop().now_ns

    assert run(main()) == DAY_S * SECOND_NS


def test_equal_timers_fire_in_the_order_of_arming() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        for number in range(50):
            virtual_loop().call_at_ns(SECOND_NS, order.append, number)
        await asyncio.sleep(2)
        return order

    assert run(main()) == list(range(50))


@given(st.lists(st.integers(0, 20), max_size=60))
def test_timers_fire_by_deadline_and_then_by_arming(deadlines_ns: list[int]) -> None:
    fired: list[tuple[int, int, int]] = []
    loop = VirtualLoop()
    for number, when_ns in enumerate(deadlines_ns):
        loop.call_at_ns(when_ns, lambda when_ns=when_ns, number=number: fired.append((when_ns, number, loop.now_ns)))
    loop.run_until_ns(20)
    loop.close()
    assert fired == sorted((when_ns, number, when_ns) for number, when_ns in enumerate(deadlines_ns))


def test_a_timer_armed_for_the_past_fires_now() -> None:
    async def main() -> list[int]:
        await asyncio.sleep(3)
        fired: list[int] = []
        virtual_loop().call_at_ns(SECOND_NS, lambda: fired.append(virtual_loop().now_ns))
        await asyncio.sleep(1)
        return fired

    assert run(main()) == [3 * SECOND_NS]


def test_float_seconds_round_to_the_nearest_nanosecond() -> None:
    async def main() -> list[int]:
        loop = virtual_loop()
        await asyncio.sleep(1)
        return [loop.call_later(2.6e-9, print).when_ns, loop.call_at(1 + 2.6e-9, print).when_ns]

    assert run(main()) == [SECOND_NS + 3, SECOND_NS + 3]


def test_a_float_deadline_comes_back_exact_after_twenty_days() -> None:
    async def main() -> None:
        loop = virtual_loop()
        loop.now_ns = 20 * DAY_S * SECOND_NS + 1
        assert loop.call_at(loop.time(), print).when_ns == loop.now_ns

    run(main())


def test_run_until_ns_includes_its_instant_and_stands_at_it() -> None:
    loop = VirtualLoop()
    fired: list[int] = []
    for when_ns in (5, 10, 11):
        loop.call_at_ns(when_ns, fired.append, when_ns)
    loop.call_at_ns(10, lambda: loop.call_at_ns(10, fired.append, 100))
    loop.run_until_ns(10)
    assert (fired, loop.now_ns) == ([5, 10, 100], 10)
    loop.run_until_ns(50)
    assert (fired, loop.now_ns) == ([5, 10, 100, 11], 50)
    loop.close()


def test_run_until_ns_lets_tasks_wait_for_what_comes_later() -> None:
    loop = VirtualLoop()
    inbox: asyncio.Queue[str] = asyncio.Queue()
    listener = loop.create_task(inbox.get())
    loop.run_until_ns(7)
    loop.call_soon(inbox.put_nowait, "frame")
    loop.run_until_ns(8)
    assert listener.result() == "frame"
    loop.close()


def test_time_stands_still_while_callbacks_are_ready() -> None:
    async def main() -> tuple[list[int], int]:
        fired: list[int] = []
        virtual_loop().call_at_ns(0, fired.append, 1)
        virtual_loop().call_at_ns(1, fired.append, 2)
        for _ in range(100):
            await asyncio.sleep(0)
        return fired, virtual_loop().now_ns

    assert run(main()) == ([1], 0)


def test_a_timeout_cancels_at_its_virtual_deadline() -> None:
    async def main() -> int:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DAY_S):
                await asyncio.sleep(2 * DAY_S)
        return virtual_loop().now_ns

    assert run(main()) == DAY_S * SECOND_NS


# Cancelled timers


def test_cancelled_timers_never_fill_the_heap() -> None:
    async def main() -> int:
        loop, armed_count_max = virtual_loop(), 0
        for _ in range(2_000):
            loop.call_later(DAY_S, print).cancel()
            armed_count_max = max(armed_count_max, loop.timers_armed_count)
        return armed_count_max

    assert run(main()) <= CANCELLED_TIMERS_MIN + 1


def test_a_timer_that_has_fired_does_not_count_as_cancelled() -> None:
    async def main() -> int:
        for _ in range(10):
            await asyncio.sleep(1)  # asyncio cancels its timer afterwards, fired or not
        return virtual_loop().cancelled_timers_count

    assert run(main()) == 0


@given(st.integers(0, 2**32), st.integers(1, 400))
def test_a_purge_keeps_the_other_timers_and_their_order(seed: int, timers_count: int) -> None:
    draw, fired = Random(seed), []
    loop = VirtualLoop()
    timers = [loop.call_at_ns(draw.randrange(10), fired.append, number) for number in range(timers_count)]
    kept = [number for number, timer in enumerate(timers) if draw.random() < 0.3 or timer.cancel()]
    expected = sorted(kept, key=lambda number: timers[number].when_ns)
    loop.run_until_ns(10)
    loop.close()
    assert fired == expected


def test_a_cancelled_callback_never_runs_even_in_its_own_batch() -> None:
    async def main() -> list[str]:
        loop, fired = virtual_loop(), []
        later = loop.call_at_ns(10, fired.append, "timer")
        loop.call_at_ns(9, later.cancel)
        second: list[Any] = []
        loop.call_at_ns(20, lambda: second[0].cancel())
        second.append(loop.call_at_ns(20, fired.append, "same batch"))
        soon = loop.call_soon(fired.append, "soon")
        soon.cancel()
        await asyncio.sleep(1)
        later.cancel()
        assert later.cancelled()
        return fired

    assert run(main()) == []


# Sets of tasks


def test_siblings_of_a_failed_task_clean_up_in_the_order_of_their_making() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def upload(number: int) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                order.append(number)

        async def drop() -> None:
            await asyncio.sleep(1)
            raise ConnectionError

        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(upload(number))
                group.create_task(drop())
        return order

    orders = []
    ballast = []
    for repeat in range(5):
        ballast.append([object() for _ in range(37 * repeat)])  # shifts the addresses of the tasks
        orders.append(run(main()))
    assert sorted(orders[0]) == list(range(20))
    assert all(order == orders[0] for order in orders)


def test_the_done_set_of_wait_iterates_alike() -> None:
    async def main() -> list[int]:
        done, _ = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(1, number)) for number in range(20)])
        return [task.result() for task in done]

    orders = [run(main()) for _ in range(5)]
    assert all(order == orders[0] for order in orders)


async def leave_tasks(order: list[int]) -> None:
    async def leftover(number: int) -> None:
        try:
            await asyncio.sleep(DAY_S)
        finally:
            order.append(number)

    for number in range(500):
        task = asyncio.ensure_future(leftover(number))
        if number % 7:
            task.cancel()  # gaps in the numbers, so that they collide in a set
        else:
            virtual_loop().kept = [*getattr(virtual_loop(), "kept", []), task]  # type: ignore[attr-defined]
    await asyncio.sleep(0.1)
    order.clear()


def test_leftover_tasks_are_cancelled_in_the_order_of_their_making_whatever_ran_before() -> None:
    fresh: list[int] = []
    run(leave_tasks(fresh))
    other = VirtualLoop()
    waiting = [other.create_task(asyncio.sleep(DAY_S)) for _ in range(5_000)]  # swells asyncio's own set of tasks
    other.run_until_ns(1)
    late: list[int] = []
    run(leave_tasks(late))
    for task in waiting:
        task.cancel()
    other.run_until_ns(2)
    other.close()
    assert fresh == late == list(range(0, 500, 7))


def test_a_task_cancelled_between_runs_ends_when_the_loop_runs_again() -> None:
    loop = VirtualLoop()
    task = loop.create_task(asyncio.sleep(DAY_S))
    loop.run_until_ns(1)
    assert task.cancel()
    assert not task.done()
    loop.run_until_ns(2)
    assert task.cancelled()
    assert not task.cancel()
    loop.close()


def test_tasks_are_named_by_their_number_in_the_loop() -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.sleep(0), name="downlink")]
        await asyncio.gather(*tasks)
        return [task.get_name() for task in tasks]

    assert run(main()) == run(main()) == ["task-2", "downlink"]


def test_asynchronous_generators_close_in_the_order_of_first_use() -> None:
    async def main(order: list[int], kept: list[Any]) -> None:
        async def frames(number: int) -> AsyncIterator[int]:
            try:
                yield number
            finally:
                order.append(number)

        for number in range(30):
            generator = frames(number)
            kept.append(generator)
            await anext(generator)

    order: list[int] = []
    kept: list[Any] = []
    run(main(order, kept))
    assert order == list(range(len(kept)))


WORLD = """
import asyncio
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams
from hil.sim.trace import Trace

loop, streams, trace = VirtualLoop(), Streams(7), Trace(None, {"scenario": "uploads", "seed": 7})
noise, drops = streams.random("downlink/noise"), streams.random("downlink/drops")

def deliver(text):
    trace.record(loop.now_ns, "ground", "frame", {"text": text})

def send(text):
    if noise.random() >= 0.1:
        loop.call_later(0.05 + 0.05 * noise.random(), deliver, text)

async def upload(node, number):
    try:
        for chunk in range(100):
            send(f"DATA {node}.{number}.{chunk}")
            await asyncio.sleep(0.1)
    finally:
        send(f"ABORT {node}.{number}")

async def drop():
    await asyncio.sleep(drops.uniform(0.5, 2))
    raise ConnectionError

async def node(number):
    for _ in range(2):
        try:
            async with asyncio.TaskGroup() as group:
                for i in range(10):
                    group.create_task(upload(number, i))
                group.create_task(drop())
        except* ConnectionError:
            pass

async def main():
    await asyncio.gather(*[node(number) for number in range(3)])
    await asyncio.sleep(1)

with asyncio.Runner(loop_factory=lambda: loop) as runner:
    runner.run(main())
print(trace.close(), trace.counts["frame"])
"""


def test_fresh_processes_with_any_hash_seed_give_one_digest() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORLD],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for hash_seed in ("0", "1", "random")
    ]
    answers = [process.communicate()[0].split() for process in processes]
    assert int(answers[0][1]) > 500, "the world was silent"
    assert answers[0] == answers[1] == answers[2]


def test_run_twice_gives_the_digest_or_says_that_runs_part() -> None:
    assert run_twice(lambda: "aa") == "aa"
    digests = iter(["aa", "bb"])
    with pytest.raises(ReplayDiverged, match="aa, then bb"):
        run_twice(lambda: next(digests))


# Failures


def test_a_deadlock_names_each_task_its_coroutine_and_its_line() -> None:
    async def listen(inbox: asyncio.Queue[bytes]) -> None:
        await inbox.get()  # the line that listen waits at

    async def main() -> None:
        await asyncio.sleep(1.5)
        listener = asyncio.create_task(listen(asyncio.Queue()), name="listener")
        await listener  # the line that main waits at

    with pytest.raises(Deadlock) as raised:
        run(main())
    head, main_line, listen_line = str(raised.value).splitlines()
    assert "1.500000000 s" in head
    assert "task-1 " in main_line
    assert ".main) waits at" in main_line
    assert "await listener  # the line that main waits at" in main_line
    assert "listener " in listen_line
    assert f"{__file__}:" in listen_line
    assert "await inbox.get()  # the line that listen waits at" in listen_line


def test_a_deadlock_of_very_many_tasks_counts_those_it_does_not_list() -> None:
    async def main() -> None:
        await asyncio.gather(*[asyncio.Event().wait() for _ in range(DEADLOCK_TASKS_MAX + 9)])

    with pytest.raises(Deadlock, match=r"and 10 more tasks$"):
        run(main())


def raise_value_error() -> None:
    raise ValueError("bad frame")


def test_an_error_in_a_callback_ends_the_run_after_its_batch() -> None:
    fired: list[str] = []

    async def main() -> None:
        loop = virtual_loop()
        loop.call_at_ns(5, raise_value_error)
        loop.call_at_ns(5, fired.append, "same batch")
        loop.call_at_ns(6, fired.append, "later")
        await asyncio.sleep(DAY_S)

    with pytest.raises(ValueError, match="bad frame") as raised:
        run(main())
    assert fired == ["same batch"]
    assert "0.000000005 s" in raised.value.__notes__[0]


def test_an_error_that_nobody_asks_a_task_for_ends_the_run() -> None:
    async def fail() -> None:
        raise ValueError("lost")

    async def main() -> None:
        asyncio.ensure_future(fail())  # noqa: RUF006 - forgotten on purpose
        await asyncio.sleep(DAY_S)

    with pytest.raises(ValueError, match="lost") as raised:
        run(main())
    assert "never retrieved" in raised.value.__notes__[0]


def test_a_pending_task_that_is_thrown_away_ends_the_run() -> None:
    async def main() -> None:
        async def wait_for_ever() -> None:
            await asyncio.Event().wait()

        asyncio.ensure_future(wait_for_ever())  # noqa: RUF006 - forgotten on purpose
        await asyncio.sleep(1)
        gc.collect()
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="destroyed but it is pending"):
        run(main())


def test_a_user_with_an_exception_handler_decides_for_himself() -> None:
    seen: list[str] = []

    async def main() -> str:
        loop = virtual_loop()
        loop.set_exception_handler(lambda _, context: seen.append(str(context["exception"])))
        loop.call_soon(raise_value_error)
        await asyncio.sleep(1)
        return "done"

    assert run(main()) == "done"
    assert seen == ["bad frame"]


def test_an_interrupt_cancels_the_main_task_and_comes_out() -> None:
    cleaned: list[int] = []

    async def main() -> None:
        loop = virtual_loop()
        loop.call_later(5, signal.raise_signal, signal.SIGINT)
        try:
            while True:
                await asyncio.sleep(1)
        finally:
            cleaned.append(loop.now_ns)

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cleaned == [5 * SECOND_NS]


# What leads outside

OUTSIDE: list[Callable[[VirtualLoop], object]] = [
    lambda loop: loop.run_in_executor(None, print),
    lambda loop: loop.getaddrinfo("localhost", 80),
    lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 80),
    lambda loop: loop.create_server(asyncio.Protocol, "localhost", 80),
    lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol),
    lambda loop: loop.add_reader(0, print),
    lambda loop: loop.add_writer(1, print),
    lambda loop: loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
    lambda loop: loop.subprocess_shell(asyncio.SubprocessProtocol, "true"),
    lambda loop: loop.add_signal_handler(signal.SIGTERM, print),
    lambda loop: loop.set_task_factory(None),
]


@pytest.mark.parametrize("reach", OUTSIDE, ids=range(len(OUTSIDE)))
def test_what_leads_out_of_virtual_time_is_refused_with_a_cure(reach: Callable[[VirtualLoop], object]) -> None:
    loop = VirtualLoop()
    with pytest.raises(Escape, match=r"virtual time: .{20}"):
        reach(loop)
    loop.close()


@pytest.mark.parametrize(
    "reach",
    [
        lambda: asyncio.to_thread(print),  # noqa: TID251 - refused
        lambda: asyncio.open_connection("localhost", 80),
        lambda: asyncio.create_subprocess_exec("true"),
    ],
    ids=["thread", "connection", "process"],
)
def test_the_wrappers_of_asyncio_are_refused_too(reach: Callable[[], Awaitable[object]]) -> None:
    async def main() -> None:
        await reach()

    with pytest.raises(Escape):
        run(main())


def test_another_thread_cannot_schedule_a_callback() -> None:
    loop = VirtualLoop()
    refused: list[Escape] = []

    def intrude() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except Escape as error:
            refused.append(error)

    thread = threading.Thread(target=intrude)
    thread.start()
    thread.join()
    loop.close()
    assert len(refused) == 1


# Options of newer Pythons


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_an_eager_task_is_counted_and_runs_at_once() -> None:
    async def main() -> tuple[bool, int]:
        order: list[int] = []

        async def note() -> None:
            order.append(1)

        task = virtual_loop().create_task(note(), eager_start=True)
        return order == [1] and task.done(), hash(task)

    assert run(main()) == (True, 2)


def test_callbacks_are_counted() -> None:
    async def main() -> int:
        before = virtual_loop().callbacks_count
        for _ in range(10):
            await asyncio.sleep(0)
        return virtual_loop().callbacks_count - before

    assert run(main()) == 10
