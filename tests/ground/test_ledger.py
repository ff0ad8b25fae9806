import itertools
import shutil
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError, StorageError
from flightsw.wire import cbor
from flightsw.wire.messages import CommandCode, JobReport, JobState, Stage
from ground.ledger import APPLICATION_ID, SCHEMA_VERSION, Claim, JobRequest, Ledger, State

S = 1_000_000_000
MODEL, DATA, RESULT = b"m" * 32, b"d" * 32, b"r" * 32


def request(deadline_s=100):
    return JobRequest("cloud_mask", MODEL, 10, DATA, 20, 4, 2.5, 4, deadline_s, 1, 0.7)


def report(job_id=1, attempt=1, node=2):
    return JobReport(
        node, job_id, attempt, JobState.COMPLETED, "", MODEL, DATA, RESULT, 3, b"", 0, 0.5, 4, 0, 0, 9.0, "1"
    )


@pytest.fixture
def ledger():
    one = Ledger()
    yield one
    one.close()


def place(ledger, job_id=1, node=2, now_ns=0, command_id=0):
    return ledger.place(job_id, node, now_ns, now_ns + 50 * S, command_id)


def attempts(ledger):
    return ledger._db.execute(
        "SELECT attempt, node, ended_ns, detail FROM attempts ORDER BY job_id, attempt"
    ).fetchall()


# -- the file


