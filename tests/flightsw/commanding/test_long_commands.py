"""Commands that take time: their stages, how they end over resets and power cuts, and how many go on at once."""

import random  # noqa: TID251 - the seed is in the test
from contextlib import suppress

import pytest

from flightsw.component import OK, Outcome
from flightsw.core.commanding import RUNNING_MAX
from flightsw.dictionary import flight_dictionary
from flightsw.errors import StorageError
from flightsw.wire.messages import Command, CommandCode, Stage
from hil.sim.disk import SimulatedDisk

DICTIONARY = flight_dictionary()
LONG = DICTIONARY.commands["OBJECTS.FETCH"]


def test_a_command_that_takes_time_goes_through_all_stages(make_bench, sample, disk):
    bench = make_bench(disk)
    assert bench.ask(LONG.key, *sample(LONG)) == [(Stage.ACCEPTED, CommandCode.OK), (Stage.STARTED, CommandCode.OK)]
    assert bench.commands.channels()["running"] == 1
    ((_, _, execution),) = bench.calls
    bench.answers.clear()
    execution.progress(1)
    execution.progress(2, "nearly")
    execution.finish(Outcome(CommandCode.OK, "done"))
    assert [(a.stage, a.code, a.detail) for a in bench.answers] == [
        (Stage.PROGRESS, CommandCode.OK, "step 1"),
        (Stage.PROGRESS, CommandCode.OK, "step 2: nearly"),
        (Stage.COMPLETED, CommandCode.OK, "done"),
    ]
    assert bench.commands.channels()["running"] == 0
    assert bench.commands.counts[LONG.component].executed == 1
    assert [one.outcome.detail for one in bench.judged] == ["done"], "it is judged when it ends"


def test_a_repeat_while_it_runs_tells_how_far_it_is(make_bench, sample, disk):
    bench = make_bench(disk)
    command = Command(9, LONG.key, 1000, tuple(sample(LONG)))
    bench.receive(command)
    assert [a.stage for a in bench.receive(command)] == [Stage.STARTED]
    bench.calls[0][2].progress(3)
    assert [(a.stage, a.detail) for a in bench.receive(command)] == [(Stage.PROGRESS, "step 3")]
    bench.calls[0][2].finish(Outcome(CommandCode.BUSY, "no"))
    assert [(a.stage, a.code) for a in bench.receive(command)] == [(Stage.FAILED, CommandCode.BUSY)]
    assert len(bench.calls) == 1


@pytest.mark.parametrize("progressed", [False, True])
def test_a_command_that_a_reset_interrupts_answers_failed_when_it_is_repeated(make_bench, sample, disk, progressed):
    bench = make_bench(disk)
    command = Command(9, LONG.key, 1000, tuple(sample(LONG)))
    bench.receive(command)
    if progressed:
        bench.calls[0][2].progress(1)
    disk.power_cut()
    after = make_bench(disk)
    (answer,) = after.receive(command)
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    assert answer.detail == "started, and a reset came before its end"
    assert after.calls == []


@pytest.mark.parametrize(
    ("outcome", "stage"),
    [(Outcome(CommandCode.OK, "done"), Stage.COMPLETED), (Outcome(CommandCode.BUSY, "no"), Stage.FAILED)],
)
def test_how_a_long_command_ended_is_known_after_a_power_cut(make_bench, sample, disk, outcome, stage):
    bench = make_bench(disk)
    command = Command(9, LONG.key, 1000, tuple(sample(LONG)))
    bench.receive(command)
    bench.calls[0][2].finish(outcome)
    disk.power_cut()
    (answer,) = make_bench(disk).receive(command)
    assert (answer.stage, answer.code, answer.detail) == (stage, outcome.code, outcome.detail)


def test_no_more_than_so_many_commands_are_under_way(make_bench, sample, disk):
    bench = make_bench(disk)
    for number in range(RUNNING_MAX):
        bench.receive(Command(number, LONG.key, 1000, tuple(sample(LONG))))
    assert bench.ask(LONG.key, *sample(LONG)) == [(Stage.FAILED, CommandCode.BUSY)]
    bench.calls[0][2].finish(OK)
    assert bench.ask(LONG.key, *sample(LONG))[-1] == (Stage.STARTED, CommandCode.OK)


def test_an_execution_ends_once(make_bench, sample, disk):
    bench = make_bench(disk)
    bench.ask(LONG.key, *sample(LONG))
    execution = bench.calls[0][2]
    execution.finish(OK)
    with pytest.raises(AssertionError, match="has ended"):
        execution.finish(OK)
    with pytest.raises(AssertionError, match="has ended"):
        execution.progress(1)


def test_rot_in_one_copy_of_the_log_costs_nothing_and_in_both_is_reported(make_bench, noop, disk):
    bench = make_bench(disk)
    for number in range(1, 6):
        bench.receive(noop(number))
    for name in ("commands.a", "commands.b"):
        content = bytearray(disk.read(name))
        content[len(content) // 2] ^= 1
        disk.write(name, bytes(content))
        after = make_bench(disk)
        after.commands.boot()
        assert [after.receive(noop(number))[0].stage for number in range(1, 6)] == [Stage.COMPLETED] * 5
        assert (after.done, after.events) == ([], [])
    for name in ("commands.a", "commands.b"):
        content = bytearray(disk.read(name))
        content[len(content) // 2] ^= 1
        disk.write(name, bytes(content))
    after = make_bench(disk)
    after.commands.boot()
    ((key, lost_count),) = after.events
    assert (key, lost_count >= 1) == ("COMMANDS.LOG_LOST", True)


@pytest.mark.parametrize("seed", range(20))
def test_no_power_cut_makes_a_command_run_twice_or_lose_an_acknowledged_end(make_bench, make_clock, sample, seed):
    """Random commands, cuts and repeats: one execution each, and an end that was answered stays."""
    chance = random.Random(seed)
    disk = SimulatedDisk(1 << 20, random.Random(seed + 1000))
    clock = make_clock()
    executed, ended = {}, {}
    bench = make_bench(disk, clock)
    for _ in range(120):
        number = chance.randrange(30)
        spec = LONG if number % 2 else DICTIONARY.commands["NODE.RESET"]
        before = len(bench.calls)
        with suppress(StorageError):  # the power goes during a write
            for answer in bench.receive(Command(number, spec.key, 1000, tuple(sample(spec)))):
                if number in ended and answer.stage is not Stage.ACCEPTED:
                    assert (answer.stage, answer.code) == ended[number]
                if answer.stage in (Stage.COMPLETED, Stage.FAILED):
                    ended[number] = (answer.stage, answer.code)
        if len(bench.calls) > before:
            executed[number] = executed.get(number, 0) + 1
        if number % 2 and len(bench.calls) > before and chance.random() < 0.5:
            bench.answers.clear()
            bench.calls[-1][2].finish(OK)
            ended[number] = (bench.answers[-1].stage, bench.answers[-1].code)
        if chance.random() < 0.2:
            disk.power_cut()
            bench = make_bench(disk, clock)
    assert set(executed.values()) == {1}
