"""Sequences over resets, rot, full disks and power cuts: no entry runs twice and none is lost without a word."""

from collections.abc import Callable
from typing import Any

import pytest

from flightsw.core.sequences import CHECKPOINT_NS
from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.model import Dictionary
from flightsw.dictionary.sequence_file import AutoStart, EntryStatus, Kind
from flightsw.ports import ResetCause
from flightsw.wire.messages import CommandCode

S = 1_000_000_000
UTC = 1_795_262_400 * S
DICTIONARY = flight_dictionary()
NOOP = ("NODE.NOOP", ())
SAFE = ("MODE.SAFE", ())


def test_a_relative_sequence_goes_on_at_its_next_entry_with_the_rest_of_its_delay(
    make_node: Callable[..., Any],
) -> None:
    node = make_node(now_ns=0).boot()
    node.load_and_start((S, NOOP), (1000 * S, SAFE))
    node.run_until(1 + 300)
    node.now_ns = 7 * S  # monotonic time starts anew; how long the power was off no clock says
    node.boot(ResetCause.POWER_CYCLE)
    rest_s = 1000 - 300 + 300 % (CHECKPOINT_NS // S)
    assert node.events[-1] == ("RESUMED", "s", 2, rest_s)
    node.run_until(2000)
    assert node.ran_at_s() == [1, 7 + rest_s]
    assert node.status() == ["EXECUTED", "EXECUTED"]


def test_a_checkpoint_is_written_once_a_minute_and_nothing_in_between(make_node: Callable[..., Any]) -> None:
    node = make_node(now_ns=0).boot()
    node.load_and_start((3600 * S, NOOP))
    before = node.disk.operations_count
    node.run_until(CHECKPOINT_NS // S - 1)
    assert node.disk.operations_count == before
    node.run_until(600)
    assert node.disk.operations_count == before + 10 * 4  # append and sync, to two copies


def test_an_absolute_sequence_goes_on_after_a_reset_and_skips_what_the_time_off_made_too_late(
    make_node: Callable[..., Any],
) -> None:
    node = make_node().boot()
    node.load_and_start(*[(UTC + at * S, NOOP) for at in (10, 20, 200, 300)], kind=Kind.ABSOLUTE)
    node.run_until(11)
    node.now_ns = 190 * S
    node.boot(ResetCause.BROWN_OUT)
    node.run_until(400)
    assert node.ran_at_s() == [10, 200, 300]
    assert node.status() == ["EXECUTED", "SKIPPED", "EXECUTED", "EXECUTED"]


@pytest.mark.parametrize(
    ("auto_start", "causes"),
    [
        (AutoStart.NEVER, ()),
        (AutoStart.AFTER_POWER_ON, ("POWER_ON", "POWER_CYCLE", "BROWN_OUT")),
        (AutoStart.AFTER_RESET, ("RESET_COMMAND", "WATCHDOG", "EXCEPTION", "KERNEL_PANIC", "KILLED")),
        (AutoStart.ALWAYS, tuple(cause.name for cause in ResetCause)),
    ],
)
def test_a_sequence_starts_by_itself_after_the_resets_it_is_made_for(
    make_node: Callable[..., Any], auto_start: AutoStart, causes: tuple[str, ...]
) -> None:
    for cause in ResetCause:
        node = make_node().boot()
        node.load((S, NOOP), auto_start=auto_start)
        node.boot(cause)
        assert (node.control.channels()["running"] == 1) == (cause.name in causes), cause
        if cause.name in causes:
            assert node.events[-1] == ("STARTED", "s", f"at boot after {cause.name}")


def test_a_sequence_that_ran_before_the_reset_goes_on_and_does_not_start_again(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((S, NOOP), (100 * S, NOOP), auto_start=AutoStart.ALWAYS)
    node.run_until(10)
    node.boot(ResetCause.WATCHDOG)
    node.run_until(200)
    assert len(node.ran) == 2


def test_a_disabled_sequence_does_not_start_by_itself(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load((S, NOOP), auto_start=AutoStart.ALWAYS)
    node.do("DISABLE", "s")
    node.boot()
    assert node.control.channels()["running"] == 0


def test_a_node_with_another_dictionary_does_not_run_what_is_on_its_disk(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load_and_start((S, NOOP), (S, NOOP))
    node.dictionary = Dictionary({name: part for name, part in DICTIONARY.components.items() if name != "OBJECTS"})
    node.boot(ResetCause.RESET_COMMAND)
    assert [name for name in node.names() if name in ("LOST", "STOPPED")] == ["LOST", "STOPPED"]
    node.run_until(20)
    assert node.ran == []
    assert node.do("START", "s").detail.startswith("compiled with dictionary")


# -- a disk that rots, fills up, or loses power


def test_rot_in_one_copy_is_mended_and_rot_in_both_is_reported_as_lost(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load((S, NOOP))
    first, second = node.disk.names("sequences/")
    node.disk.flip_bit(first, 200)
    node.boot()
    assert node.control.channels()["repaired"] == 1
    assert node.do("START", "s").code is CommandCode.OK
    node.disk.flip_bit(first, 200)
    node.disk.flip_bit(second, 201)
    node.boot()
    assert [event[:2] for event in node.events if event[0] == "LOST"] == [("LOST", "s")]
    assert node.do("START", "s").detail == "no sequence 's' is loaded"
    node.events.clear()
    assert node.boot().events == [], "reported once"


def test_progress_that_is_damaged_in_both_copies_stops_the_sequence_rather_than_repeat_an_entry(
    make_node: Callable[..., Any],
) -> None:
    node = make_node().boot()
    node.load_and_start((0, NOOP), (0, NOOP), (100 * S, NOOP), (100 * S, NOOP))
    node.run_until(10)
    for name in ("sequences.a", "sequences.b"):
        size_bytes = len(node.disk.read(name))
        node.disk.flip_bit(name, 8 * (size_bytes // 2))
    node.boot(ResetCause.WATCHDOG)
    assert node.events[-1] == ("STOPPED", "s", 3, "what it had done cannot be read for sure")
    node.run_until(500)
    assert len(node.ran) == 2


def test_a_disk_that_takes_nothing_stops_the_sequence_before_the_entry_takes_effect(
    make_node: Callable[..., Any],
) -> None:
    node = make_node().boot()
    node.load_and_start((S, NOOP), (S, NOOP))
    node.disk.is_refusing = True
    node.run_until(20)
    assert node.ran == []
    assert node.events[-1] == ("STOPPED", "s", 1, "the disk does not take what it does")
    node.disk.is_refusing = False
    node.run_until(21)  # the stop is written as soon as it can be
    node.boot(ResetCause.WATCHDOG)
    node.run_until(40)
    assert node.ran == []


def test_a_full_disk_refuses_commands_that_would_be_forgotten(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load((S, NOOP))
    node.disk.is_refusing = True
    for name in ("START", "DISABLE", "UNLOAD"):
        assert node.do(name, "s").code is CommandCode.EXECUTION_ERROR
    assert node.load((S, NOOP), name="t").code is CommandCode.EXECUTION_ERROR
    node.disk.is_refusing = False
    assert node.do("LIST").detail == "s relative LOADED 0/1"
    assert node.do("START", "s").code is CommandCode.OK


def mission(node: Any) -> None:
    """Load, start, run to the end; each entry has a number of its own."""
    entries = [(S, ("JOBS.PAUSE", (number,))) for number in range(1, 6)]
    node.load_and_start(*entries, stops_on_failure=False)
    node.run_until(node.now_ns / S + 10)


def test_at_whatever_operation_the_power_fails_no_entry_runs_twice_and_none_is_lost_without_a_word(
    make_node: Callable[..., Any], make_disk: Callable[..., Any], power_lost: type[BaseException]
) -> None:
    whole = make_node().boot()
    mission(whole)
    operations_count = whole.disk.operations_count
    assert operations_count > 40
    interrupted_count = 0
    for seed in range(4):
        for cut_at in range(1, operations_count + 1):
            for is_after in (False, True):
                node = make_node(disk=make_disk(seed)).boot()
                node.disk.cut_at, node.disk.is_after = cut_at, is_after
                acknowledged = False
                try:
                    entries = [(S, ("JOBS.PAUSE", (number,))) for number in range(1, 6)]
                    node.load_and_start(*entries, stops_on_failure=False)
                    acknowledged = True
                    node.run_until(node.now_ns / S + 10)
                except power_lost:
                    node.disk.power_cut()
                node.disk.cut_at = None
                node.boot(ResetCause.POWER_CYCLE)
                node.run_until(node.now_ns / S + 20)
                ran = [arguments[0] for _, _, arguments, _ in node.ran]
                where = f"seed {seed}, {'after' if is_after else 'before'} operation {cut_at}: {ran} {node.events}"
                assert ran == sorted(set(ran)), f"an entry ran twice or out of order: {where}"
                if not acknowledged:
                    continue
                statuses = node.status()
                reported = [event[2] for event in node.events if event[0] == "INTERRUPTED"]
                for number in range(1, 6):
                    status = statuses[number - 1]
                    if number not in ran:
                        assert number in reported, f"entry {number} is lost: {where}"
                    assert (status == EntryStatus.INTERRUPTED) == (number in reported), f"{number} {status}: {where}"
                interrupted_count += len(reported)
    assert interrupted_count, "no cut fell between the beginning of an entry and its end"


def test_at_whatever_operation_the_power_fails_a_load_leaves_the_old_sequence_or_the_new_one(
    make_node: Callable[..., Any], make_disk: Callable[..., Any], power_lost: type[BaseException]
) -> None:
    ends = set()
    for seed in range(4):
        for cut_at in range(1, 40):
            for is_after in (False, True):
                node = make_node(disk=make_disk(seed)).boot()
                assert node.load((S, NOOP)).code is CommandCode.OK
                node.do("DISABLE", "s")
                node.disk.operations_count = 0
                node.disk.cut_at, node.disk.is_after = cut_at, is_after
                steps = 0
                try:
                    assert node.load((S, SAFE), (S, SAFE), runs_in_safe=True).code is CommandCode.OK
                    steps = 1
                    assert node.do("UNLOAD", "s").code is CommandCode.OK
                    steps = 2
                except power_lost:
                    node.disk.power_cut()
                node.disk.cut_at = None
                node.boot(ResetCause.POWER_CYCLE)
                listed = node.do("LIST").detail
                allowed = {
                    0: ("s relative DISABLED 0/1", "s relative LOADED 0/2"),
                    1: ("s relative LOADED 0/2", "none"),
                    2: ("none",),
                }[steps]
                assert listed in allowed, f"seed {seed}, {is_after=}, operation {cut_at}, {steps} acknowledged"
                assert node.events == [event for event in node.events if event[0] == "LOADED"]
                ends.add((steps, listed))
    assert len(ends) == 5, "every end was met"


def test_the_log_of_states_stays_bounded_and_keeps_the_newest(make_node: Callable[..., Any]) -> None:
    node = make_node().boot()
    node.load((0, NOOP))
    for _ in range(300):
        node.do("DISABLE", "s")
        node.do("ENABLE", "s")
    node.do("DISABLE", "s")
    assert len(node.disk.read("sequences.a")) < 30_000
    assert node.boot().do("START", "s").code is CommandCode.DISABLED
