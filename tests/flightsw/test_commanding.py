import pytest

from flightsw.component import OK, Outcome
from flightsw.core.commanding import REMEMBERED_MAX, Commands
from flightsw.core.dictionary import COMMANDS
from flightsw.wire.messages import Command, CommandCode, Stage
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

NODE = 11


@pytest.fixture
def disk():
    return SimulatedDisk(1 << 24, Streams(1).random("disk"))


class Part:
    """A component whose commands all succeed, but for JOBS.CANCEL."""

    def __init__(self, name):
        self.name = name

    def handlers(self):
        commands = {opcode.partition(".")[2] for opcode in COMMANDS if opcode.partition(".")[0] == self.name}
        handlers = {command: lambda _: OK for command in commands - {"NOOP", "RESET_COUNTERS"}}
        if self.name == "JOBS":
            handlers["CANCEL"] = lambda _: Outcome(CommandCode.EXECUTION_ERROR, "no such job")
        return handlers

    def channels(self):
        return {}


class Bench:
    def __init__(self, disk):
        self.done = []
        parts = [Part(name) for name in dict.fromkeys(opcode.partition(".")[0] for opcode in COMMANDS)]
        self.commands = Commands(NODE, disk, parts, lambda command, age_ms: self.done.append(command.command_id))


def noop(command_id=1, lifetime_ms=1000):
    return Command(command_id, "NODE.NOOP", lifetime_ms)


def test_a_good_command_is_accepted_and_completed(disk):
    bench = Bench(disk)
    answers = bench.commands.receive(noop(), age_ms=10)
    assert [(a.stage, a.code) for a in answers] == [
        (Stage.ACCEPTED, CommandCode.OK),
        (Stage.COMPLETED, CommandCode.OK),
    ]
    assert bench.commands.executed_count == 1


def test_a_repeated_command_is_answered_but_not_executed_again(disk):
    bench = Bench(disk)
    first = bench.commands.receive(noop(), age_ms=10)
    assert bench.commands.receive(noop(), age_ms=20) == first[-1:]
    assert bench.done == [1]


def test_a_command_is_not_executed_again_after_a_power_cut(disk):
    Bench(disk).commands.receive(noop(), age_ms=10)
    disk.power_cut()
    after = Bench(disk)
    (answer,) = after.commands.receive(noop(), age_ms=20)
    assert answer.stage is Stage.COMPLETED
    assert after.done == []


def test_an_expired_command_is_refused(disk):
    bench = Bench(disk)
    (answer,) = bench.commands.receive(noop(lifetime_ms=1000), age_ms=1000)
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.EXPIRED)
    assert bench.done == []
    assert bench.commands.rejected_count == 1


@pytest.mark.parametrize(
    ("opcode", "arguments", "code"),
    [
        ("NODE.EXPLODE", (), CommandCode.INVALID_OPCODE),
        ("NODE.NOOP", (1,), CommandCode.VALIDATION_ERROR),
        ("JOBS.CANCEL", ("one", 2), CommandCode.VALIDATION_ERROR),
        ("JOBS.CANCEL", (True, 2), CommandCode.VALIDATION_ERROR),
    ],
)
def test_a_command_against_the_dictionary_is_refused_with_its_code(disk, opcode, arguments, code):
    bench = Bench(disk)
    (answer,) = bench.commands.receive(Command(1, opcode, 1000, arguments), age_ms=0)
    assert (answer.stage, answer.code) == (Stage.FAILED, code)
    assert bench.done == []


def test_a_failed_execution_says_so_again_when_repeated_after_a_reset(disk):
    command = Command(5, "JOBS.CANCEL", 1000, (1, 1))
    answers = Bench(disk).commands.receive(command, age_ms=0)
    assert (answers[-1].stage, answers[-1].code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    (again,) = Bench(disk).commands.receive(command, age_ms=0)
    assert (again.stage, again.code, again.detail) == (Stage.FAILED, CommandCode.EXECUTION_ERROR, "no such job")


def test_the_memory_of_executed_commands_stays_bounded_on_disk(disk):
    bench = Bench(disk)
    for command_id in range(2 * REMEMBERED_MAX + 10):
        bench.commands.receive(noop(command_id), age_ms=0)
    bytes_each = len(disk.read("commands.log")) / (REMEMBERED_MAX + 10)
    assert bytes_each < 32, "the log was never compacted"
    after = Bench(disk)
    after.commands.receive(noop(2 * REMEMBERED_MAX), age_ms=0)
    assert after.done == []


def test_a_command_that_cannot_be_remembered_is_not_executed():
    full = SimulatedDisk(8, Streams(1).random("disk"))
    bench = Bench(full)
    (answer,) = bench.commands.receive(noop(), age_ms=0)
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    assert bench.done == []


def test_each_component_counts_for_itself_and_resets_for_itself(disk):
    commands = Bench(disk).commands
    commands.receive(Command(1, "NODE.NOOP", 1000), age_ms=0)
    commands.receive(Command(2, "JOBS.NOOP", 1000), age_ms=0)
    commands.receive(Command(3, "JOBS.CANCEL", 1000), age_ms=0)
    assert (commands.counts["JOBS"].executed, commands.counts["JOBS"].rejected) == (1, 1)
    commands.reset_counters("JOBS")
    assert (commands.counts["JOBS"].executed, commands.counts["JOBS"].rejected) == (0, 0)
    assert commands.counts["NODE"].executed == 1
