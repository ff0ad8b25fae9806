import re
import sqlite3
from pathlib import Path

import pytest

import ground.archive
import ground.cluster
import ground.ledger
import ground.membership
import ground.reach
import ground.scheduler
import ground.segment
from flightsw.errors import ConfigError, StorageError
from flightsw.wire.messages import CommandCode, Event, JobReport, JobState, Severity, Stage, Verification
from ground.archive import Archive
from ground.database import open_database
from ground.fleet import ClusterConfig
from ground.ledger import JobRequest, Ledger

SCHEMA = "CREATE TABLE things (name TEXT NOT NULL) STRICT;"


def open_things(path, *, application_id=7, version=1, schema=SCHEMA, synchronous="FULL"):
    return open_database(path, "things", application_id, version, schema, synchronous)


@pytest.mark.parametrize(("synchronous", "number"), [("NORMAL", 1), ("FULL", 2)])
def test_journal_and_synchronous_are_really_set_also_after_a_reopen(tmp_path, synchronous, number):
    for _ in range(2):
        database = open_things(tmp_path / "things.db", synchronous=synchronous)
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert database.execute("PRAGMA synchronous").fetchone()[0] == number
        assert database.execute("PRAGMA locking_mode").fetchone()[0] == "exclusive"
        database.close()


def test_a_new_file_says_what_it_is(tmp_path):
    open_things(tmp_path / "things.db", application_id=0x464C4544, version=3).close()
    database = sqlite3.connect(tmp_path / "things.db")
    assert database.execute("PRAGMA application_id").fetchone()[0] == 0x464C4544
    assert database.execute("PRAGMA user_version").fetchone()[0] == 3
    database.close()


def test_no_statement_opens_a_transaction_by_itself():
    database = open_things(None)
    database.execute("INSERT INTO things VALUES ('a')")
    assert not database.in_transaction
    database.close()


def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE other (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"^things .*other\.db: application_id is 0x0, expected 0x7$"):
        open_things(path)
    assert path.read_bytes() == before


def test_another_version_of_the_schema_is_refused(tmp_path):
    open_things(tmp_path / "things.db").close()
    with pytest.raises(ConfigError, match=r"^things .*things\.db: schema version is 1, expected 2$"):
        open_things(tmp_path / "things.db", version=2)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"These are notes, not a database. " * 40)
    with pytest.raises(ConfigError, match=r"^things .*notes\.txt: is no database: [^\n]+$"):
        open_things(path)
    assert path.read_bytes().startswith(b"These are notes")


def test_a_second_opener_is_refused_until_the_first_has_closed(tmp_path):
    first = open_things(tmp_path / "things.db")
    with pytest.raises(StorageError, match=r"^things .*things\.db: database is locked$"):
        open_things(tmp_path / "things.db")
    first.execute("INSERT INTO things VALUES ('a')")
    first.close()
    second = open_things(tmp_path / "things.db")
    assert second.execute("SELECT name FROM things").fetchall() == [("a",)]
    second.close()


def test_a_reopened_file_is_locked_before_its_first_write(tmp_path):
    open_things(tmp_path / "things.db").close()
    first = open_things(tmp_path / "things.db")
    with pytest.raises(StorageError, match="database is locked"):
        open_things(tmp_path / "things.db")
    first.close()


def test_a_path_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"^things .*missing.*: unable to open database file$"):
        open_things(tmp_path / "missing" / "things.db")


def test_a_refused_file_is_given_back(tmp_path):
    open_things(tmp_path / "things.db").close()
    with pytest.raises(ConfigError):
        open_things(tmp_path / "things.db", application_id=8)
    open_things(tmp_path / "things.db").close()


# -- docs/ground.md

PAGE = (Path(__file__).parents[2] / "docs" / "ground.md").read_text(encoding="utf-8")
LIMITS = re.findall(r"^\| `(\w+)\.(\w+)` \| ([\d.,]+) ?(s?) \|", PAGE, re.MULTILINE)
OWNERS = {
    "ClusterConfig": ClusterConfig(),
    "archive": ground.archive,
    "cluster": ground.cluster,
    "membership": ground.membership,
    "reach": ground.reach,
    "scheduler": ground.scheduler,
    "segment": ground.segment,
}


