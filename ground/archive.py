"""The archive: what the fleet said, as it was received.

SQLite, one packed beacon for each (node, time), decoded on read. Rows are written in batches: what has not been flushed
is lost at a crash, unlike the ledger. Events and command verifications are decoded rows, since people search them.
"""

from pathlib import Path
from typing import Final

from flightsw.wire.messages import Beacon, Event, Housekeeping, Verification, decode_message
from ground.database import open_database

APPLICATION_ID: Final = 0x46415243
"""`FARC` in the header of the file."""
SCHEMA_VERSION: Final = 1
BATCH_ROWS: Final = 2048
"""Rows kept before a commit: one write for minutes of a fleet of twelve, for seconds of one of thousands."""

_SCHEMA: Final = """
CREATE TABLE beacons (
  node INTEGER NOT NULL, received_ns INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (node, received_ns)
) STRICT, WITHOUT ROWID;
CREATE TABLE housekeeping (
  node INTEGER NOT NULL, received_ns INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (node, received_ns)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
  node INTEGER NOT NULL, boot_count INTEGER NOT NULL, sequence INTEGER NOT NULL, received_ns INTEGER NOT NULL,
  utc_ns INTEGER NOT NULL, severity INTEGER NOT NULL, component TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY (node, boot_count, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE verifications (
  received_ns INTEGER NOT NULL, node INTEGER NOT NULL, command_id INTEGER NOT NULL, stage INTEGER NOT NULL,
  code INTEGER NOT NULL, detail TEXT NOT NULL
) STRICT;
"""
_BEACON: Final = "INSERT OR REPLACE INTO beacons VALUES (?, ?, ?)"
_HOUSEKEEPING: Final = "INSERT OR REPLACE INTO housekeeping VALUES (?, ?, ?)"
_EVENT: Final = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_VERIFICATION: Final = "INSERT INTO verifications VALUES (?, ?, ?, ?, ?, ?)"


class Archive:
    """Telemetry on record.

    Args:
        path: the file, or None for memory.

    Raises:
        ConfigError: the file is no archive, or of another version.
        StorageError: it cannot be opened, or another process has it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._db = open_database(path, "archive", APPLICATION_ID, SCHEMA_VERSION, _SCHEMA, "NORMAL")
        self._beacons: list[tuple[int, int, bytes]] = []
        self._housekeeping: list[tuple[int, int, bytes]] = []
        self._events: list[tuple[object, ...]] = []
        self._verifications: list[tuple[object, ...]] = []

    def add_beacon(self, node: int, received_ns: int, payload: bytes) -> None:
        """Keep a beacon as it came."""
        self._beacons.append((node, received_ns, payload))
        if len(self._beacons) >= BATCH_ROWS:
            self.flush()

    def add_housekeeping(self, node: int, received_ns: int, payload: bytes) -> None:
        """Keep a housekeeping record as it came."""
        self._housekeeping.append((node, received_ns, payload))
        if len(self._housekeeping) >= BATCH_ROWS:
            self.flush()

    def add_event(self, event: Event, received_ns: int) -> None:
        """Keep an event; one that came before is not kept twice."""
        self._events.append(
            (
                event.node,
                event.boot_count,
                event.sequence,
                received_ns,
                event.utc_ns,
                int(event.severity),
                event.component,
                event.name,
                event.text,
            )
        )
        if len(self._events) >= BATCH_ROWS:
            self.flush()

    def add_verification(self, verification: Verification, received_ns: int) -> None:
        """Keep one stage of a command's chain."""
        v = verification
        self._verifications.append((received_ns, v.node, v.command_id, int(v.stage), int(v.code), v.detail))
        if len(self._verifications) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not (self._beacons or self._housekeeping or self._events or self._verifications):
            return
        self._db.execute("BEGIN")
        self._db.executemany(_BEACON, self._beacons)
        self._db.executemany(_HOUSEKEEPING, self._housekeeping)
        self._db.executemany(_EVENT, self._events)
        self._db.executemany(_VERIFICATION, self._verifications)
        self._db.execute("COMMIT")
        self._beacons, self._housekeeping, self._events, self._verifications = [], [], [], []

    def beacons(self, node: int, start_ns: int, end_ns: int) -> list[tuple[int, Beacon]]:
        """(received [ns], beacon) of a node in [start, end)."""
        return [
            (at_ns, found)
            for at_ns, found in self._packed("beacons", node, start_ns, end_ns)
            if isinstance(found, Beacon)
        ]

    def housekeeping(self, node: int, start_ns: int, end_ns: int) -> list[tuple[int, Housekeeping]]:
        """(received [ns], record) of a node in [start, end)."""
        packed = self._packed("housekeeping", node, start_ns, end_ns)
        return [(at_ns, found) for at_ns, found in packed if isinstance(found, Housekeeping)]

    def _packed(self, table: str, node: int, start_ns: int, end_ns: int) -> list[tuple[int, object]]:
        self.flush()
        rows = self._db.execute(
            f"SELECT received_ns, payload FROM {table} WHERE node = ? AND received_ns >= ? AND received_ns < ? "
            "ORDER BY received_ns",
            (node, start_ns, end_ns),
        )
        return [(received_ns, decode_message(payload)) for received_ns, payload in rows]

    def events(self, node: int | None = None) -> list[tuple[int, int, int, str, str, str]]:
        """(received [ns], node, severity, component, name, text), by time of reception."""
        self.flush()
        return self._db.execute(
            "SELECT received_ns, node, severity, component, name, text FROM events WHERE ?1 IS NULL OR node = ?1 "
            "ORDER BY received_ns, node, boot_count, sequence",
            (node,),
        ).fetchall()

    def beacons_count(self) -> int:
        """Beacons on record."""
        self.flush()
        return int(self._db.execute("SELECT COUNT(*) FROM beacons").fetchone()[0])

    def close(self) -> None:
        """Flush and give the file back."""
        self.flush()
        self._db.close()
