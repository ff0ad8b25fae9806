"""The ground's side of the audit trail: verifies what a node dumps, and shows where it does not hold.

| fault | meaning |
|---|---|
| UNREADABLE | a record does not decode |
| ALTERED | the record behind this one does not fit it: one of the two was changed |
| GAP | records are missing before this one |
| REORDERED | a record stands where another belongs |
| FORKED | the record is another than the one that was verified before, or that housekeeping told of |
| TRUNCATED | housekeeping told of records behind the last one of the dump |

What holds is never asked for again: the book keeps, for each node, number and hash of the last record up to which the
chain held, in two copies. The next dump begins with that record, and must begin with the same one.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum, unique
from typing import Final, NamedTuple

import msgspec

from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.audit_chain import GENESIS, HASH_BYTES, AuditRecord, decode_record, record_hash
from flightsw.storage.copies import TwoCopies
from flightsw.wire import cbor

BOOK_PREFIX: Final = "audit/"


@unique
class FaultKind(StrEnum):
    """What is wrong with a chain."""

    UNREADABLE = "UNREADABLE"
    ALTERED = "ALTERED"
    GAP = "GAP"
    REORDERED = "REORDERED"
    FORKED = "FORKED"
    TRUNCATED = "TRUNCATED"


class Fault(NamedTuple):
    """Where a chain does not hold."""

    number: int
    """Of the record."""
    kind: FaultKind
    detail: str


class Head(NamedTuple):
    """A record of which the hash is known."""

    number: int
    hash: bytes


class Verdict(NamedTuple):
    """What became of a dump."""

    records: list[AuditRecord]
    """Those that decode, as they came."""
    faults: list[Fault]
    head: Head | None
    """The last record up to which all holds, as the one behind it shows; None when nothing does."""


def verify(dump: Sequence[bytes], known: Mapping[int, bytes], anchor: Head | None) -> Verdict:
    """Look at a dump.

    Args:
        dump: encoded records, as they came.
        known: number -> hash of a record, as housekeeping told.
        anchor: the last record that was verified before; the dump was asked for from it on.
    """
    faults: list[Fault] = []
    records: list[AuditRecord] = []
    expected = None if anchor is None else anchor.number
    before: Head | None = None
    head = anchor
    for data in dump:
        try:
            previous, record = decode_record(data)
        except MessageError as error:
            faults.append(Fault(expected or 0, FaultKind.UNREADABLE, str(error)))
            expected, before = (expected or 0) + 1, None
            continue
        found = _fault(record.number, previous, expected, before)
        if found is not None:
            faults.append(found)
        elif not faults and before is not None:
            head = before  # the record behind it fits it
        records.append(record)
        before = Head(record.number, record_hash(data))
        expected = record.number + 1
        told = anchor.hash if anchor is not None and anchor.number == record.number else known.get(record.number)
        if told is not None and told != before.hash:
            faults.append(Fault(record.number, FaultKind.FORKED, "is not the record that was known before"))
    last = -1 if before is None else before.number
    if known and (newest := max(known)) > last and not any(one.kind is FaultKind.UNREADABLE for one in faults):
        faults.append(Fault(last + 1, FaultKind.TRUNCATED, f"housekeeping told of records up to {newest}"))
    return Verdict(records, faults, head if faults or before is None else before)


def _fault(number: int, previous: bytes, expected: int | None, before: Head | None) -> Fault | None:
    """What is wrong with a record's place in the chain."""
    if expected is not None and number < expected:
        return Fault(number, FaultKind.REORDERED, f"stands where {expected} belongs")
    if expected is not None and number > expected:
        return Fault(number, FaultKind.GAP, f"records {expected} to {number - 1} are missing")
    if before is not None and previous != before.hash:
        return Fault(before.number, FaultKind.ALTERED, f"record {number} does not fit it")
    if number == 0 and previous != GENESIS:
        return Fault(0, FaultKind.ALTERED, "record 0 names one before it")
    return None


class AuditBook:
    """Up to where the chains of the nodes are verified.

    Args:
        disk: keeps it.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def anchor(self, node: int) -> Head | None:
        """The last record of a node that was verified; None when none was, or when the book does not hold."""
        try:
            content = self._copies(node).load()
            if content is None:
                return None
            number, digest = msgspec.convert(cbor.loads(content), tuple[int, bytes], builtin_types=(bytes,))
        except (StorageError, MessageError, msgspec.ValidationError):
            return None  # the chain is then verified from its oldest record on
        return Head(number, digest) if len(digest) == HASH_BYTES else None

    def keep(self, node: int, head: Head) -> None:
        """Note how far the chain of a node is verified. Raises: StorageError."""
        copies = self._copies(node)
        copies.store(cbor.dumps(list(head)))

    def _copies(self, node: int) -> TwoCopies:
        return TwoCopies(self._disk, f"{BOOK_PREFIX}{node}")
