"""Mission time: what the ground corrects, what a jump of the board's clock changes, and what a reset keeps."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards.simulated.clock import LoopClock
from flightsw.component import Outcome
from flightsw.core.mission_time import DRIFT_PPB_MAX, JUMP_NS_MIN, SLEW_PPB, MissionTime
from flightsw.dictionary import check_arguments, flight_dictionary
from flightsw.errors import StorageError
from flightsw.wire.messages import CommandCode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
EPOCH = 1_795_262_400 * S
DAYS_3 = 259_200 * S
DICTIONARY = flight_dictionary()


class FullableDisk(SimulatedDisk):
    """A disk that may take nothing."""

    is_full = False

    def replace(self, name: str, data: bytes) -> None:
        if self.is_full:
            raise StorageError("the disk is full")
        super().replace(name, data)


@dataclass
class Node:
    """A board's clock that may drift and jump, a disk, and the component TIME over them."""

    now_ns: int = 0
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk = FullableDisk(1 << 20, Streams(1).random("disk"))
        self.clock = LoopClock(lambda: self.now_ns, EPOCH)
        self.boot()

    def boot(self) -> None:
        self.time = MissionTime(self.clock, self.disk, self.report)
        self.time.boot()

    def report(self, key: str, *arguments: Any) -> None:
        spec = DICTIONARY.events[key]
        text = spec.format.format(**dict(zip((one.name for one in spec.arguments), arguments, strict=True)))
        self.events.append((key.removeprefix("TIME."), text))

    def run_s(self, seconds: float, tick_s: float = 10.0) -> None:
        end_ns = self.now_ns + round(seconds * S)
        while self.now_ns < end_ns:
            self.now_ns = min(end_ns, self.now_ns + round(tick_s * S))
            self.time.cycle(self.now_ns)

    def error_ns(self) -> int:
        """Mission time less true UTC."""
        return self.time.utc_ns() - (EPOCH + self.now_ns)

    def do(self, name: str, *arguments: Any) -> Outcome:
        assert check_arguments(DICTIONARY.commands[f"TIME.{name}"], arguments) is None
        return self.time.handlers()[name](arguments)


def test_mission_time_is_the_boards_clock_until_the_ground_corrects_it() -> None:
    node = Node()
    node.clock.set_drift_ppb(20_000)
    node.run_s(1000)
    assert node.error_ns() == 20_000_000
    assert node.time.known_ns() is None
    assert node.time.channels()["state"] == "UNKNOWN"
    assert node.do("STEP", -20_000_000, 0).code is CommandCode.OK
    assert node.error_ns() == 0
    assert node.time.known_ns() == EPOCH + node.now_ns
    assert node.time.channels() == {
        "state": "CORRELATED",
        "stcf_ns": -20_000_000,
        "rate_ppb": 0,
        "slew_left_ns": 0,
        "correlation": 1,
        "clock_jumps": 0,
    }
    assert node.events == [("CHANGED", "correlation 1: jump of -0.020000 s, rate +0 ppb")]


def test_a_rate_correction_takes_out_the_drift() -> None:
    node = Node()
    node.clock.set_drift_ppb(50_000)
    node.run_s(100)
    assert node.do("ADJUST", -node.error_ns(), -50_000, 0).code is CommandCode.OK
    node.run_s(10_000)
    assert abs(node.error_ns()) < 30_000, "the product of both rates is what is left: 2.5e-9 of 10,000 s"


