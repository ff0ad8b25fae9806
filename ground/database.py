"""Opening the ground's SQLite files: one way, with the promises that a power cut leaves standing."""

import sqlite3
from pathlib import Path
from typing import Literal

from flightsw.errors import ConfigError, StorageError


def open_database(
    path: Path | None, what: str, application_id: int, version: int, schema: str, synchronous: Literal["FULL", "NORMAL"]
) -> sqlite3.Connection:
    """A database of ours, made when missing. No statement opens a transaction by itself.

    The lock is exclusive: two grounds on one ledger would both be right and both be wrong.

    Args:
        path: the file, or None for memory.
        what: its name in messages.
        application_id: what the file's header must say.
        version: the schema's version.
        schema: statements that make it.
        synchronous: FULL keeps each commit through a power cut; NORMAL may lose the last ones, never the file.

    Raises:
        ConfigError: the file is something else, or of another version.
        StorageError: it cannot be opened, or another process has it.
    """
    name = ":memory:" if path is None else str(path)
    try:
        # no waiting for locks: that would be wall time
        database = sqlite3.connect(name, timeout=0.0, isolation_level=None)
    except sqlite3.Error as error:
        raise StorageError(f"{what} {name}: {error}") from None
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        tables_count = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        found_id = database.execute("PRAGMA application_id").fetchone()[0]
        found_version = database.execute("PRAGMA user_version").fetchone()[0]
        if tables_count and found_id != application_id:
            raise ConfigError(f"{what} {name}: application_id is {found_id:#x}, expected {application_id:#x}")
        if tables_count and found_version != version:
            raise ConfigError(f"{what} {name}: schema version is {found_version}, expected {version}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {synchronous}")
        if tables_count:
            # an empty write takes the exclusive lock now, rather than at the first job
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")
        else:
            identity = f"PRAGMA application_id = {application_id}; PRAGMA user_version = {version};"
            database.executescript(f"BEGIN EXCLUSIVE; {schema} {identity} COMMIT;")
    except sqlite3.OperationalError as error:
        database.close()
        raise StorageError(f"{what} {name}: {error}") from None
    except sqlite3.DatabaseError as error:
        database.close()
        raise ConfigError(f"{what} {name}: is no database: {error}") from None
    except ConfigError:
        database.close()
        raise
    return database
