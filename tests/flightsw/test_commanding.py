"""Commands on board: executed once, verified stage by stage, hazardous ones only when armed."""

import random  # noqa: TID251 - the seed is in the test
from contextlib import suppress

import pytest

from flightsw.component import OK, Outcome
from flightsw.core.commanding import REMEMBERED_MAX, RUNNING_MAX, CommandHooks, Commands
from flightsw.dictionary import flight_dictionary
from flightsw.errors import StorageError
from flightsw.wire import cbor
from flightsw.wire.messages import Command, CommandCode, Stage, encode_message
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

NODE = 11
S = 1_000_000_000
DICTIONARY = flight_dictionary()
ACCEPTED_COMPLETED = [(Stage.ACCEPTED, CommandCode.OK), (Stage.COMPLETED, CommandCode.OK)]
HAZARDOUS = "NODE.POWER_CYCLE"
LONG = DICTIONARY.commands["OBJECTS.FETCH"]


@pytest.fixture
def disk():
    return SimulatedDisk(1 << 24, Streams(1).random("disk"))


class StoppedClock:
    def __init__(self):
        self.now_ns = 5 * S

    def monotonic_ns(self):
        return self.now_ns

    def utc_ns(self):
        return 1_700_000_000 * S + self.now_ns


class Part:
    """A component whose commands all succeed, but for JOBS.CANCEL; those that take time go on until the test ends
    them."""

    def __init__(self, name, calls):
        self.name = name
        self._calls = calls

    def handlers(self):
        own = (spec for spec in DICTIONARY.components[self.name].commands.values() if spec.code > 1)
        return {spec.name: self._handler(spec) for spec in own}

    def channels(self):
        return {}

    def _handler(self, spec):
        def run(arguments, execution=None):
            self._calls.append((spec.key, arguments, execution))
            if spec.key == "JOBS.CANCEL":
                return Outcome(CommandCode.EXECUTION_ERROR, "no such job")
            return None if spec.takes_time else OK

        return run


class Bench:
    def __init__(self, disk, clock=None):
        self.clock = clock or StoppedClock()
        self.done, self.calls, self.judged, self.events, self.answers = [], [], [], [], []
        parts = [Part(name, self.calls) for name in DICTIONARY.components if name != "COMMANDS"]
        hooks = CommandHooks(
            answer=self.answers.append,
            on_execute=lambda command, age_ms: self.done.append(command.command_id),
            on_judged=self.judged.append,
            report=lambda *event: self.events.append(event),
        )
        self.commands = Commands(NODE, disk, self.clock, parts, hooks)

    def receive(self, command, age_ms=0):
        """The answers to one command."""
        self.answers.clear()
        self.commands.receive(command, age_ms)
        return list(self.answers)

    def ask(self, opcode, *arguments, command_id=None):
        """Send a command with a number of its own; returns (stage, code) of each answer."""
        command_id = 1000 + len(self.judged) if command_id is None else command_id
        return [(a.stage, a.code) for a in self.receive(Command(command_id, opcode, 1000, arguments))]


def noop(command_id=1, lifetime_ms=1000):
    return Command(command_id, "NODE.NOOP", lifetime_ms)


def sample(spec):
    """Arguments that a command takes."""
    values = {"bool": True, "f64": 1.0, "text": "x", "bytes": b"x", "list": []}
    return [
        one.values[0] if one.type == "enum" else values.get(one.type, one.min if one.min is not None else 1)
        for one in spec.arguments
    ]


def test_a_good_command_is_accepted_and_completed(disk):
    bench = Bench(disk)
    assert [(a.stage, a.code) for a in bench.receive(noop(), age_ms=10)] == ACCEPTED_COMPLETED
    assert bench.commands.executed_count == 1


def test_a_repeated_command_is_answered_but_not_executed_again(disk):
    bench = Bench(disk)
    first = bench.receive(noop(), age_ms=10)
    assert bench.receive(noop(), age_ms=20) == first[-1:]
    assert bench.done == [1]


def test_a_command_is_not_executed_again_after_a_power_cut(disk):
    Bench(disk).receive(noop(), age_ms=10)
    disk.power_cut()
    after = Bench(disk)
    (answer,) = after.receive(noop(), age_ms=20)
    assert answer.stage is Stage.COMPLETED
    assert after.done == []


