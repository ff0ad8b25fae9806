"""The archive: what the fleet said, as it was received.

SQLite, packed beacons and telemetry packets, decoded on read. Rows are written in batches: what has not been flushed
is lost at a crash, unlike the ledger. Events and command verifications are decoded rows, since people search them.
What a node may send twice (packets, events, parts of dumps) is known by its numbers and kept once, as it came first.
"""

from pathlib import Path
from typing import Final, NamedTuple

from flightsw.wire.messages import Beacon, Dump, Event, Packets, Verification, decode_message
from ground.database import open_database

APPLICATION_ID: Final = 0x46415243
"""`FARC` in the header of the file."""
SCHEMA_VERSION: Final = 2
BATCH_ROWS: Final = 2048
"""Rows kept before a commit: one write for minutes of a fleet of twelve, for seconds of one of thousands."""

_SCHEMA: Final = """
CREATE TABLE beacons (
  node INTEGER NOT NULL, received_ns INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (node, received_ns)
) STRICT, WITHOUT ROWID;
CREATE TABLE packets (
  node INTEGER NOT NULL, boot_count INTEGER NOT NULL, sequence INTEGER NOT NULL, received_ns INTEGER NOT NULL,
  recorded INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (node, boot_count, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE dumps (
  node INTEGER NOT NULL, boot_count INTEGER NOT NULL, number INTEGER NOT NULL, part INTEGER NOT NULL,
  parts INTEGER NOT NULL, kind TEXT NOT NULL, received_ns INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (node, boot_count, number, part)
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
_PACKETS: Final = "INSERT OR IGNORE INTO packets VALUES (?, ?, ?, ?, ?, ?)"
_DUMP: Final = "INSERT OR IGNORE INTO dumps VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_EVENT: Final = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_VERIFICATION: Final = "INSERT INTO verifications VALUES (?, ?, ?, ?, ?, ?)"

DUMPS_MAX: Final = 64
"""Dumps kept of one node: weeks of commanding; the oldest give way, also those of which parts are missing."""


class PacketsRow(NamedTuple):
    """Telemetry packets on record."""

    received_ns: int
    """When they came [monotonic ns of the ground]."""
    recorded: bool
    """Whether they came from the node's recorder."""
    message: Packets