@pytest.mark.parametrize("offset_ns", [-S, S])
def test_an_offset_is_slewed_away_at_a_bounded_rate_and_without_a_jump(offset_ns: int) -> None:
    node = Node()
    assert node.do("ADJUST", offset_ns, 0, 0).code is CommandCode.OK
    assert node.error_ns() == 0
    before = node.time.utc_ns()
    slew_s = abs(offset_ns) // SLEW_PPB
    for _ in range(20):
        node.run_s(slew_s / 20)
        moved_ns, before = node.time.utc_ns() - before, node.time.utc_ns()
        assert abs(moved_ns - slew_s * S // 20) <= slew_s * S // 20 * SLEW_PPB // S + 1
    assert node.error_ns() == offset_ns
    assert node.time.channels()["slew_left_ns"] == 0
    node.run_s(1000)
    assert node.error_ns() == offset_ns


def test_mission_time_never_runs_backward_while_it_is_slewed() -> None:
    node = Node()
    node.clock.set_drift_ppb(-DRIFT_PPB_MAX)
    node.do("ADJUST", -10 * S, -DRIFT_PPB_MAX, 0)
    before = node.time.utc_ns()
    for _ in range(100):
        node.run_s(0.001, tick_s=0.001)
        assert node.time.utc_ns() > before
        before = node.time.utc_ns()


@pytest.mark.parametrize("jump_ns", [-DAYS_3, -2 * JUMP_NS_MIN, 2 * JUMP_NS_MIN, DAYS_3])
def test_a_jump_of_the_boards_clock_is_found_taken_out_and_reported(jump_ns: int) -> None:
    node = Node()
    node.do("STEP", S, 0)
    node.run_s(100)
    node.clock.jump(jump_ns)
    assert node.error_ns() == S, "even before the next cycle"
    node.run_s(100)
    assert node.error_ns() == S
    text = f"the board's clock jumped by {jump_ns / S:+.3f} s; mission time goes on without it"
    assert node.events[1:] == [("CLOCK_JUMPED", text)]
    assert node.time.channels()["clock_jumps"] == 1
    node.boot()
    assert node.error_ns() == S, "over a reset too"
    assert node.time.known_ns() is not None


def test_drift_is_not_taken_for_a_jump_however_long_between_two_readings() -> None:
    node = Node()
    node.clock.set_drift_ppb(DRIFT_PPB_MAX)
    node.run_s(1_000_000, tick_s=100_000)
    assert node.events == []
    assert node.error_ns() == 200 * S


def test_the_correction_goes_on_over_a_reset_with_rate_and_slew() -> None:
    node = Node()
    node.clock.set_drift_ppb(10_000)
    node.do("ADJUST", S, -10_000, 0)
    node.run_s(500)
    left = node.time.channels()["slew_left_ns"]
    node.now_ns += 100 * S  # without power; the clock runs through
    node.boot()
    assert node.time.state == "KEPT"
    assert node.time.known_ns() is not None
    assert node.time.channels()["correlation"] == 1
    assert node.time.channels()["slew_left_ns"] == pytest.approx(left - 100 * SLEW_PPB, abs=1000)
    node.run_s(5000)
    assert node.error_ns() == pytest.approx(S, abs=1000)


def test_a_clock_that_was_lost_makes_mission_time_unknown_until_the_ground_corrects_it() -> None:
    node = Node()
    node.do("STEP", S, 0)
    node.run_s(100)
    node.clock = LoopClock(lambda: node.now_ns, 0)  # the clock's battery is gone: it begins with 1970
    node.boot()
    assert node.time.known_ns() is None
    assert node.events[-1][0] == "LOST"
    assert "behind where it was at the last correction" in node.events[-1][1]
    late = node.do("SET", EPOCH, 1)
    assert late == Outcome(CommandCode.VALIDATION_ERROR, "measured against correlation 1, 2 is in force")
    assert node.do("SET", EPOCH, 2).code is CommandCode.OK
    assert node.error_ns() == 0
    assert node.time.known_ns() is not None


def test_a_correction_that_was_measured_against_another_is_refused() -> None:
    node = Node()
    assert node.do("STEP", S, 0).code is CommandCode.OK
    for name, arguments in (("STEP", (S, 0)), ("SET", (DAYS_3, 0)), ("ADJUST", (S, 0, 0))):
        assert node.do(name, *arguments).detail == "measured against correlation 0, 1 is in force"
    assert node.error_ns() == S


def test_mission_time_cannot_be_set_before_1970_or_beyond_what_messages_hold() -> None:
    node = Node()
    for offset_ns in (-EPOCH - S, (1 << 63) - 1):
        assert node.do("SET", offset_ns, 0).code is CommandCode.VALIDATION_ERROR
    assert node.error_ns() == 0
    assert node.time.correlation == 0


def test_rot_in_one_copy_costs_nothing_and_rot_in_both_is_reported() -> None:
    node = Node()
    node.do("STEP", S, 0)
    node.disk.flip_bit("time.a", 100)
    node.boot()
    assert node.error_ns() == S
    node.disk.flip_bit("time.a", 100)
    node.disk.flip_bit("time.b", 101)
    node.boot()
    assert node.events[-1][0] == "LOST"
    assert node.time.known_ns() is None


def test_a_disk_that_takes_nothing_refuses_a_correction_and_keeps_a_jump_for_later() -> None:
    node = Node()
    node.disk.is_full = True
    assert node.do("STEP", S, 0) == Outcome(CommandCode.EXECUTION_ERROR, "the disk is full")
    assert (node.error_ns(), node.time.correlation, node.time.known_ns()) == (0, 0, None)
    node.clock.jump(DAYS_3)
    node.run_s(100)
    assert [name for name, _ in node.events] == ["CLOCK_JUMPED", "UNSAVED"]
    node.disk.is_full = False
    node.run_s(10)
    node.boot()
    assert node.error_ns() == 0


def test_a_quiet_cycle_writes_nothing() -> None:
    node = Node()
    node.run_s(1000)
    assert node.disk.names() == []


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 500), st.integers(-DRIFT_PPB_MAX, DRIFT_PPB_MAX), st.sampled_from((0, 0, -DAYS_3, DAYS_3))
        ),
        max_size=12,
    )
)
def test_whatever_the_clock_does_mission_time_is_off_by_no_more_than_drift_and_small_jumps(
    steps: list[tuple[float, int, int]],
) -> None:
    node = Node()
    bound_ns = 0
    for seconds, drift_ppb, jump_ns in steps:
        node.clock.set_drift_ppb(drift_ppb)
        node.clock.jump(jump_ns)
        node.run_s(seconds)
        bound_ns += round(seconds * abs(drift_ppb)) + JUMP_NS_MIN
        assert abs(node.error_ns()) <= bound_ns
