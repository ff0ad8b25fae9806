"""Hazardous commands are executed only when armed: once, by name, and within the window."""

import pytest

from flightsw.dictionary import flight_dictionary
from flightsw.wire.messages import CommandCode, Stage

S = 1_000_000_000
DICTIONARY = flight_dictionary()
ACCEPTED_COMPLETED = [(Stage.ACCEPTED, CommandCode.OK), (Stage.COMPLETED, CommandCode.OK)]
HAZARDOUS = "NODE.POWER_CYCLE"


def test_a_hazardous_command_without_an_arm_is_refused(make_bench, disk):
    bench = make_bench(disk)
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]
    assert bench.calls == []


def test_an_arm_lets_one_command_of_its_name_through(make_bench, disk):
    bench = make_bench(disk)
    assert bench.ask("COMMANDS.ARM", HAZARDOUS) == ACCEPTED_COMPLETED
    assert bench.commands.channels()["armed"] == HAZARDOUS
    assert bench.events == [("COMMANDS.ARMED", HAZARDOUS, 60)]
    assert bench.ask(HAZARDOUS) == ACCEPTED_COMPLETED
    assert bench.commands.channels()["armed"] == ""
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)], "one arm, one command"
    assert len(bench.calls) == 1


def test_an_arm_is_for_the_command_that_it_names_only(make_bench, disk):
    bench = make_bench(disk)
    other = next(spec for spec in DICTIONARY.commands.values() if spec.hazardous and spec.key != HAZARDOUS)
    bench.ask("COMMANDS.ARM", other.key)
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]
    assert bench.commands.channels()["armed"] == other.key, "what another command did does not close it"


@pytest.mark.parametrize(("after_ns", "is_armed"), [(60 * S - 1, True), (60 * S, False), (10**6 * S, False)])
def test_the_window_closes_by_itself_on_monotonic_time(make_bench, disk, after_ns, is_armed):
    bench = make_bench(disk)
    bench.ask("COMMANDS.ARM", HAZARDOUS)
    bench.clock.now_ns += after_ns
    assert bench.commands.channels()["armed"] == (HAZARDOUS if is_armed else "")
    expected = ACCEPTED_COMPLETED if is_armed else [(Stage.FAILED, CommandCode.NOT_ARMED)]
    assert bench.ask(HAZARDOUS) == expected


def test_an_arm_is_lost_at_a_reset_and_by_disarm(make_bench, disk):
    bench = make_bench(disk)
    bench.ask("COMMANDS.ARM", HAZARDOUS, command_id=1)
    assert make_bench(disk).ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]
    bench.ask("COMMANDS.DISARM", command_id=2)
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]


@pytest.mark.parametrize("opcode", ["NODE.NOOP", "NODE.RESET", "NODE.EXPLODE", ""])
def test_only_a_hazardous_command_can_be_armed(make_bench, disk, opcode):
    bench = make_bench(disk)
    assert bench.ask("COMMANDS.ARM", opcode)[-1] == (Stage.FAILED, CommandCode.VALIDATION_ERROR)


def test_a_wrong_hazardous_command_does_not_use_up_the_arm(make_bench, disk):
    bench = make_bench(disk)
    bench.ask("COMMANDS.ARM", HAZARDOUS)
    assert bench.ask(HAZARDOUS, "too much") == [(Stage.FAILED, CommandCode.VALIDATION_ERROR)]
    assert bench.ask(HAZARDOUS) == ACCEPTED_COMPLETED
