import sqlite3

import pytest

from flightsw.errors import ConfigError, StorageError
from ground.database import open_database

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