def test_an_expired_command_is_refused(disk):
    bench = Bench(disk)
    (answer,) = bench.receive(noop(lifetime_ms=1000), age_ms=1000)
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.EXPIRED)
    assert bench.done == []
    assert bench.commands.rejected_count == 1


@pytest.mark.parametrize(
    ("opcode", "arguments", "code", "detail"),
    [
        ("NODE.EXPLODE", (), CommandCode.INVALID_OPCODE, "NODE.EXPLODE: not in the dictionary"),
        ("NODE.NOOP", (1,), CommandCode.VALIDATION_ERROR, "NODE.NOOP: 1 arguments, expected none"),
        ("JOBS.CANCEL", ("one", 2), CommandCode.VALIDATION_ERROR, "JOBS.CANCEL: job is str, expected u64"),
        ("JOBS.CANCEL", (True, 2), CommandCode.VALIDATION_ERROR, "JOBS.CANCEL: job is bool, expected u64"),
        ("KEYS.ACTIVATE", (0,), CommandCode.VALIDATION_ERROR, "KEYS.ACTIVATE: key_id is 0, expected 1 to 4294967295"),
    ],
)
def test_a_command_against_the_dictionary_is_refused_with_its_code(disk, opcode, arguments, code, detail):
    bench = Bench(disk)
    (answer,) = bench.receive(Command(1, opcode, 1000, arguments))
    assert (answer.stage, answer.code, answer.detail) == (Stage.FAILED, code, detail)
    assert bench.done == []


def test_a_failed_execution_says_so_again_when_repeated_after_a_reset(disk):
    command = Command(5, "JOBS.CANCEL", 1000, (1, 1))
    answers = Bench(disk).receive(command)
    assert (answers[-1].stage, answers[-1].code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    (again,) = Bench(disk).receive(command)
    assert (again.stage, again.code, again.detail) == (Stage.FAILED, CommandCode.EXECUTION_ERROR, "no such job")


def test_the_memory_of_executed_commands_stays_bounded_on_disk(disk):
    bench = Bench(disk)
    for command_id in range(2 * REMEMBERED_MAX + 10):
        bench.commands.receive(noop(command_id), age_ms=0)
    bytes_each = len(disk.read("commands.a")) / (REMEMBERED_MAX + 10)
    assert bytes_each < 64, "the log was never compacted"
    after = Bench(disk)
    after.receive(noop(2 * REMEMBERED_MAX))
    assert after.done == []


def test_a_command_that_cannot_be_remembered_is_not_executed():
    full = SimulatedDisk(8, Streams(1).random("disk"))
    bench = Bench(full)
    (answer,) = bench.receive(noop())
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    assert bench.done == []


def test_each_component_counts_for_itself_and_resets_for_itself(disk):
    bench = Bench(disk)
    for name in DICTIONARY.components:
        assert bench.ask(f"{name}.NOOP") == ACCEPTED_COMPLETED
        bench.ask(f"{name}.NOOP", "too much")
    assert {name: (one.executed, one.rejected) for name, one in bench.commands.counts.items()} == dict.fromkeys(
        DICTIONARY.components, (1, 1)
    )
    assert bench.ask("JOBS.RESET_COUNTERS") == ACCEPTED_COMPLETED
    counts = bench.commands.counts
    assert (counts["JOBS"].executed, counts["JOBS"].rejected) == (1, 0), "the command itself counts"
    assert (counts["NODE"].executed, counts["NODE"].rejected) == (1, 1)


def test_handlers_get_the_named_tuple_of_the_dictionary(disk):
    bench = Bench(disk)
    bench.ask("JOBS.CANCEL", 7, 2)
    ((_, arguments, _),) = bench.calls
    assert (arguments.job, arguments.attempt) == (7, 2)


# -- hazardous commands


def test_a_hazardous_command_without_an_arm_is_refused(disk):
    bench = Bench(disk)
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]
    assert bench.calls == []