class DumpRow(NamedTuple):
    """A data product of a node."""

    node: int
    boot_count: int
    number: int
    """Of the dump in that boot."""
    kind: str
    """The component that made it."""
    received_ns: int
    """When its last part came [monotonic ns of the ground]."""
    parts: int
    parts_held: int
    size_bytes: int
    """Of the parts that are here [bytes]."""

    @property
    def is_whole(self) -> bool:
        """Whether no part is missing."""
        return self.parts_held == self.parts


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
        self._packets: list[tuple[object, ...]] = []
        self._events: list[tuple[object, ...]] = []
        self._verifications: list[tuple[object, ...]] = []

    def add_beacon(self, node: int, received_ns: int, payload: bytes) -> None:
        """Keep a beacon as it came."""
        self._beacons.append((node, received_ns, payload))
        if len(self._beacons) >= BATCH_ROWS:
            self.flush()

    def add_packets(self, message: Packets, payload: bytes, received_ns: int, *, recorded: bool = False) -> None:
        """Keep telemetry packets as they came; those that came before are not kept twice."""
        row = (message.node, message.boot_count, message.sequence, received_ns, int(recorded), payload)
        self._packets.append(row)
        if len(self._packets) >= BATCH_ROWS:
            self.flush()

    def add_dump(self, part: Dump, received_ns: int) -> bool:
        """Keep one part of a dump, at once; says whether the dump is whole now.

        A part that does not fit to those before it is not kept.
        """
        key = (part.node, part.boot_count, part.number)
        known = self._db.execute(
            "SELECT parts, kind FROM dumps WHERE node = ? AND boot_count = ? AND number = ? LIMIT 1", key
        ).fetchone()
        if part.part >= part.parts or (known is not None and known != (part.parts, part.kind)):
            return False
        self._db.execute(_DUMP, (*key, part.part, part.parts, part.kind, received_ns, part.data))
        if known is None:
            self._drop_dumps(part.node)
        held = self._db.execute(
            "SELECT COUNT(*) FROM dumps WHERE node = ? AND boot_count = ? AND number = ?", key
        ).fetchone()[0]
        return bool(held == part.parts)

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

    def flush(self, *, is_durable: bool = False) -> None:
        """Write what waits.

        Args:
            is_durable: so that a power cut cannot undo it: for what a node erases when it hears of it.
        """
        if not (self._beacons or self._packets or self._events or self._verifications):
            return
        if is_durable:
            self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN")
        self._db.executemany(_BEACON, self._beacons)
        self._db.executemany(_PACKETS, self._packets)
        self._db.executemany(_EVENT, self._events)
        self._db.executemany(_VERIFICATION, self._verifications)
        self._db.execute("COMMIT")
        if is_durable:
            self._db.execute("PRAGMA synchronous = NORMAL")
        self._beacons, self._packets, self._events, self._verifications = [], [], [], []

    def beacons(self, node: int, start_ns: int, end_ns: int) -> list[tuple[int, Beacon]]:
        """(received [ns], beacon) of a node in [start, end)."""
        self.flush()
        rows = self._db.execute(
            "SELECT received_ns, payload FROM beacons WHERE node = ? AND received_ns >= ? AND received_ns < ? "
            "ORDER BY received_ns",
            (node, start_ns, end_ns),
        )
        decoded = ((received_ns, decode_message(payload)) for received_ns, payload in rows)
        return [(received_ns, found) for received_ns, found in decoded if isinstance(found, Beacon)]

    def packets(self, node: int, most: int = 1 << 62) -> list[PacketsRow]:
        """The newest telemetry packets of a node, by (boot, sequence), oldest first."""
        self.flush()
        rows = self._db.execute(
            "SELECT received_ns, recorded, payload FROM packets WHERE node = ? "
            "ORDER BY boot_count DESC, sequence DESC LIMIT ?",
            (node, most),
        ).fetchall()
        found = []
        for received_ns, recorded, payload in reversed(rows):
            message = decode_message(payload)
            assert isinstance(message, Packets), "nothing else goes into this table"
            found.append(PacketsRow(received_ns, bool(recorded), message))
        return found

    def dumps(self, node: int, kind: str = "", most: int = DUMPS_MAX) -> list[DumpRow]:
        """The newest dumps of a node, oldest first; of all kinds when `kind` is empty."""
        rows = self._db.execute(
            "SELECT node, boot_count, number, kind, MAX(received_ns), parts, COUNT(*), SUM(LENGTH(data)) FROM dumps "
            "WHERE node = ?1 AND (?2 = '' OR kind = ?2) GROUP BY boot_count, number "
            "ORDER BY boot_count DESC, number DESC LIMIT ?3",
            (node, kind, most),
        ).fetchall()
        return [DumpRow(*row) for row in reversed(rows)]

    def dump(self, node: int, boot_count: int, number: int) -> bytes | None:
        """The bytes of a dump; None when it is not here, or parts are missing."""
        rows = self._db.execute(
            "SELECT parts, data FROM dumps WHERE node = ? AND boot_count = ? AND number = ? ORDER BY part",
            (node, boot_count, number),
        ).fetchall()
        return b"".join(data for _, data in rows) if rows and len(rows) == rows[0][0] else None

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

    def _drop_dumps(self, node: int) -> None:
        """Let the oldest dumps of a node give way."""
        for old in self.dumps(node, most=1 << 62)[:-DUMPS_MAX]:
            self._db.execute(
                "DELETE FROM dumps WHERE node = ? AND boot_count = ? AND number = ?", (node, old.boot_count, old.number)
            )

    def close(self) -> None:
        """Flush and give the file back."""
        self.flush()
        self._db.close()
