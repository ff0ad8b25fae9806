"""The ledger: what the ground has promised, written before it acts. SQLite, WAL, `synchronous=FULL`.

NORMAL would lose acknowledged commits at a power cut (measured: 56 % of cut images). A scheduling round is one
transaction; the caller acts after it. Attempts carry a fencing token, the attempt number: only the newest attempt of an
open job can complete it, once; what comes late or twice changes nothing and is counted by the caller.

| job state | means | may become |
|---|---|---|
| ACCEPTED | promised, not placed | PLACED, FAILED |
| PLACED | its newest attempt is on its way or running | PLACED (next attempt), ACCEPTED, COMPLETED, FAILED |
| COMPLETED | result on record | – |
| FAILED | given up, with a reason | – |
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flightsw.wire import cbor
from flightsw.wire.messages import CommandCode, JobReport, Stage
from ground.database import open_database

APPLICATION_ID: Final = 0x464C4544
"""`FLED` in the header of the file."""
SCHEMA_VERSION: Final = 2

_SCHEMA: Final = """
CREATE TABLE jobs (
  job_id INTEGER PRIMARY KEY, request BLOB NOT NULL, submitted_ns INTEGER NOT NULL, deadline_ns INTEGER NOT NULL,
  state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, node INTEGER, ended_ns INTEGER, result BLOB, product BLOB,
  detail TEXT NOT NULL DEFAULT '', report BLOB
) STRICT;
CREATE INDEX jobs_open ON jobs (state) WHERE state IN ('ACCEPTED', 'PLACED');
CREATE TABLE attempts (
  job_id INTEGER NOT NULL, attempt INTEGER NOT NULL, node INTEGER NOT NULL, placed_ns INTEGER NOT NULL,
  due_ns INTEGER NOT NULL, command_id INTEGER NOT NULL, ended_ns INTEGER, detail TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (job_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE commands (
  command_id INTEGER PRIMARY KEY, node INTEGER NOT NULL, opcode TEXT NOT NULL, payload BLOB NOT NULL,
  expires_ns INTEGER NOT NULL, stage INTEGER NOT NULL, code INTEGER NOT NULL DEFAULT 0, changed_ns INTEGER NOT NULL,
  detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE stages (
  command_id INTEGER NOT NULL, position INTEGER NOT NULL, at_ns INTEGER NOT NULL, stage INTEGER NOT NULL,
  code INTEGER NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (command_id, position)
) STRICT, WITHOUT ROWID;
"""


@unique
class State(StrEnum):
    """States of a job on the ground."""

    ACCEPTED = "ACCEPTED"
    PLACED = "PLACED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@unique
class Claim(StrEnum):
    """What becomes of a report."""

    NEWEST = "newest"
    """It is of the newest attempt of an open job."""
    STALE = "stale"
    """A newer attempt fences it out."""
    LATE = "late"
    """The job has ended."""
    UNKNOWN = "unknown"
    """No such job or attempt."""


class JobRequest(msgspec.Struct, frozen=True, array_like=True):
    """What somebody asks the cluster to do."""

    kind: str
    model: bytes
    model_bytes: int
    data: bytes
    data_bytes: int
    steps_count: int
    step_mpix: float
    priority: int
    deadline_s: int
    checkpoint_steps: int
    product_measure_max: float


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job that has not ended."""

    job_id: int
    request: JobRequest
    submitted_ns: int
    deadline_ns: int
    state: State
    attempt: int
    node: int | None
    due_ns: int
    """When the newest attempt should be back; 0 without one."""
    command_id: int
    """Of the newest attempt's JOBS.SUBMIT; 0 without one."""


class StageRow(NamedTuple):
    """One stage of a command's chain."""

    at_ns: int
    stage: Stage
    code: CommandCode
    detail: str


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command whose end is not known."""

    command_id: int
    node: int
    opcode: str
    payload: bytes
    expires_ns: int
    stage: Stage
    changed_ns: int


class Ledger:
    """Jobs, attempts and commands on record.

    Args:
        path: the file, or None for memory.

    Raises:
        ConfigError: the file is no ledger, or of another version.
        StorageError: it cannot be opened, or another ground segment has it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._db = open_database(path, "ledger", APPLICATION_ID, SCHEMA_VERSION, _SCHEMA, "FULL")

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    @property
    def database(self) -> sqlite3.Connection:
        """The file, for other books that are kept in it (`ground.update_book`)."""
        return self._db

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end. Act only after it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- jobs

    def accept(self, request: JobRequest, now_ns: int) -> int:
        """Promise a job; returns its number."""
        deadline_ns = now_ns + request.deadline_s * 1_000_000_000
        cursor = self._db.execute(
            "INSERT INTO jobs (request, submitted_ns, deadline_ns, state) VALUES (?, ?, ?, ?)",
            (_pack(request), now_ns, deadline_ns, State.ACCEPTED),
        )
        assert cursor.lastrowid is not None, "an insert has a row"
        return cursor.lastrowid

    def place(self, job_id: int, node: int, now_ns: int, due_ns: int, command_id: int) -> int:
        """Record a new attempt; returns its number, higher than any before."""
        (attempt,) = self._db.execute(
            "UPDATE jobs SET state = ?, attempt = attempt + 1, node = ? WHERE job_id = ? AND state IN (?, ?) "
            "RETURNING attempt",
            (State.PLACED, node, job_id, State.ACCEPTED, State.PLACED),
        ).fetchone()
        self._db.execute(
            "INSERT INTO attempts (job_id, attempt, node, placed_ns, due_ns, command_id) VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, attempt, node, now_ns, due_ns, command_id),
        )
        return int(attempt)

    def change_command(self, job_id: int, attempt: int, command_id: int) -> None:
        """The attempt was submitted again, by another command."""
        self._db.execute(
            "UPDATE attempts SET command_id = ? WHERE job_id = ? AND attempt = ?", (command_id, job_id, attempt)
        )

    def end_attempt(self, job_id: int, now_ns: int, detail: str) -> None:
        """Give up the newest attempt; the job waits for another."""
        self._db.execute(
            "UPDATE attempts SET ended_ns = ?, detail = ? WHERE job_id = ? AND ended_ns IS NULL",
            (now_ns, detail, job_id),
        )
        self._db.execute(
            "UPDATE jobs SET state = ?, node = NULL WHERE job_id = ? AND state = ?",
            (State.ACCEPTED, job_id, State.PLACED),
        )

    def claim(self, job_id: int, attempt: int, node: int) -> Claim:
        """Whether a report may speak for its job."""
        row = self._db.execute(
            "SELECT j.state, j.attempt, a.node FROM jobs j "
            "LEFT JOIN attempts a ON a.job_id = j.job_id AND a.attempt = ? WHERE j.job_id = ?",
            (attempt, job_id),
        ).fetchone()
        if row is None or row[2] != node:
            return Claim.UNKNOWN
        if row[0] in (State.COMPLETED, State.FAILED):
            return Claim.LATE
        return Claim.NEWEST if row[1] == attempt and row[0] == State.PLACED else Claim.STALE

    def complete(self, report: JobReport, now_ns: int) -> Claim:
        """Put a result on record if the report may speak for its job; otherwise nothing changes."""
        claim = self.claim(report.job_id, report.attempt, report.node)
        if claim is Claim.NEWEST:
            self._db.execute(
                "UPDATE jobs SET state = ?, ended_ns = ?, result = ?, product = ?, report = ? WHERE job_id = ?",
                (State.COMPLETED, now_ns, report.result, report.product, _pack(report), report.job_id),
            )
            self._db.execute(
                "UPDATE attempts SET ended_ns = ? WHERE job_id = ? AND attempt = ?",
                (now_ns, report.job_id, report.attempt),
            )
        return claim

    def fail(self, job_id: int, now_ns: int, detail: str) -> bool:
        """End a job without a result; False when it has ended already."""
        cursor = self._db.execute(
            "UPDATE jobs SET state = ?, ended_ns = ?, detail = ? WHERE job_id = ? AND state IN (?, ?)",
            (State.FAILED, now_ns, detail, job_id, State.ACCEPTED, State.PLACED),
        )
        self._db.execute(
            "UPDATE attempts SET ended_ns = ?, detail = ? WHERE job_id = ? AND ended_ns IS NULL",
            (now_ns, detail, job_id),
        )
        return cursor.rowcount == 1

    def open_jobs(self) -> list[JobRow]:
        """Jobs that have not ended, by number."""
        rows = self._db.execute(
            "SELECT j.job_id, j.request, j.submitted_ns, j.deadline_ns, j.state, j.attempt, j.node, "
            "a.due_ns, a.command_id FROM jobs j "
            "LEFT JOIN attempts a ON a.job_id = j.job_id AND a.attempt = j.attempt AND a.ended_ns IS NULL "
            "WHERE j.state IN (?, ?) ORDER BY j.job_id",
            (State.ACCEPTED, State.PLACED),
        )
        return [
            JobRow(
                job_id=row[0],
                request=msgspec.convert(cbor.loads(row[1]), JobRequest, builtin_types=(bytes,)),
                submitted_ns=row[2],
                deadline_ns=row[3],
                state=State(row[4]),
                attempt=row[5],
                node=row[6],
                due_ns=row[7] or 0,
                command_id=row[8] or 0,
            )
            for row in rows
        ]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        return dict(self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state ORDER BY state"))

    def jobs(self, *, count: int, number: int | None = None) -> list[dict[str, Any]]:
        """The newest jobs, newest first, ended ones too; or the one with this number, if there is one."""
        names = "job_id, state, attempt, node, submitted_ns, deadline_ns, ended_ns, result, product, detail"
        rows = self._db.execute(
            f"SELECT {names} FROM jobs WHERE ?1 IS NULL OR job_id = ?1 ORDER BY job_id DESC LIMIT ?2", (number, count)
        )
        return [dict(zip(names.replace("job_id", "job").split(", "), row, strict=True)) for row in rows]

    # -- commands

    def command(self, command_id: int) -> tuple[int, str, Stage, CommandCode, str] | None:
        """(node, opcode, stage, code, detail) of a command, or None."""
        row = self._db.execute(
            "SELECT node, opcode, stage, code, detail FROM commands WHERE command_id = ?", (command_id,)
        ).fetchone()
        return None if row is None else (row[0], row[1], Stage(row[2]), CommandCode(row[3]), row[4])

    def next_command_id(self) -> int:
        """A number that no command had before."""
        return 1 + int(self._db.execute("SELECT COALESCE(MAX(command_id), 0) FROM commands").fetchone()[0])

    def add_command(
        self, command_id: int, node: int, opcode: str, payload: bytes, expires_ns: int, now_ns: int
    ) -> None:
        """Put a command on record before it is sent."""
        self._db.execute(
            "INSERT INTO commands (command_id, node, opcode, payload, expires_ns, stage, changed_ns) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (command_id, node, opcode, payload, expires_ns, int(Stage.QUEUED), now_ns),
        )
        self._add_stage(command_id, StageRow(now_ns, Stage.QUEUED, CommandCode.OK, ""))

    def stage_command(self, command_id: int, stage: Stage, code: CommandCode, detail: str, now_ns: int) -> bool:
        """Move a command forward in its chain; False when that is no step forward. News of PROGRESS is one."""
        cursor = self._db.execute(
            "UPDATE commands SET stage = ?1, code = ?2, detail = ?3, changed_ns = ?4 WHERE command_id = ?5 "
            "AND stage < ?6 AND (stage < ?1 OR (stage = ?1 AND ?1 = ?7 AND detail <> ?3))",
            (int(stage), int(code), detail, now_ns, command_id, int(Stage.COMPLETED), int(Stage.PROGRESS)),
        )
        if cursor.rowcount == 1:
            self._add_stage(command_id, StageRow(now_ns, stage, code, detail))
        return cursor.rowcount == 1

    def chain(self, command_id: int) -> list[StageRow]:
        """The stages of a command, in order."""
        rows = self._db.execute(
            "SELECT at_ns, stage, code, detail FROM stages WHERE command_id = ? ORDER BY position", (command_id,)
        )
        return [StageRow(row[0], Stage(row[1]), CommandCode(row[2]), row[3]) for row in rows]

    def _add_stage(self, command_id: int, row: StageRow) -> None:
        self._db.execute(
            "INSERT INTO stages SELECT ?1, COALESCE(MAX(position), 0) + 1, ?2, ?3, ?4, ?5 FROM stages "
            "WHERE command_id = ?1",
            (command_id, row.at_ns, int(row.stage), int(row.code), row.detail),
        )

    def open_commands(self) -> list[CommandRow]:
        """Commands whose chain has not ended, by number."""
        rows = self._db.execute(
            "SELECT command_id, node, opcode, payload, expires_ns, stage, changed_ns FROM commands WHERE stage < ? "
            "ORDER BY command_id",
            (int(Stage.COMPLETED),),
        )
        return [CommandRow(row[0], row[1], row[2], row[3], row[4], Stage(row[5]), row[6]) for row in rows]


def _pack(value: msgspec.Struct) -> bytes:
    return cbor.dumps(msgspec.to_builtins(value, builtin_types=(bytes,)))
