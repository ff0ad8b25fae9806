"""When entries of sequences run: after their delays or at their mission times, whatever the clock does."""

from collections.abc import Callable
from typing import Any

import pytest

from flightsw.component import Outcome
from flightsw.core.sequences import CYCLE_ENTRIES_MAX
from flightsw.dictionary.sequence_file import AutoStart, Kind
from flightsw.ports import ResetCause
from flightsw.wire.messages import CommandCode

S = 1_000_000_000
UTC = 1_795_262_400 * S
NOOP = ("NODE.NOOP", ())
SAFE = ("MODE.SAFE", ())


# -- relative


def test_relative_entries_run_after_their_delays_from_the_entry_before(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((2 * S, NOOP), (0, SAFE), (3 * S, NOOP), runs_in_safe=True)
    node.run_until(20)
    assert node.ran == [
        (7 * S, "NODE.NOOP", (), "sequence s entry 1"),
        (7 * S, "MODE.SAFE", (), "sequence s entry 2"),
        (10 * S, "NODE.NOOP", (), "sequence s entry 3"),
    ]
    assert node.events == [("LOADED", "s", 3), ("STARTED", "s", "by command"), ("COMPLETED", "s", 3, 0, 0)]
    assert node.status() == ["EXECUTED"] * 3


def test_a_delay_is_never_shorter_than_written_however_slow_the_cycle(make_node: Callable[..., Any]) -> None:
    node = make_node(now_ns=0).boot()
    node.load_and_start((9 * S, NOOP), (2 * S, NOOP), (10 * S, NOOP))
    node.run_until(60, tick_s=10)
    assert node.ran_at_s() == [10, 20, 30]


@pytest.mark.parametrize("jump_s", [-259_200, 259_200])
def test_a_relative_sequence_keeps_its_delays_when_mission_time_jumps(
    make_node: Callable[..., Any], jump_s: int
) -> None:
    node = make_node().boot()
    node.load_and_start((2 * S, NOOP), (5 * S, NOOP), (100 * S, NOOP))
    node.run_until(8)
    node.mission_offset_ns += jump_s * S
    node.run_until(200)
    assert node.ran_at_s() == [7, 12, 112]


def test_a_relative_sequence_needs_no_mission_time(make_node: Callable[..., Any]) -> None:
    node = make_node(is_time_known=False).boot()
    node.load_and_start((0, NOOP))
    node.run_until(6)
    assert node.names()[-1] == "COMPLETED"


def test_one_cycle_runs_a_bounded_number_of_entries(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start(*[(0, NOOP)] * (CYCLE_ENTRIES_MAX + 3))
    node.run_until(6)
    assert len(node.ran) == CYCLE_ENTRIES_MAX
    node.run_until(7)
    assert len(node.ran) == CYCLE_ENTRIES_MAX + 3


# -- absolute


def test_absolute_entries_run_at_their_mission_times(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((UTC + 10 * S, NOOP), (UTC + 10 * S, SAFE), (UTC + 13 * S, NOOP), **SAFE_ABSOLUTE)
    node.run_until(20)
    assert node.ran_at_s() == [10, 10, 13]


SAFE_ABSOLUTE: dict[str, Any] = {"kind": Kind.ABSOLUTE, "runs_in_safe": True}


def test_a_forward_jump_runs_what_is_a_little_late_in_order_and_skips_and_reports_the_rest(
    make_node: Callable[..., Any],
) -> None:
    node = make_node().boot()
    times = (10, 100, 150, 170, 400)
    node.load_and_start(*[(UTC + at * S, NOOP) for at in times], kind=Kind.ABSOLUTE, late_max_s=60)
    node.run_until(11)
    node.mission_offset_ns += 200 * S  # to 211, and 212 with the next cycle
    node.run_until(12)
    assert node.ran_at_s() == [10, 12]
    assert node.events[-1] == ("SKIPPED", "s", 2, 3, 112)
    assert node.status() == ["EXECUTED", "SKIPPED", "SKIPPED", "EXECUTED", "LOADED"]
    assert node.decisions == [{"kind": "sequence", "sequence": "s", "act": "skip", "first": 2, "last": 3}]
    node.run_until(201)
    assert node.ran_at_s() == [10, 12, 200]
    assert node.events[-1] == ("COMPLETED", "s", 3, 0, 2)


def test_a_backward_jump_runs_no_entry_twice_and_later_ones_at_their_times(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((UTC + 10 * S, NOOP), (UTC + 20 * S, NOOP), kind=Kind.ABSOLUTE)
    node.run_until(15)
    node.mission_offset_ns -= 259_200 * S
    node.run_until(1000)
    assert node.ran_at_s() == [10]
    node.mission_offset_ns += 259_200 * S - 985 * S
    node.run_until(1100)
    assert node.ran_at_s() == [10, 1005]


def test_a_jump_over_all_entries_ends_the_sequence_with_every_entry_skipped(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start(*[(UTC + at * S, NOOP) for at in (10, 20, 30)], kind=Kind.ABSOLUTE)
    node.mission_offset_ns += 259_200 * S
    node.run_until(6)
    assert node.ran == []
    assert [event[0] for event in node.events[-2:]] == ["SKIPPED", "COMPLETED"]
    assert node.events[-1] == ("COMPLETED", "s", 0, 0, 3)


def test_no_absolute_sequence_starts_before_mission_time_is_known(make_node: Callable[..., Any]) -> None:
    node = make_node(is_time_known=False).boot()
    node.load((UTC + 10 * S, NOOP), kind=Kind.ABSOLUTE, auto_start=AutoStart.ALWAYS)
    assert node.do("START", "s") == Outcome(CommandCode.EXECUTION_ERROR, "mission time is not known")
    node.boot(ResetCause.WATCHDOG)  # by itself it starts, and waits
    node.run_until(20)
    assert node.ran == []
    assert node.names().count("HELD") == 1
    assert node.control.channels()["held"] == 1
    node.is_time_known = True
    node.run_until(21)
    assert len(node.ran) == 1
    assert node.control.channels()["held"] == 0
