"""Administrative records (RFC 9171 §6.1): what bundle nodes tell each other about bundles.

A record is the payload of a bundle that has the administrative flag: `[type, content]`. The one type of BPv7 is the
bundle status report:

```text
[1, [[received, forwarded, delivered, deleted, ...], reason, source, [time, sequence], (fragment offset, length)]]
each status: [asserted] or, when asserted and the bundle asked for times, [true, DTN time]
```

Reading is strict, and any fault is a `BundleError` that names the field. More than four statuses are allowed by §6.1.1;
those beyond the fourth are checked and left out.
"""

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

from flightsw.errors import BundleError, MessageError
from flightsw.wire.cbor import ARRAY, UNSIGNED, encode_head, read_head
from flightsw.wire.eids import Eid, encode_eid, read_eid

RECORD_STATUS_REPORT: Final = 1
"""Administrative record type, RFC 9171 §6.1."""

STATUSES_COUNT: Final = 4
"""Statuses that RFC 9171 §6.1.1 defines."""

STATUSES_MAX: Final = 16
"""Most statuses that are read: room for what other standards may add, and a bound on the work."""

_FALSE: Final = 0xF4
_TRUE: Final = 0xF5


@unique
class Reason(IntEnum):
    """Why a status is what it is. RFC 9171 §9.5; 12 to 16: RFC 9172 §11.2."""

    NO_INFORMATION = 0
    LIFETIME_EXPIRED = 1
    UNIDIRECTIONAL_LINK = 2
    """Forwarded, and nobody will say that it arrived."""
    CANCELED = 3
    DEPLETED_STORAGE = 4
    DESTINATION_UNAVAILABLE = 5
    NO_ROUTE = 6
    NO_TIMELY_CONTACT = 7
    BLOCK_UNINTELLIGIBLE = 8
    HOP_LIMIT_EXCEEDED = 9
    TRAFFIC_PARED = 10
    BLOCK_UNSUPPORTED = 11
    MISSING_SECURITY_OPERATION = 12
    UNKNOWN_SECURITY_OPERATION = 13
    UNEXPECTED_SECURITY_OPERATION = 14
    FAILED_SECURITY_OPERATION = 15
    CONFLICTING_SECURITY_OPERATION = 16


@unique
class Status(IntEnum):
    """What may have happened to a bundle at the reporting node, in the order of RFC 9171 §6.1.1."""

    RECEIVED = 0
    FORWARDED = 1
    DELIVERED = 2
    DELETED = 3


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What a node says about a bundle. RFC 9171 §6.1.1."""

    source: Eid
    """Of the bundle that is spoken of."""
    creation: tuple[int, int]
    """Its creation timestamp: (DTN time [ms since 2000-01-01T00:00:00Z], sequence number)."""
    statuses: tuple[tuple[Status, int | None], ...]
    """(what happened, DTN time of it [ms since 2000-01-01T00:00:00Z] or None where none is said), rising."""
    reason: int = Reason.NO_INFORMATION
    """`Reason`, or a code that is not known here."""
    fragment: tuple[int, int] | None = None
    """(offset, length) [bytes] of a bundle that is a fragment."""

    def has(self, status: Status) -> bool:
        """Whether that happened."""
        return any(one is status for one, _ in self.statuses)

    def fields(self) -> dict[str, object]:
        """For a log."""
        return {
            "source": str(self.source),
            "created_ms": self.creation[0],
            "sequence": self.creation[1],
            "statuses": ",".join(status.name for status, _ in self.statuses),
            "reason": self.reason,
        }


def encode_status_report(report: StatusReport) -> bytes:
    """The payload of a bundle with this report."""
    times = dict(report.statuses)
    parts = [b"\x82", encode_head(UNSIGNED, RECORD_STATUS_REPORT)]
    parts += [encode_head(ARRAY, 4 if report.fragment is None else 6), encode_head(ARRAY, STATUSES_COUNT)]
    for status in Status:
        time_ms = times.get(status)
        if time_ms is not None:
            parts += [b"\x82", bytes((_TRUE,)), encode_head(UNSIGNED, time_ms)]
        else:
            parts += [b"\x81", bytes((_TRUE if status in times else _FALSE,))]
    parts += [encode_head(UNSIGNED, report.reason), encode_eid(report.source), b"\x82"]
    parts += [encode_head(UNSIGNED, number) for number in report.creation + (report.fragment or ())]
    return b"".join(parts)


def decode_status_report(payload: bytes) -> StatusReport:
    """The status report in exactly these bytes.

    Raises:
        BundleError: they are none, or a record of another type; names the field.
    """
    try:
        report, at = _read_report(payload)
    except MessageError as error:
        raise BundleError(f"administrative record: {error}") from None
    if at != len(payload):
        raise BundleError(f"administrative record: {len(payload) - at} bytes after it")
    return report


def _read_report(data: bytes) -> tuple[StatusReport, int]:
    at = _read_array(data, 0, "record", (2,))[1]
    record_type, at = read_head(data, at, UNSIGNED, "record type")
    if record_type != RECORD_STATUS_REPORT:
        raise MessageError(f"record type: {record_type}, only {RECORD_STATUS_REPORT} (status report) is known")
    elements_count, at = _read_array(data, at, "status report", (4, 6))
    statuses, at = _read_statuses(data, at)
    reason, at = read_head(data, at, UNSIGNED, "reason")
    source, at = read_eid(data, at, "source")
    at = _read_array(data, at, "creation timestamp", (2,))[1]
    time_ms, at = read_head(data, at, UNSIGNED, "creation time")
    sequence, at = read_head(data, at, UNSIGNED, "sequence number")
    fragment = None
    if elements_count == 6:
        offset, at = read_head(data, at, UNSIGNED, "fragment offset")
        length, at = read_head(data, at, UNSIGNED, "fragment length")
        fragment = (offset, length)
    return StatusReport(source, (time_ms, sequence), statuses, reason, fragment), at


def _read_statuses(data: bytes, at: int) -> tuple[tuple[tuple[Status, int | None], ...], int]:
    count, at = read_head(data, at, ARRAY, "status information")
    if not STATUSES_COUNT <= count <= STATUSES_MAX:
        raise MessageError(f"status information: {count} elements, {STATUSES_COUNT} to {STATUSES_MAX} are expected")
    statuses: list[tuple[Status, int | None]] = []
    for index in range(count):
        items_count, at = _read_array(data, at, "status", (1, 2))
        indicator = data[at] if at < len(data) else None
        if indicator not in (_FALSE, _TRUE):
            raise MessageError(f"status indicator: no boolean at byte {at}")
        at += 1
        time_ms = None
        if items_count == 2:
            if indicator == _FALSE:
                raise MessageError("status time: of something that is not asserted")
            time_ms, at = read_head(data, at, UNSIGNED, "status time")
        if indicator == _TRUE and index < STATUSES_COUNT:
            statuses.append((Status(index), time_ms))
    return tuple(statuses), at


def _read_array(data: bytes, at: int, field: str, counts: tuple[int, ...]) -> tuple[int, int]:
    count, at = read_head(data, at, ARRAY, field)
    if count not in counts:
        raise MessageError(f"{field}: {count} elements, {' or '.join(map(str, counts))} are expected")
    return count, at
