"""The paced loop: mission time, never early, equal timers in order, errors end the run."""

import asyncio
import os
import time  # noqa: TID251 - the loop under test is about it

import pytest

from flightsw.errors import ConfigError
from flightsw.host import loop as loop_module
from flightsw.host.clock import HostClock
from flightsw.host.loop import PacedLoop

S = 1_000_000_000
SCALE = 50.0


def paced(scenario, *, scale=SCALE, zero_utc_ns=None):
    """Run a coroutine function, which is given the loop."""
    loop = PacedLoop(time.time_ns() if zero_utc_ns is None else zero_utc_ns, scale)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(scenario(loop))


def test_no_timer_fires_early_and_equal_timers_fire_in_the_order_of_arming():
    async def scenario(loop):
        fired = []
        start_ns = loop.now_ns
        # armed in an order that is neither that of the instants nor its reverse
        for number, offset_ms in enumerate([40, 10, 10, 30, 10, 20, 20, 10, 40, 0, 10]):
            due_ns = start_ns + offset_ms * 1_000_000
            loop.call_at_ns(due_ns, lambda due_ns, number: fired.append((due_ns, number, loop.now_ns)), due_ns, number)
        await asyncio.sleep(0.1)
        assert [(due_ns, number) for due_ns, number, _ in fired] == sorted((due, number) for due, number, _ in fired)
        assert len(fired) == 11
        assert all(now_ns >= due_ns for due_ns, _, now_ns in fired)

    paced(scenario)


def test_sleep_and_call_later_last_at_least_their_mission_time():
    async def scenario(loop):
        for delay_s in (0.001, 0.02, 0.3, 1.0):
            before_ns = loop.now_ns
            await asyncio.sleep(delay_s)
            assert loop.now_ns - before_ns >= round(delay_s * S) - 1
        done = loop.create_future()
        before = loop.time()
        loop.call_later(0.05, done.set_result, None)
        await done
        assert loop.time() >= before + 0.05
        await asyncio.wait_for(asyncio.sleep(0.05), 5.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.05)

    paced(scenario)


def test_mission_time_runs_faster_than_the_machines_by_the_scale():
    async def scenario(loop):
        real_ns, mission_ns = time.monotonic_ns(), loop.now_ns
        await asyncio.sleep(1.0)
        mission_after_ns, real_after_ns = loop.now_ns, time.monotonic_ns()
        # the readings of the one clock lie inside those of the other
        assert mission_after_ns - mission_ns <= (real_after_ns - real_ns) * SCALE
        assert (mission_after_ns - mission_ns) / SCALE > (real_after_ns - real_ns) / 2

    paced(scenario)


def test_the_kernel_waits_for_mission_time_divided_by_the_scale(monkeypatch):
    waits_s = []
    real_select = loop_module.select.select

    def select(reading, writing, failing, timeout):
        waits_s.append(timeout)
        return real_select(reading, writing, failing, timeout)

    monkeypatch.setattr(loop_module.select, "select", select)

    async def scenario(loop):
        waits_s.clear()
        await asyncio.sleep(1.0)
        assert 0.0 < waits_s[0] <= 1.0 / SCALE

    paced(scenario)


def test_a_high_descriptor_of_the_loop_waits_too(monkeypatch):
    monkeypatch.setattr(loop_module, "SELECT_DESCRIPTOR_MAX", -1)

    async def scenario(loop):
        before_ns = loop.now_ns
        await asyncio.sleep(0.2)
        assert loop.now_ns - before_ns >= S // 5

    paced(scenario)


def test_all_loops_of_a_run_share_t_zero_and_it_may_lie_ahead():
    zero_utc_ns = time.time_ns() - 100 * S

    async def instants(loop):
        return time.time_ns(), loop.now_ns, time.time_ns()

    for scale in (1.0, SCALE):
        before_ns, now_ns, after_ns = paced(instants, scale=scale, zero_utc_ns=zero_utc_ns)
        # a wall clock that is set between the readings would be a millisecond at most
        slack_ns = 1_000_000 * scale
        assert (before_ns - zero_utc_ns) * scale - slack_ns <= now_ns <= (after_ns - zero_utc_ns) * scale + slack_ns
    _, now_ns, _ = paced(instants, zero_utc_ns=time.time_ns() + 3600 * S)
    assert now_ns < 0


def test_a_wall_clock_that_is_set_later_changes_nothing(monkeypatch):
    async def scenario(loop):
        before_ns = loop.now_ns
        monkeypatch.setattr(loop_module.time, "time_ns", lambda: 0)
        assert loop.now_ns >= before_ns

    paced(scenario)


def test_time_never_runs_back():
    async def scenario(loop):
        instants = [loop.now_ns for _ in range(20_000)]
        assert instants == sorted(instants)

    paced(scenario, scale=0.3)


def test_a_cancelled_timer_never_fires_and_many_of_them_are_forgotten():
    async def scenario(loop):
        fired = []
        timers = [loop.call_later(0.05, fired.append, number) for number in range(1000)]
        for timer in timers[1:]:
            timer.cancel()
        await asyncio.sleep(0.2)
        assert fired == [0]
        assert len(loop._scheduled) < 200

    paced(scenario)


def test_bytes_on_a_descriptor_wake_the_loop_from_a_long_wait():
    async def scenario(loop):
        reading, writing = os.pipe()
        came = loop.create_future()
        loop.add_reader(reading, lambda: came.set_result(os.read(reading, 10)))
        loop.call_soon(os.write, writing, b"now")
        assert await asyncio.wait_for(came, 3600 * SCALE) == b"now"
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)

    paced(scenario)


def test_an_error_of_a_callback_ends_the_run_at_once():
    reached = []

    async def scenario(loop):
        def stumble():
            raise AssertionError("planted")

        loop.call_later(0.01, stumble)
        await asyncio.sleep(20)
        reached.append("the end")

    with pytest.raises(AssertionError, match="planted") as caught:
        paced(scenario)
    assert any("at T+" in note for note in caught.value.__notes__)
    assert reached == []


def test_an_error_goes_to_the_handler_of_who_sets_one():
    async def scenario(loop):
        taken = []
        loop.set_exception_handler(lambda _, context: taken.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        assert [type(error) for error in taken] == [ZeroDivisionError]

    paced(scenario)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-4, 1001.0, float("inf"), float("nan")])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(ConfigError, match=r"^time_scale is .*, expected 0.001 to 1000$"):
        PacedLoop(0, scale)


def test_the_clock_reads_the_loop_and_counts_mission_time_from_its_epoch():
    async def scenario(loop):
        clock = HostClock(loop, 1_700_000_000 * S)
        low_ns = loop.now_ns
        monotonic_ns, utc_ns = clock.monotonic_ns(), clock.utc_ns()
        assert low_ns <= monotonic_ns <= utc_ns - 1_700_000_000 * S <= loop.now_ns

    paced(scenario)
