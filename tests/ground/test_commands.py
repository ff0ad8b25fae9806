import pytest

from flightsw.errors import ConfigError
from flightsw.wire.messages import SERVICE_COMMAND, CommandCode, Stage, Verification, decode_message
from ground.commands import COMMAND_PRIORITY, CommandDesk, checked_arguments
from ground.ledger import Ledger

S = 1_000_000_000
REPEAT_S = 120
DIGEST = b"12345678"


class Console:
    """A desk with what it sends and notes, on a ledger that may outlive it."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.sent, self.notes = [], []
        self.has_way = True
        self.desk = CommandDesk(
            ledger,
            REPEAT_S,
            lambda node, now_ns, within_ns: self.has_way,
            DIGEST,
            self.sent.append,
            lambda kind, fields: self.notes.append((kind, fields)),
            "sat-{}".format,
        )

    def command(self, now_s=0, node=2, lifetime_s=3600, job_id=None):
        return self.desk.command(node, "NODE.NOOP", (), now_s * S, lifetime_s=lifetime_s, job_id=job_id)

    def answer(self, command_id, stage=Stage.COMPLETED, node=2, code=CommandCode.OK):
        return self.desk.on_verification(Verification(node, command_id, stage, code), 8 * S)

    def repeat(self, now_s):
        """Numbers of the commands sent again, and of those that expired."""
        self.sent.clear()
        expired = [sent.command_id for sent in self.desk.repeat(now_s * S)]
        return [decode_message(message.payload).command_id for message in self.sent], expired

    def row(self, command_id):
        query = "SELECT stage, code, detail FROM commands WHERE command_id = ?"
        return self.ledger._db.execute(query, (command_id,)).fetchone()


@pytest.fixture
def console():
    one = Console(Ledger())
    yield one
    one.ledger.close()


def test_a_command_is_on_record_and_sent_with_its_lifetime(console):
    assert console.command(now_s=5) == 1
    (message,) = console.sent
    assert (message.destination, message.service, message.priority) == (2, SERVICE_COMMAND, COMMAND_PRIORITY)
    command = decode_message(message.payload)
    assert (command.command_id, command.opcode, command.lifetime_ms) == (1, "NODE.NOOP", 3_600_000)
    assert message.lifetime_ms == 3_600_000
    (row,) = console.ledger.open_commands()
    assert (row.payload, row.expires_ns, row.stage) == (message.payload, 3605 * S, Stage.RELEASED)
    assert console.notes == [("command.sent", {"node": "sat-2", "command": 1, "opcode": "NODE.NOOP"})]


def test_a_command_is_repeated_under_its_number_until_it_is_answered(console):
    first = console.command()
    payload = console.sent[0].payload
    assert console.repeat(REPEAT_S - 1) == ([], [])
    assert console.repeat(REPEAT_S) == ([first], [])
    assert console.sent[0].payload == payload
    assert console.repeat(2 * REPEAT_S - 1) == ([], [])
    assert console.repeat(2 * REPEAT_S) == ([first], [])
    assert console.answer(first).command_id == first
    assert console.repeat(3 * REPEAT_S) == ([], [])
    assert console.desk.repeated_count == 2


def test_a_repeated_command_never_outlives_the_first(console):
    console.command(lifetime_s=300)
    console.repeat(200)
    assert console.sent[0].lifetime_ms == 100_000


@pytest.mark.parametrize("stage", [Stage.ACCEPTED, Stage.STARTED, Stage.PROGRESS])
def test_a_stage_that_is_not_the_last_does_not_end_the_repetition(console, stage):
    command_id = console.command()
    assert console.answer(command_id, stage) is None
    assert console.repeat(REPEAT_S) == ([command_id], [])


@pytest.mark.parametrize("stage", [Stage.COMPLETED, Stage.FAILED])
def test_the_last_stage_is_told_once_and_put_on_record(console, stage):
    command_id = console.command()
    assert console.answer(command_id, stage, code=CommandCode.BUSY).command_id == command_id
    assert console.answer(command_id, stage) is None
    assert not console.desk.is_idle, "a stage waits to be recorded"
    console.desk.record()
    assert console.desk.is_idle
    assert console.row(command_id)[:2] == (int(stage), int(CommandCode.BUSY))
    ended = {"node": "sat-2", "command": 1, "stage": stage.name, "code": "BUSY"}
    assert [fields for kind, fields in console.notes if kind == "command.ended"] == [ended]


def test_only_the_node_that_was_commanded_can_answer(console):
    command_id = console.command(node=2)
    assert console.answer(command_id, node=3) is None
    assert console.answer(command_id + 1, node=2) is None
    assert console.repeat(REPEAT_S) == ([command_id], [])


def test_an_unanswered_command_expires_once_and_is_never_sent_again(console):
    command_id = console.command(lifetime_s=300, job_id=7)
    assert console.repeat(299) == ([command_id], [])
    expired = console.desk.repeat(300 * S)
    assert [(sent.command_id, sent.job_id) for sent in expired] == [(command_id, 7)]
    assert console.row(command_id) == (int(Stage.FAILED), int(CommandCode.EXPIRED), "no answer")
    assert console.repeat(10_000) == ([], [])
    assert console.answer(command_id) is None
    assert console.desk.is_idle


def test_a_withdrawn_command_is_never_sent_again(console):
    kept, withdrawn = console.command(), console.command()
    console.desk.withdraw(withdrawn, 5)
    console.desk.withdraw(withdrawn, 6)
    assert console.repeat(REPEAT_S) == ([kept], [])
    assert console.row(withdrawn) == (int(Stage.FAILED), int(CommandCode.EXPIRED), "withdrawn")
    assert console.answer(withdrawn) is None


def test_after_a_restart_what_has_no_answer_is_repeated_and_numbers_go_on(tmp_path):
    console = Console(Ledger(tmp_path / "ledger.db"))
    answered, open_, half = console.command(), console.command(), console.command(job_id=5)
    console.answer(answered)
    console.answer(half, Stage.ACCEPTED)
    console.desk.record()
    payload = console.sent[1].payload
    console.ledger.close()

    again = Console(Ledger(tmp_path / "ledger.db"))
    again.desk.resume({half: 5})
    assert again.repeat(31) == ([open_, half], []), "with the next round, not after another repetition period"
    assert again.sent[0].payload == payload
    assert again.command(now_s=32) == half + 1
    assert again.answer(half).job_id == 5
    again.ledger.close()


def test_a_command_that_expired_while_the_ground_was_down_is_not_sent_again(tmp_path):
    console = Console(Ledger(tmp_path / "ledger.db"))
    command_id = console.command(lifetime_s=300)
    console.ledger.close()
    again = Console(Ledger(tmp_path / "ledger.db"))
    again.desk.resume({})
    assert again.repeat(301) == ([], [command_id])
    again.ledger.close()


def test_an_answer_that_was_not_recorded_before_a_crash_is_asked_for_again(tmp_path):
    console = Console(Ledger(tmp_path / "ledger.db"))
    command_id = console.command()
    console.answer(command_id)
    console.ledger.close()
    again = Console(Ledger(tmp_path / "ledger.db"))
    again.desk.resume({})
    assert again.repeat(1) == ([command_id], [])
    again.ledger.close()


# -- the chain


def stages(console, command_id):
    return [row.stage.name for row in console.desk.chain(command_id)]


def test_a_command_stays_queued_until_there_is_a_way_to_its_node(console):
    console.has_way = False
    command_id = console.command()
    assert console.sent == []
    assert stages(console, command_id) == ["QUEUED"]
    assert console.repeat(5) == ([], [])
    console.has_way = True
    assert console.repeat(10) == ([command_id], [])
    assert stages(console, command_id) == ["QUEUED", "RELEASED"]
    assert console.desk.repeated_count == 0, "nothing was sent before"
    assert console.repeat(10 + REPEAT_S - 1) == ([], [])
    assert console.repeat(10 + REPEAT_S) == ([command_id], [])


def test_a_queued_command_expires_like_any_other(console):
    console.has_way = False
    command_id = console.command(lifetime_s=300)
    assert console.repeat(300) == ([], [command_id])
    assert stages(console, command_id) == ["QUEUED", "FAILED"]


def test_a_command_is_sent_when_it_begins_to_leave_and_only_once(console):
    command_id = console.command()
    assert console.sent[0].command_id == command_id, "its departure is watched"
    console.desk.on_departure(command_id, 3 * S)
    console.desk.on_departure(command_id, 4 * S)
    console.desk.on_departure(99, 4 * S)
    assert [(row.stage, row.at_ns) for row in console.desk.chain(command_id)][-1] == (Stage.SENT, 3 * S)
    assert stages(console, command_id) == ["QUEUED", "RELEASED", "SENT"]
    console.repeat(REPEAT_S)
    assert console.sent[0].command_id is None, "it has left before"


def test_the_whole_chain_can_be_read_before_and_after_it_is_on_record(console):
    command_id = console.command()
    console.desk.on_departure(command_id, S)
    for stage, detail in (
        (Stage.ACCEPTED, ""),
        (Stage.ACCEPTED, ""),
        (Stage.STARTED, ""),
        (Stage.PROGRESS, "step 1"),
        (Stage.PROGRESS, "step 2"),
        (Stage.PROGRESS, "step 2"),
        (Stage.STARTED, ""),
        (Stage.COMPLETED, "done"),
    ):
        console.desk.on_verification(Verification(2, command_id, stage, CommandCode.OK, detail), 2 * S)
    told = ["QUEUED", "RELEASED", "SENT", "ACCEPTED", "STARTED", "PROGRESS", "PROGRESS", "COMPLETED"]
    before = console.desk.chain(command_id)
    assert [row.stage.name for row in before] == told
    console.desk.record()
    assert console.desk.chain(command_id) == before == console.ledger.chain(command_id)
    assert [row.detail for row in before][-3:] == ["step 1", "step 2", "done"]


def test_a_command_says_which_dictionary_the_ground_speaks(console):
    console.command()
    assert decode_message(console.sent[0].payload).dictionary_digest == DIGEST


def test_the_chain_survives_a_restart(tmp_path):
    console = Console(Ledger(tmp_path / "ledger.db"))
    command_id = console.command()
    console.desk.on_departure(command_id, S)
    console.answer(command_id, Stage.ACCEPTED)
    console.desk.record()
    console.ledger.close()
    again = Console(Ledger(tmp_path / "ledger.db"))
    again.desk.resume({})
    assert stages(again, command_id) == ["QUEUED", "RELEASED", "SENT", "ACCEPTED"]
    again.repeat(1)
    assert again.sent[0].command_id is None
    again.ledger.close()


# -- arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((7, 2), {}), ((7,), {"attempt": 2}), ((), {"attempt": 2, "job": 7})],
)
def test_arguments_come_in_order_or_by_name(arguments, named):
    assert checked_arguments("JOBS.CANCEL", arguments, named) == (7, 2)


@pytest.mark.parametrize(
    ("opcode", "arguments", "named", "why"),
    [
        ("JOBS.CANCLE", (), {}, "opcode is 'JOBS.CANCLE', expected one of JOBS.CANCEL"),
        ("JOBS.CANCEL", (7,), {}, "1 arguments, expected 2: job, attempt"),
        ("JOBS.CANCEL", (7, 2, 3), {}, "3 arguments, expected 2: job, attempt"),
        ("JOBS.CANCEL", (7,), {"job": 7}, "job is one argument too many, expected job=u64 attempt=u64"),
        ("JOBS.CANCEL", (), {"attempt": 2}, "job is missing, expected job=u64 attempt=u64"),
        ("JOBS.CANCEL", (), {"attempt": 2, "jib": 1}, "jib is one argument too many"),
        ("JOBS.CANCEL", (), {"attempt": -1, "job": 1}, "attempt is -1, expected u64"),
    ],
)
def test_wrong_arguments_are_named(opcode, arguments, named, why):
    with pytest.raises(ConfigError) as caught:
        checked_arguments(opcode, arguments, named)
    assert why in str(caught.value)
