"""Commands on board, from the ground and from the node itself: executed once, refused with a code, always answered."""

import pytest

from flightsw.component import OK, Outcome
from flightsw.core.commanding import REMEMBERED_MAX
from flightsw.dictionary import flight_dictionary
from flightsw.wire import cbor
from flightsw.wire.messages import Command, CommandCode, Stage, encode_message
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

DICTIONARY = flight_dictionary()
ACCEPTED_COMPLETED = [(Stage.ACCEPTED, CommandCode.OK), (Stage.COMPLETED, CommandCode.OK)]
HAZARDOUS = "NODE.POWER_CYCLE"
LONG = DICTIONARY.commands["OBJECTS.FETCH"]


def test_a_good_command_is_accepted_and_completed(make_bench, noop, disk):
    bench = make_bench(disk)
    assert [(a.stage, a.code) for a in bench.receive(noop(), age_ms=10)] == ACCEPTED_COMPLETED
    assert bench.commands.executed_count == 1


def test_a_repeated_command_is_answered_but_not_executed_again(make_bench, noop, disk):
    bench = make_bench(disk)
    first = bench.receive(noop(), age_ms=10)
    assert bench.receive(noop(), age_ms=20) == first[-1:]
    assert bench.done == [1]


def test_a_command_is_not_executed_again_after_a_power_cut(make_bench, noop, disk):
    make_bench(disk).receive(noop(), age_ms=10)
    disk.power_cut()
    after = make_bench(disk)
    (answer,) = after.receive(noop(), age_ms=20)
    assert answer.stage is Stage.COMPLETED
    assert after.done == []


def test_an_expired_command_is_refused(make_bench, noop, disk):
    bench = make_bench(disk)
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
def test_a_command_against_the_dictionary_is_refused_with_its_code(make_bench, disk, opcode, arguments, code, detail):
    bench = make_bench(disk)
    (answer,) = bench.receive(Command(1, opcode, 1000, arguments))
    assert (answer.stage, answer.code, answer.detail) == (Stage.FAILED, code, detail)
    assert bench.done == []


def test_a_failed_execution_says_so_again_when_repeated_after_a_reset(make_bench, disk):
    command = Command(5, "JOBS.CANCEL", 1000, (1, 1))
    answers = make_bench(disk).receive(command)
    assert (answers[-1].stage, answers[-1].code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    (again,) = make_bench(disk).receive(command)
    assert (again.stage, again.code, again.detail) == (Stage.FAILED, CommandCode.EXECUTION_ERROR, "no such job")


def test_the_memory_of_executed_commands_stays_bounded_on_disk(make_bench, noop, disk):
    bench = make_bench(disk)
    for command_id in range(2 * REMEMBERED_MAX + 10):
        bench.commands.receive(noop(command_id), age_ms=0)
    bytes_each = len(disk.read("commands.a")) / (REMEMBERED_MAX + 10)
    assert bytes_each < 64, "the log was never compacted"
    after = make_bench(disk)
    after.receive(noop(2 * REMEMBERED_MAX))
    assert after.done == []


def test_a_command_that_cannot_be_remembered_is_not_executed(make_bench, noop):
    full = SimulatedDisk(8, Streams(1).random("disk"))
    bench = make_bench(full)
    (answer,) = bench.receive(noop())
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.EXECUTION_ERROR)
    assert bench.done == []


def test_each_component_counts_for_itself_and_resets_for_itself(make_bench, disk):
    bench = make_bench(disk)
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


def test_handlers_get_the_named_tuple_of_the_dictionary(make_bench, disk):
    bench = make_bench(disk)
    bench.ask("JOBS.CANCEL", 7, 2)
    ((_, arguments, _),) = bench.calls
    assert (arguments.job, arguments.attempt) == (7, 2)


# -- what does not decode, and other dictionaries


def test_a_command_that_does_not_decode_is_answered_by_its_number(make_bench, disk):
    bench = make_bench(disk)
    payload = cbor.dumps([3, 77, "NODE.RESET", "soon", []])
    assert bench.commands.receive_malformed(payload, "message: lifetime_ms is text")
    (answer,) = bench.answers
    assert (answer.command_id, answer.stage, answer.code) == (77, Stage.FAILED, CommandCode.FORMAT_ERROR)
    assert answer.detail == "message: lifetime_ms is text"
    assert bench.commands.counts["NODE"].rejected == 1


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", cbor.dumps({}), cbor.dumps([3]), cbor.dumps([4, 1]), cbor.dumps([3, -1])]
)
def test_what_has_no_number_has_no_answer(make_bench, disk, payload):
    bench = make_bench(disk)
    assert not bench.commands.receive_malformed(payload, "no")
    assert bench.answers == []


def test_a_malformed_repeat_does_not_undo_an_answer(make_bench, noop, disk):
    bench = make_bench(disk)
    bench.receive(noop(5))
    bench.answers.clear()
    assert bench.commands.receive_malformed(cbor.dumps([3, 5, "NODE.NOOP", "x"]), "no")
    assert bench.answers == []
    assert [a.stage for a in bench.receive(noop(5))] == [Stage.COMPLETED]


def test_a_sender_with_another_dictionary_is_refused_and_told_both_digests(make_bench, disk):
    bench = make_bench(disk)
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
def test_the_same_dictionary_or_none_said_or_a_test_of_the_link_is_taken(make_bench, disk, command):
    assert [(a.stage, a.code) for a in make_bench(disk).receive(command)] == ACCEPTED_COMPLETED


def test_a_command_carries_the_dictionary_in_a_last_field_that_older_peers_do_not_have():
    with_digest = encode_message(Command(1, "NODE.NOOP", 1000, (), b"12345678"))
    assert cbor.loads(with_digest) == [3, 1, "NODE.NOOP", 1000, [], b"12345678"]


# -- from on board


def test_an_on_board_origin_has_no_chain_needs_no_arm_and_counts(make_bench, disk):
    bench = make_bench(disk)
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
def test_an_on_board_command_is_checked_like_any_other(make_bench, disk, opcode, arguments, code):
    bench = make_bench(disk)
    assert bench.commands.execute_onboard(opcode, arguments, "rule hot").code is code
    assert [(one.origin, one.outcome.code) for one in bench.judged] == [("rule hot", code)]
    assert bench.commands.rejected_count == 1


def test_a_long_on_board_command_goes_on_and_is_judged_at_its_end(make_bench, sample, disk):
    bench = make_bench(disk)
    assert bench.commands.execute_onboard(LONG.key, tuple(sample(LONG)), "rule hot") == (CommandCode.OK, "started")
    assert bench.judged == []
    bench.calls[0][2].progress(1)
    bench.calls[0][2].finish(Outcome(CommandCode.EXECUTION_ERROR, "no"))
    assert [(one.origin, one.outcome.detail) for one in bench.judged] == [("rule hot", "no")]
    assert bench.answers == []


def test_every_command_of_the_ground_that_ends_or_is_refused_is_told_once(make_bench, noop, disk):
    bench = make_bench(disk)
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