def queries(file):
    """SQL statements of the section of a file."""
    section = PAGE.split(f"### {file}\n")[1].split("\n#")[0]
    (block,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [statement.strip() for statement in block.split(";") if statement.strip()]


@pytest.mark.parametrize(("owner", "name", "number", "unit"), LIMITS, ids=lambda part: part)
def test_a_limit_in_the_document_has_the_value_of_the_code(owner, name, number, unit):
    value = getattr(OWNERS[owner], name)
    scale = {"_NS": 10**9, "_MS": 1000}.get(name[-3:], 1)
    assert float(number.replace(",", "")) * scale == value
    assert bool(unit) is (name.upper().rpartition("_")[2] in ("S", "NS", "MS")), "seconds, and only they, have a unit"


def test_the_document_has_every_limit_of_the_cluster():
    found = [name for owner, name, _, _ in LIMITS if owner == "ClusterConfig"]
    assert sorted([*found, "node"]) == sorted(ClusterConfig.__slots__)


def test_the_document_says_the_thresholds_in_its_text_as_the_code_does():
    assert f"| OVERDUE | {ground.membership.OVERDUE_BEACONS} beacon periods" in PAGE
    assert f"| SILENT | {ground.membership.SILENT_BEACONS} beacon periods" in PAGE
    assert f"a round every {ground.segment.ROUND_S:g} s" in PAGE
    looked_at, open_ = ground.scheduler.CANDIDATES_MAX, ground.scheduler.OUTSTANDING_MAX
    assert (
        f"**{looked_at} nodes** are looked at for one job, those with the earliest start; **{open_} attempts**" in PAGE
    )


def test_the_document_has_all_words_of_the_code():
    for word in (*ground.membership.Presence, *ground.ledger.State):
        assert f"\n| {word.value} |" in PAGE
    for claim in ground.ledger.Claim:
        assert f"\n| `{claim.value}` |" in PAGE
    table = [line for line in ground.ledger.__doc__.splitlines() if line.startswith("|")]
    assert "\n".join(table) in PAGE


@pytest.mark.parametrize("file", ["ledger.db", "archive.db"])
def test_the_document_has_the_tables_and_columns_of_the_schema(file):
    database = (Ledger() if file == "ledger.db" else Archive())._db
    section = PAGE.split(f"### {file}\n")[1]
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert tables
    for (table,) in tables:
        columns = ", ".join(row[1] for row in database.execute(f"PRAGMA table_info({table})"))
        assert re.search(rf"^\| `{table}` \| [^|]+ \| {columns} \|$", section, re.MULTILINE)
    database.close()


def test_the_queries_of_the_document_find_what_a_ledger_holds(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    request = JobRequest("cloud_mask", b"m" * 32, 1, b"d" * 32, 1, 1, 1.0, 4, 100, 1, 1.0)
    for job_id in (1, 2, 3, 4):
        ledger.accept(request, 0)
        ledger.place(job_id, 2, 0, 9, job_id)
        ledger.add_command(job_id, 2, "JOBS.SUBMIT", b"", 9, 0)
    ledger.end_attempt(1, 5, "overdue")
    ledger.fail(2, 6, "deadline passed")
    result = (b"m" * 32, b"d" * 32, b"r" * 32, 3, b"", 0, 0.5, 4, 0, 0, 9.0, "1")
    ledger.complete(JobReport(2, 3, 1, JobState.COMPLETED, "", *result), 2 * 10**9)
    ledger.close()
    database = sqlite3.connect(tmp_path / "ledger.db")
    counts, open_, slowest, reasons, given_up, chain = [
        database.execute(query).fetchall() for query in queries("ledger.db")
    ]
    assert sorted(counts) == [("ACCEPTED", 1), ("COMPLETED", 1), ("FAILED", 1), ("PLACED", 1)]
    assert [row[:2] for row in open_] == [(1, "ACCEPTED"), (4, "PLACED")]
    assert slowest == [(3, 1, 2.0, (b"r" * 32).hex().upper())]
    assert sorted(reasons) == [(2, "deadline passed", 1), (2, "overdue", 1)]
    assert given_up == [(2, 1, "deadline passed")]
    assert chain == [(2, "JOBS.SUBMIT", 0, 0, 4)]
    database.close()


def test_the_queries_of_the_document_find_what_an_archive_holds(tmp_path):
    archive = Archive(tmp_path / "archive.db")
    for received_s in (10, 20, 50):
        archive.add_beacon(2, received_s * 10**9, b"")
    for severity in (Severity.WARNING_LO, Severity.ACTIVITY_LO):
        archive.add_event(Event(2, 1, int(severity), 0, severity, "node", "NAME", "text"), 5 * 10**9)
    for number, stage in enumerate((Stage.COMPLETED, Stage.FAILED)):
        archive.add_verification(Verification(2, number, stage, CommandCode.BUSY, "full"), 10**9)
    archive.close()
    database = sqlite3.connect(tmp_path / "archive.db")
    heard, silence, warnings, refused = [database.execute(query).fetchall() for query in queries("archive.db")]
    assert heard == [(2, 50.0, 3)]
    assert silence == [(2, 30.0)]
    assert warnings == [(5.0, 2, 3, "node", "NAME", "text")]
    assert refused == [(1.0, 2, 1, 5, "full")]
    database.close()
