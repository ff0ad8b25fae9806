"""The audit trail: a chain of records of what was done and decided on board, kept over resets.

Records are made of commands, executed and refused, of what the node decides by itself, of keys, parameters, updates and
boots. Each holds the hash of the one before (`flightsw.storage.audit_chain`), and each is durable before the next one
is made, so that a power cut takes the newest at most. They lie in a ring: when it is full the oldest give way, and the
chain is then verified from the oldest that is left.

Nothing waits for the trail. A record that the disk does not take is counted and reported, and the next one that it does
take stands behind a record `missed` that says how many there were.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flightsw.component import Dump, Handler, Outcome, Report, Scalar
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Clock, Disk, Log, ResetCause
from flightsw.storage.audit_chain import GENESIS, AuditRecord, encode_record, join_records, record_hash
from flightsw.storage.ring_log import RingLog
from flightsw.wire.messages import CommandCode

NAME: Final = "AUDIT"
RING_NAME: Final = "audit"
RING_BYTES: Final = 1 << 18
"""What the records may take on the disk [bytes]: some two thousand, days of a busy node; all are 16 messages."""
TEXT_SHOWN_MAX: Final = 128
"""Text of one argument or answer in a record [characters]: what tells one from another."""
ARGUMENTS_SHOWN_MAX: Final = 8
"""Arguments of a command in a record: no command of the dictionary has more."""
NS_PER_MS: Final = 1_000_000


class AuditTrail:
    """Implements `flightsw.component.Component`.

    Args:
        disk: keeps the records.
        boot_count: of this boot.
        clock: dates the records.
        report: takes events.
        dump: sends a data product.
        ring_bytes: what the records may take [bytes].
    """

    name = NAME

    def __init__(
        self, disk: Disk, boot_count: int, clock: Clock, *, report: Report, dump: Dump, ring_bytes: int = RING_BYTES
    ) -> None:
        self._boot_count = boot_count
        self._clock = clock
        self._started_ns = clock.monotonic_ns()
        self._report = report
        self._dump = dump
        self._ring = RingLog(disk, RING_NAME, ring_bytes)
        newest = self._ring.numbered(max(0, self._ring.next_number - 1))
        self._head = record_hash(newest[-1][1]) if newest else GENESIS
        self._untold_count = 0
        """Records missed since the last one that was kept."""
        self.missed_count = 0

    def boot(self, cause: ResetCause) -> None:
        """Begin this boot's part of the chain."""
        if self._ring.damaged_count:
            self._report("AUDIT.DAMAGED", self._ring.damaged_count, self._ring.first_number)
        self.record("boot", {"cause": cause.name, "damaged": self._ring.damaged_count, "torn": self._ring.torn_count})

    def record(self, kind: str, fields: Mapping[str, object]) -> None:
        """Add a record, durably; an `flightsw.component.Audit`. Never raises for the disk: what it does not take is
        counted and reported.
        """
        try:
            if self._untold_count:
                self._add("missed", {"count": self._untold_count})
                self._untold_count = 0
            self._add(kind, fields)
        except (StorageError, MessageError) as error:
            self._untold_count += 1
            self.missed_count += 1
            self._report("AUDIT.UNSAVED", f"{kind}: {error}"[:512])

    def command(self, origin: str, opcode: str, arguments: Sequence[object], outcome: Outcome) -> None:
        """Add a record of a command that ended or was refused."""
        fields: dict[str, object] = {"origin": origin, "opcode": opcode, "code": outcome.code.name}
        if arguments:
            fields["arguments"] = [_short(one) for one in arguments[:ARGUMENTS_SHOWN_MAX]]
        if outcome.detail:
            fields["detail"] = outcome.detail[:TEXT_SHOWN_MAX]
        self.record("command", fields)

    def noting(self, log: Log, *kinds: str) -> Log:
        """A log that also makes records of these kinds: of decisions that a machine logs."""

        def note(kind: str, fields: dict[str, object]) -> None:
            log(kind, fields)
            if kind in kinds:
                self.record(kind, fields)

        return note

    def handlers(self) -> Mapping[str, Handler]:
        """DUMP."""
        return {"DUMP": self._do_dump}

    def channels(self) -> Mapping[str, Scalar]:
        """How many records, the oldest kept, the hash of the newest."""
        return {
            "records": self._ring.next_number,
            "oldest": self._ring.first_number,
            "head": self._head.hex(),
            "missed": self.missed_count,
        }

    def _add(self, kind: str, fields: Mapping[str, object]) -> None:
        record = AuditRecord(
            self._ring.next_number,
            self._boot_count,
            (self._clock.monotonic_ns() - self._started_ns) // NS_PER_MS,
            self._clock.utc_ns(),
            kind,
            dict(fields),
        )
        data = encode_record(self._head, record)
        self._ring.append(data)
        self._head = record_hash(data)  # the chain goes on behind it, also when the disk does not sync it
        self._ring.sync()

    def _do_dump(self, arguments: Sequence[Any]) -> Outcome:
        records = [record for _, record in self._ring.numbered(arguments[0])]
        return Outcome(CommandCode.OK, f"dump {self._dump(NAME, join_records(records))}: {len(records)} records")


def _short(value: object) -> object:
    """An argument as a record shows it: long bytes, which may hold a key, by digest and length."""
    if isinstance(value, bytes):
        return f"{hashlib.blake2b(value, digest_size=8).hexdigest()} of {len(value)} bytes"
    return value if isinstance(value, bool | int | float) else str(value)[:TEXT_SHOWN_MAX]