def test_an_arm_lets_one_command_of_its_name_through(disk):
    bench = Bench(disk)
    assert bench.ask("COMMANDS.ARM", HAZARDOUS) == ACCEPTED_COMPLETED
    assert bench.commands.channels()["armed"] == HAZARDOUS
    assert bench.events == [("COMMANDS.ARMED", HAZARDOUS, 60)]
    assert bench.ask(HAZARDOUS) == ACCEPTED_COMPLETED
    assert bench.commands.channels()["armed"] == ""
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)], "one arm, one command"
    assert len(bench.calls) == 1


def test_an_arm_is_for_the_command_that_it_names_only(disk):
    bench = Bench(disk)
    other = next(spec for spec in DICTIONARY.commands.values() if spec.hazardous and spec.key != HAZARDOUS)
    bench.ask("COMMANDS.ARM", other.key)
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]
    assert bench.commands.channels()["armed"] == other.key, "what another command did does not close it"


@pytest.mark.parametrize(("after_ns", "is_armed"), [(60 * S - 1, True), (60 * S, False), (10**6 * S, False)])
def test_the_window_closes_by_itself_on_monotonic_time(disk, after_ns, is_armed):
    bench = Bench(disk)
    bench.ask("COMMANDS.ARM", HAZARDOUS)
    bench.clock.now_ns += after_ns
    assert bench.commands.channels()["armed"] == (HAZARDOUS if is_armed else "")
    expected = ACCEPTED_COMPLETED if is_armed else [(Stage.FAILED, CommandCode.NOT_ARMED)]
    assert bench.ask(HAZARDOUS) == expected


def test_an_arm_is_lost_at_a_reset_and_by_disarm(disk):
    bench = Bench(disk)
    bench.ask("COMMANDS.ARM", HAZARDOUS, command_id=1)
    assert Bench(disk).ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]
    bench.ask("COMMANDS.DISARM", command_id=2)
    assert bench.ask(HAZARDOUS) == [(Stage.FAILED, CommandCode.NOT_ARMED)]


@pytest.mark.parametrize("opcode", ["NODE.NOOP", "NODE.RESET", "NODE.EXPLODE", ""])
def test_only_a_hazardous_command_can_be_armed(disk, opcode):
    bench = Bench(disk)
    assert bench.ask("COMMANDS.ARM", opcode)[-1] == (Stage.FAILED, CommandCode.VALIDATION_ERROR)


def test_a_wrong_hazardous_command_does_not_use_up_the_arm(disk):
    bench = Bench(disk)
    bench.ask("COMMANDS.ARM", HAZARDOUS)
    assert bench.ask(HAZARDOUS, "too much") == [(Stage.FAILED, CommandCode.VALIDATION_ERROR)]
    assert bench.ask(HAZARDOUS) == ACCEPTED_COMPLETED


# -- commands that take time


def test_a_command_that_takes_time_goes_through_all_stages(disk):
    bench = Bench(disk)
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


def test_a_repeat_while_it_runs_tells_how_far_it_is(disk):
    bench = Bench(disk)
    command = Command(9, LONG.key, 1000, tuple(sample(LONG)))
    bench.receive(command)
    assert [a.stage for a in bench.receive(command)] == [Stage.STARTED]
    bench.calls[0][2].progress(3)
    assert [(a.stage, a.detail) for a in bench.receive(command)] == [(Stage.PROGRESS, "step 3")]
    bench.calls[0][2].finish(Outcome(CommandCode.BUSY, "no"))
    assert [(a.stage, a.code) for a in bench.receive(command)] == [(Stage.FAILED, CommandCode.BUSY)]
    assert len(bench.calls) == 1


@pytest.mark.parametrize("progressed", [False, True])
def test_a_command_that_a_reset_interrupts_answers_failed_when_it_is_repeated(disk, progressed):
    bench = Bench(disk)
    command = Command(9, LONG.key, 1000, tuple(sample(LONG)))
    bench.receive(command)
    if progressed:
        bench.calls[0][2].progress(1)
    disk.power_cut()
    after = Bench(disk)
    (answer,) = after.receive(command)
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    assert answer.detail == "started, and a reset came before its end"
    assert after.calls == []


