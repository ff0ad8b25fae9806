"""The time of the virtual loop: timers fire by deadline and then by arming, and a cancelled one never fires."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.ports import Random
from hil.sim.loop import CANCELLED_TIMERS_MIN, SECOND_NS, VirtualLoop

DAY_S = 86_400


# Time


def test_a_day_of_sleep_takes_a_day_of_virtual_time(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
    async def main() -> int:
        await asyncio.sleep(DAY_S)
        return virtual_loop().now_ns

    assert run(main()) == DAY_S * SECOND_NS


def test_equal_timers_fire_in_the_order_of_arming(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
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


def test_a_timer_armed_for_the_past_fires_now(run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]) -> None:
    async def main() -> list[int]:
        await asyncio.sleep(3)
        fired: list[int] = []
        virtual_loop().call_at_ns(SECOND_NS, lambda: fired.append(virtual_loop().now_ns))
        await asyncio.sleep(1)
        return fired

    assert run(main()) == [3 * SECOND_NS]


def test_float_seconds_round_to_the_nearest_nanosecond(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
    async def main() -> list[int]:
        loop = virtual_loop()
        await asyncio.sleep(1)
        return [loop.call_later(2.6e-9, print).when_ns, loop.call_at(1 + 2.6e-9, print).when_ns]

    assert run(main()) == [SECOND_NS + 3, SECOND_NS + 3]


def test_a_float_deadline_comes_back_exact_after_twenty_days(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
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


def test_time_stands_still_while_callbacks_are_ready(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
    async def main() -> tuple[list[int], int]:
        fired: list[int] = []
        virtual_loop().call_at_ns(0, fired.append, 1)
        virtual_loop().call_at_ns(1, fired.append, 2)
        for _ in range(100):
            await asyncio.sleep(0)
        return fired, virtual_loop().now_ns

    assert run(main()) == ([1], 0)


def test_a_timeout_cancels_at_its_virtual_deadline(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
    async def main() -> int:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DAY_S):
                await asyncio.sleep(2 * DAY_S)
        return virtual_loop().now_ns

    assert run(main()) == DAY_S * SECOND_NS


# Cancelled timers


def test_cancelled_timers_never_fill_the_heap(run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]) -> None:
    async def main() -> int:
        loop, armed_count_max = virtual_loop(), 0
        for _ in range(2_000):
            loop.call_later(DAY_S, print).cancel()
            armed_count_max = max(armed_count_max, loop.timers_armed_count)
        return armed_count_max

    assert run(main()) <= CANCELLED_TIMERS_MIN + 1


def test_a_timer_that_has_fired_does_not_count_as_cancelled(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
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


def test_a_cancelled_callback_never_runs_even_in_its_own_batch(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
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


# Options of newer Pythons


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_an_eager_task_is_counted_and_runs_at_once(
    run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]
) -> None:
    async def main() -> tuple[bool, int]:
        order: list[int] = []

        async def note() -> None:
            order.append(1)

        task = virtual_loop().create_task(note(), eager_start=True)
        return order == [1] and task.done(), hash(task)

    assert run(main()) == (True, 2)


def test_callbacks_are_counted(run: Callable[..., Any], virtual_loop: Callable[[], VirtualLoop]) -> None:
    async def main() -> int:
        before = virtual_loop().callbacks_count
        for _ in range(10):
            await asyncio.sleep(0)
        return virtual_loop().callbacks_count - before

    assert run(main()) == 10
