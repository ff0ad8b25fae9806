"""The virtual loop runs alike each time: tasks, their ends and generators in the order of their making."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from flightsw.errors import ReplayDiverged
from hil.sim.loop import VirtualLoop
from hil.sim.repeat import run_twice

DAY_S = 86_400


# Sets of tasks


def test_siblings_of_a_failed_task_clean_up_in_the_order_of_their_making(run: Callable[..., Any]) -> None:
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


def test_the_done_set_of_wait_iterates_alike(run: Callable[..., Any]) -> None:
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

    loop = asyncio.get_running_loop()
    for number in range(500):
        task = asyncio.ensure_future(leftover(number))
        if number % 7:
            task.cancel()  # gaps in the numbers, so that they collide in a set
        else:
            loop.kept = [*getattr(loop, "kept", []), task]  # type: ignore[attr-defined]
    await asyncio.sleep(0.1)
    order.clear()


def test_leftover_tasks_are_cancelled_in_the_order_of_their_making_whatever_ran_before(run: Callable[..., Any]) -> None:
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


def test_tasks_are_named_by_their_number_in_the_loop(run: Callable[..., Any]) -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.sleep(0), name="downlink")]
        await asyncio.gather(*tasks)
        return [task.get_name() for task in tasks]

    assert run(main()) == run(main()) == ["task-2", "downlink"]


def test_asynchronous_generators_close_in_the_order_of_first_use(run: Callable[..., Any]) -> None:
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
