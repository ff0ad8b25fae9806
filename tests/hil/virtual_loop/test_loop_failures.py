"""What ends a run of the virtual loop: deadlocks, errors nobody asks for, and whatever leads out of virtual time."""

import asyncio
import gc
import signal
import threading  # noqa: TID251 - to call the loop from outside
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flightsw.errors import Deadlock, Escape, SimulationError
from hil.sim.loop import SECOND_NS, VirtualLoop
from hil.sim.standstill import DEADLOCK_TASKS_MAX

DAY_S = 86_400


# Failures


def test_a_deadlock_names_each_task_its_coroutine_and_its_line(run: Callable[..., Any]) -> None:
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


def test_a_deadlock_of_very_many_tasks_counts_those_it_does_not_list(run: Callable[..., Any]) -> None:
    async def main() -> None:
        await asyncio.gather(*[asyncio.Event().wait() for _ in range(DEADLOCK_TASKS_MAX + 9)])

    with pytest.raises(Deadlock, match=r"and 10 more tasks$"):
        run(main())


def raise_value_error() -> None:
    raise ValueError("bad frame")


def test_an_error_in_a_callback_ends_the_run_after_its_batch(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
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


def test_an_error_that_nobody_asks_a_task_for_ends_the_run(run: Callable[..., Any]) -> None:
    async def fail() -> None:
        raise ValueError("lost")

    async def main() -> None:
        asyncio.ensure_future(fail())  # noqa: RUF006 - forgotten on purpose
        await asyncio.sleep(DAY_S)

    with pytest.raises(ValueError, match="lost") as raised:
        run(main())
    assert "never retrieved" in raised.value.__notes__[0]


def test_a_pending_task_that_is_thrown_away_ends_the_run(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async def wait_for_ever() -> None:
            await asyncio.Event().wait()

        asyncio.ensure_future(wait_for_ever())  # noqa: RUF006 - forgotten on purpose
        await asyncio.sleep(1)
        gc.collect()
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="destroyed but it is pending"):
        run(main())


def test_a_user_with_an_exception_handler_decides_for_himself(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
    seen: list[str] = []

    async def main() -> str:
        loop = virtual_loop()
        loop.set_exception_handler(lambda _, context: seen.append(str(context["exception"])))
        loop.call_soon(raise_value_error)
        await asyncio.sleep(1)
        return "done"

    assert run(main()) == "done"
    assert seen == ["bad frame"]


def test_an_interrupt_cancels_the_main_task_and_comes_out(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
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
def test_the_wrappers_of_asyncio_are_refused_too(
    run: Callable[..., Any], reach: Callable[[], Awaitable[object]]
) -> None:
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