@pytest.mark.parametrize(
    ("outcome", "stage"),
    [(Outcome(CommandCode.OK, "done"), Stage.COMPLETED), (Outcome(CommandCode.BUSY, "no"), Stage.FAILED)],
)
def test_how_a_long_command_ended_is_known_after_a_power_cut(disk, outcome, stage):
    bench = Bench(disk)
    command = Command(9, LONG.key, 1000, tuple(sample(LONG)))
    bench.receive(command)
    bench.calls[0][2].finish(outcome)
    disk.power_cut()
    (answer,) = Bench(disk).receive(command)
    assert (answer.stage, answer.code, answer.detail) == (stage, outcome.code, outcome.detail)


def test_no_more_than_so_many_commands_are_under_way(disk):
    bench = Bench(disk)
    for number in range(RUNNING_MAX):
        bench.receive(Command(number, LONG.key, 1000, tuple(sample(LONG))))
    assert bench.ask(LONG.key, *sample(LONG)) == [(Stage.FAILED, CommandCode.BUSY)]
    bench.calls[0][2].finish(OK)
    assert bench.ask(LONG.key, *sample(LONG))[-1] == (Stage.STARTED, CommandCode.OK)


def test_an_execution_ends_once(disk):
    bench = Bench(disk)
    bench.ask(LONG.key, *sample(LONG))
    execution = bench.calls[0][2]
    execution.finish(OK)
    with pytest.raises(AssertionError, match="has ended"):
        execution.finish(OK)
    with pytest.raises(AssertionError, match="has ended"):
        execution.progress(1)


def test_rot_in_one_copy_of_the_log_costs_nothing_and_in_both_is_reported(disk):
    bench = Bench(disk)
    for number in range(1, 6):
        bench.receive(noop(number))
    for name in ("commands.a", "commands.b"):
        content = bytearray(disk.read(name))
        content[len(content) // 2] ^= 1
        disk.write(name, bytes(content))
        after = Bench(disk)
        after.commands.boot()
        assert [after.receive(noop(number))[0].stage for number in range(1, 6)] == [Stage.COMPLETED] * 5
        assert (after.done, after.events) == ([], [])
    for name in ("commands.a", "commands.b"):
        content = bytearray(disk.read(name))
        content[len(content) // 2] ^= 1
        disk.write(name, bytes(content))
    after = Bench(disk)
    after.commands.boot()
    ((key, lost_count),) = after.events
    assert (key, lost_count >= 1) == ("COMMANDS.LOG_LOST", True)


@pytest.mark.parametrize("seed", range(20))
def test_no_power_cut_makes_a_command_run_twice_or_lose_an_acknowledged_end(seed):
    """Random commands, cuts and repeats: one execution each, and an end that was answered stays."""
    chance = random.Random(seed)
    disk = SimulatedDisk(1 << 20, random.Random(seed + 1000))
    clock = StoppedClock()
    executed, ended = {}, {}
    bench = Bench(disk, clock)
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
            bench = Bench(disk, clock)
    assert set(executed.values()) == {1}


# -- what does not decode, and other dictionaries


def test_a_command_that_does_not_decode_is_answered_by_its_number(disk):
    bench = Bench(disk)
    payload = cbor.dumps([3, 77, "NODE.RESET", "soon", []])
    assert bench.commands.receive_malformed(payload, "message: lifetime_ms is text")
    (answer,) = bench.answers
    assert (answer.command_id, answer.stage, answer.code) == (77, Stage.FAILED, CommandCode.FORMAT_ERROR)
    assert answer.detail == "message: lifetime_ms is text"
    assert bench.commands.counts["NODE"].rejected == 1


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", cbor.dumps({}), cbor.dumps([3]), cbor.dumps([4, 1]), cbor.dumps([3, -1])]
)
def test_what_has_no_number_has_no_answer(disk, payload):
    bench = Bench(disk)
    assert not bench.commands.receive_malformed(payload, "no")
    assert bench.answers == []


def test_a_malformed_repeat_does_not_undo_an_answer(disk):
    bench = Bench(disk)
    bench.receive(noop(5))
    bench.answers.clear()
    assert bench.commands.receive_malformed(cbor.dumps([3, 5, "NODE.NOOP", "x"]), "no")
    assert bench.answers == []
    assert [a.stage for a in bench.receive(noop(5))] == [Stage.COMPLETED]


def test_a_sender_with_another_dictionary_is_refused_and_told_both_digests(disk):
    bench = Bench(disk)
    (answer,) = bench.receive(Command(1, "NODE.RESET", 1000, (), b"\x01" * 8))
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.FORMAT_ERROR)
    assert answer.detail == f"dictionary {'01' * 8} of the sender, {DICTIONARY.digest.hex()} here"
    assert bench.calls == []