def test_every_commit_is_flushed_to_the_medium(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert ledger._db.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL: NORMAL loses commits at a power cut"
    ledger.close()


def test_what_was_committed_survives_a_reopen(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger.transaction():
        for _ in range(3):
            ledger.accept(request(), 5 * S)
        place(ledger, 2, node=7, now_ns=6 * S, command_id=9)
        ledger.add_command(9, 7, "JOBS.SUBMIT", b"payload", 100 * S, 6 * S)
    before, commands = ledger.open_jobs(), ledger.open_commands()
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.open_jobs() == before
    assert again.open_commands() == commands
    assert [(row.job_id, row.state, row.attempt, row.node, row.due_ns, row.command_id) for row in before] == [
        (1, State.ACCEPTED, 0, None, 0, 0),
        (2, State.PLACED, 1, 7, 56 * S, 9),
        (3, State.ACCEPTED, 0, None, 0, 0),
    ]
    assert (before[0].request, before[0].submitted_ns, before[0].deadline_ns) == (request(), 5 * S, 105 * S)
    again.close()


def test_a_copy_of_the_files_taken_after_a_commit_holds_all_that_was_acknowledged(tmp_path):
    """What a power cut leaves: the database and its log, without the process that wrote them."""
    ledger = Ledger(tmp_path / "ledger.db")
    for number in range(1, 6):
        with ledger.transaction():
            ledger.accept(request(), number)
            place(ledger, number, node=number, command_id=number)
            ledger.add_command(number, number, "JOBS.SUBMIT", b"", 100 * S, 0)
            if number % 2:
                ledger.complete(report(number, 1, number), 9)
        cut = tmp_path / f"cut-{number}"
        cut.mkdir()
        for file in sorted(tmp_path.glob("ledger.db*")):
            if file.suffix != ".db-shm":
                shutil.copy(file, cut)
        copy = Ledger(cut / "ledger.db")
        assert copy.counts() == ledger.counts()
        assert copy.open_jobs() == ledger.open_jobs()
        assert copy.next_command_id() == number + 1
        copy.close()
    ledger.close()


def test_a_second_ground_on_one_ledger_is_refused(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(StorageError, match=r"^ledger .*ledger\.db: database is locked$"):
        Ledger(tmp_path / "ledger.db")
    ledger.close()
    Ledger(tmp_path / "ledger.db").close()


def test_a_foreign_file_is_refused_with_one_line(tmp_path):
    sqlite3.connect(tmp_path / "other.db").executescript("CREATE TABLE x (y);").connection.close()
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(
        ConfigError, match=rf"^ledger .*other\.db: application_id is 0x0, expected {APPLICATION_ID:#x}$"
    ):
        Ledger(tmp_path / "other.db")
    with pytest.raises(ConfigError, match=r"^ledger .*text\.db: is no database: [^\n]*$"):
        Ledger(tmp_path / "text.db")


def test_another_schema_is_refused_with_one_line(tmp_path):
    Ledger(tmp_path / "ledger.db").close()
    database = sqlite3.connect(tmp_path / "ledger.db")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    message = rf"^ledger .*ledger\.db: schema version is {SCHEMA_VERSION + 1}, expected {SCHEMA_VERSION}$"
    with pytest.raises(ConfigError, match=message):
        Ledger(tmp_path / "ledger.db")


def test_a_transaction_that_fails_leaves_nothing(ledger):
    def promise_and_fail():
        with ledger.transaction():
            ledger.accept(request(), 0)
            place(ledger)
            ledger.add_command(1, 2, "JOBS.NOOP", b"", S, 0)
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        promise_and_fail()
    assert (ledger.counts(), ledger.open_jobs(), ledger.open_commands(), attempts(ledger)) == ({}, [], [], [])
    with ledger.transaction():
        assert ledger.accept(request(), 0) == 1


# -- jobs and attempts


def test_attempt_numbers_only_rise(ledger):
    ledger.accept(request(), 0)
    assert place(ledger) == 1
    ledger.end_attempt(1, 5, "overdue")
    assert place(ledger, node=3) == 2
    assert place(ledger, node=2) == 3, "placed again while placed: the older attempt is fenced out"
    assert [row[0] for row in attempts(ledger)] == [1, 2, 3]


def test_an_attempt_that_is_given_up_leaves_its_job_accepted(ledger):
    ledger.accept(request(), 0)
    place(ledger)
    ledger.end_attempt(1, 5, "overdue")
    (row,) = ledger.open_jobs()
    assert (row.state, row.attempt, row.node, row.due_ns, row.command_id) == (State.ACCEPTED, 1, None, 0, 0)
    assert attempts(ledger) == [(1, 2, 5, "overdue")]


@pytest.mark.parametrize(
    ("job_id", "attempt", "node", "claim"),
    [
        (1, 2, 3, Claim.NEWEST),
        (1, 1, 2, Claim.STALE),
        (1, 2, 2, Claim.UNKNOWN),
        (1, 1, 3, Claim.UNKNOWN),
        (1, 3, 3, Claim.UNKNOWN),
        (1, 0, 3, Claim.UNKNOWN),
        (2, 1, 4, Claim.LATE),
        (3, 1, 5, Claim.LATE),
        (4, 1, 2, Claim.UNKNOWN),
    ],
)
def test_only_the_newest_attempt_of_an_open_job_may_speak_and_only_by_its_own_node(
    ledger, job_id, attempt, node, claim
):
    for _ in range(3):
        ledger.accept(request(), 0)
    place(ledger, 1, node=2)
    place(ledger, 1, node=3)
    place(ledger, 2, node=4)
    ledger.complete(report(2, 1, 4), 7)
    place(ledger, 3, node=5)
    ledger.fail(3, 8, "deadline passed")
    counts = ledger.counts()
    assert ledger.claim(job_id, attempt, node) is claim
    assert ledger.complete(report(job_id, attempt, node), 9) is claim
    assert (ledger.counts() == counts) is (claim is not Claim.NEWEST)


def test_a_given_up_attempt_cannot_complete_its_job_before_the_next_is_placed(ledger):
    ledger.accept(request(), 0)
    place(ledger)
    ledger.end_attempt(1, 5, "overdue")
    assert ledger.complete(report(), 6) is Claim.STALE
    assert ledger.counts() == {"ACCEPTED": 1}


def test_a_completed_job_has_its_report_on_record(ledger):
    ledger.accept(request(), 0)
    place(ledger)
    assert ledger.complete(report(), 9) is Claim.NEWEST
    state, ended_ns, result, packed = ledger._db.execute("SELECT state, ended_ns, result, report FROM jobs").fetchone()
    assert (state, ended_ns, result) == ("COMPLETED", 9, RESULT)
    assert cbor.loads(packed)[1:4] == [2, 1, 1], "node, job, attempt: provenance is kept whole"
    assert attempts(ledger) == [(1, 2, 9, "")]


def test_a_job_fails_once_and_its_open_attempt_with_it(ledger):
    ledger.accept(request(), 0)
    place(ledger)
    assert ledger.fail(1, 9, "deadline passed")
    assert not ledger.fail(1, 10, "again")
    assert attempts(ledger) == [(1, 2, 9, "deadline passed")]
    assert ledger.open_jobs() == []
    assert not ledger.fail(77, 10, "no such job")


def test_a_completed_job_cannot_fail(ledger):
    ledger.accept(request(), 0)
    place(ledger)
    ledger.complete(report(), 9)
    assert not ledger.fail(1, 10, "deadline passed")
    assert ledger.counts() == {"COMPLETED": 1}


def test_a_resubmitted_attempt_is_tied_to_its_newest_command(ledger):
    ledger.accept(request(), 0)
    place(ledger, command_id=4)
    ledger.change_command(1, 1, 5)
    assert ledger.open_jobs()[0].command_id == 5


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.integers(1, 2), st.integers(2, 4)),
        st.tuples(st.just("give up"), st.integers(1, 2), st.just(0)),
        st.tuples(st.just("fail"), st.integers(1, 2), st.just(0)),
        st.tuples(st.just("report"), st.integers(0, 3), st.tuples(st.integers(0, 6), st.integers(1, 4))),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_reports_in_any_order_end_each_job_at_most_once_and_only_by_its_newest_attempt(steps):
    ledger = Ledger()
    newest = {ledger.accept(request(), 0): (0, None) for _ in range(2)}
    ends = dict.fromkeys(newest, 0)
    for now_ns, (action, job_id, detail) in zip(itertools.count(1), steps, strict=False):
        match action:
            case "place" if ends[job_id] == 0:
                newest[job_id] = (place(ledger, job_id, detail, now_ns), detail)
            case "give up":
                ledger.end_attempt(job_id, now_ns, "overdue")
                newest[job_id] = (newest[job_id][0], None)
            case "fail":
                ends[job_id] += ledger.fail(job_id, now_ns, "deadline passed")
            case "report":
                attempt, node = detail
                may = job_id in newest and newest[job_id] == (attempt, node) and ends[job_id] == 0
                claim = ledger.complete(report(job_id, attempt, node), now_ns)
                assert (claim is Claim.NEWEST) is may
                if claim is Claim.NEWEST:
                    ends[job_id] += 1
    assert max(ends.values()) <= 1
    assert len(ledger.open_jobs()) == list(ends.values()).count(0)
    ledger.close()


# -- commands


def test_command_numbers_never_repeat_also_after_a_restart(tmp_path):
    seen = []
    for _ in range(3):
        ledger = Ledger(tmp_path / "ledger.db")
        for _ in range(2):
            seen.append(ledger.next_command_id())
            ledger.add_command(seen[-1], 2, "NODE.NOOP", b"", S, 0)
            ledger.stage_command(seen[-1], Stage.COMPLETED, CommandCode.OK, "", 1)
        ledger.close()
    assert seen == [1, 2, 3, 4, 5, 6]


@given(st.lists(st.sampled_from(list(Stage)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_stages_only_move_forward_and_an_ended_chain_stays_ended(stages):
    ledger = Ledger()
    ledger.add_command(1, 2, "NODE.NOOP", b"", S, 0)
    now = Stage.QUEUED
    for stage in stages:
        is_step = stage > now and now < Stage.COMPLETED
        assert ledger.stage_command(1, stage, CommandCode.OK, "", 1) is is_step
        now = stage if is_step else now
        assert [row.stage for row in ledger.open_commands()] == ([now] if now < Stage.COMPLETED else [])
    ledger.close()


def test_a_stage_of_an_unknown_command_changes_nothing(ledger):
    assert not ledger.stage_command(5, Stage.ACCEPTED, CommandCode.OK, "", 1)
    assert ledger.open_commands() == []