@pytest.mark.parametrize(
    "command",
    [
        Command(1, "NODE.RESET", 1000, (), DICTIONARY.digest),
        Command(1, "NODE.RESET", 1000),
        Command(1, "COMMANDS.NOOP", 1000, (), b"\x01" * 8),
        Command(1, "NODE.NOOP", 1000, (), b"\x01" * 8),
    ],
)
def test_the_same_dictionary_or_none_said_or_a_test_of_the_link_is_taken(disk, command):
    assert [(a.stage, a.code) for a in Bench(disk).receive(command)] == ACCEPTED_COMPLETED


def test_a_command_carries_the_dictionary_in_a_last_field_that_older_peers_do_not_have():
    with_digest = encode_message(Command(1, "NODE.NOOP", 1000, (), b"12345678"))
    assert cbor.loads(with_digest) == [3, 1, "NODE.NOOP", 1000, [], b"12345678"]


# -- from on board


def test_an_on_board_origin_has_no_chain_needs_no_arm_and_counts(disk):
    bench = Bench(disk)
    assert bench.commands.execute_onboard(HAZARDOUS, (), "sequence eclipse") == OK
    assert bench.answers == []
    assert [call[0] for call in bench.calls] == [HAZARDOUS]
    (judged,) = bench.judged
    assert (judged.origin, judged.opcode, judged.outcome, judged.command_id) == (
        "sequence eclipse",
        HAZARDOUS,
        OK,
        None,
    )
    assert bench.commands.counts["NODE"].executed == 1


@pytest.mark.parametrize(
    ("opcode", "arguments", "code"),
    [
        ("NODE.EXPLODE", (), CommandCode.INVALID_OPCODE),
        ("JOBS.CANCEL", (1,), CommandCode.VALIDATION_ERROR),
        ("JOBS.CANCEL", (1, 1), CommandCode.EXECUTION_ERROR),
    ],
)
def test_an_on_board_command_is_checked_like_any_other(disk, opcode, arguments, code):
    bench = Bench(disk)
    assert bench.commands.execute_onboard(opcode, arguments, "rule hot").code is code
    assert [(one.origin, one.outcome.code) for one in bench.judged] == [("rule hot", code)]
    assert bench.commands.rejected_count == 1


def test_a_long_on_board_command_goes_on_and_is_judged_at_its_end(disk):
    bench = Bench(disk)
    assert bench.commands.execute_onboard(LONG.key, tuple(sample(LONG)), "rule hot") == (CommandCode.OK, "started")
    assert bench.judged == []
    bench.calls[0][2].progress(1)
    bench.calls[0][2].finish(Outcome(CommandCode.EXECUTION_ERROR, "no"))
    assert [(one.origin, one.outcome.detail) for one in bench.judged] == [("rule hot", "no")]
    assert bench.answers == []


def test_every_command_of_the_ground_that_ends_or_is_refused_is_told_once(disk):
    bench = Bench(disk)
    bench.ask("NODE.RESET")
    bench.ask("NODE.RESET", 1)
    bench.ask("JOBS.CANCEL", 1, 1)
    bench.ask(HAZARDOUS)
    bench.receive(noop(1))
    bench.receive(noop(1))
    assert [(one.origin, one.opcode, one.outcome.code.name) for one in bench.judged] == [
        ("ground", "NODE.RESET", "OK"),
        ("ground", "NODE.RESET", "VALIDATION_ERROR"),
        ("ground", "JOBS.CANCEL", "EXECUTION_ERROR"),
        ("ground", HAZARDOUS, "NOT_ARMED"),
        ("ground", "NODE.NOOP", "OK"),
    ]
