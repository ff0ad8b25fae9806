"""LTP segments (RFC 5326): the reliable (red) and best-effort (green) pieces of blocks, and what steers them.

Every segment is `control | originator | session number | extension counts | header extensions | content | trailer
extensions`. The control byte holds version 0 and the segment type in four bits each; every other number is an SDNV but
the extension counts (four bits each), extension tags and the cancel reason (one byte each). RFC 5326 §3.

| type | content | here |
|---|---|---|
| 0-3 | red data: plain, checkpoint, + end of red part, + end of block | `DataSegment` |
| 4, 7 | green data: plain, end of block | `DataSegment` |
| 8 | report serial, checkpoint serial, upper bound, lower bound, claims | `ReportSegment` |
| 9 | report serial | `ReportAck` |
| 12, 14 | reason: cancel by sender, by receiver | `CancelSegment` |
| 13, 15 | nothing: acknowledges 12, 14 | `CancelAck` |

Extensions (authentication and cookies, RFC 5327) are skipped on reading and never written: security lives in bundles.
Reading is strict: a segment that is not exactly as long as its fields say, or whose numbers contradict each other, is a
`SegmentError` that names the field; RFC 5326 §6 has such segments discarded. One thing is taken that §3.2.2 has no name
for: a report without claims, which says that nothing of its range has arrived. Writing asserts the same rules: a wrong
segment of ours is our mistake.
"""

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final, TypeAlias

from flightsw.errors import SegmentError
from flightsw.wire.sdnv import SDNV_VALUE_MAX, decode_sdnv, encode_sdnv

SessionId: TypeAlias = tuple[int, int]
"""Originator (engine number of the block's sender) and session number. RFC 5326 §3.1."""


@unique
class CancelReason(IntEnum):
    """Why a session is cancelled, RFC 5326 §3.2.4."""

    USR_CNCLD = 0
    """The client service cancelled."""
    UNREACH = 1
    """No such client service."""
    RLEXC = 2
    """A checkpoint or report was sent as often as allowed without an answer."""
    MISCOLORED = 3
    """Red data above green data, or green below red."""
    SYS_CNCLD = 4
    """A fault of the system."""
    RXMTCYCEXC = 5
    """Too many rounds of retransmission."""


@dataclass(slots=True)
class DataSegment:
    """A piece of a block. RFC 5326 §3.2.1."""

    session: SessionId
    red: bool
    """Reliable; green is best effort."""
    checkpoint: bool
    """Asks for a report. Only red data."""
    end_of_red: bool
    """The red part ends here; such a segment is a checkpoint."""
    end_of_block: bool
    """The block ends here. Red data at the end of a block are also the end of the red part."""
    client_service: int
    offset: int
    """Where in the block the data begin [bytes]."""
    data: bytes
    checkpoint_serial: int = 0
    """Number of the checkpoint, at least 1; 0 where the segment is none."""
    report_serial: int = 0
    """The report that this checkpoint answers; 0 when none."""


@dataclass(slots=True)
class ReportSegment:
    """What of a range of the red part has arrived. RFC 5326 §3.2.2."""

    session: SessionId
    report_serial: int
    """Number of the report, at least 1."""
    checkpoint_serial: int
    """The checkpoint that it answers; 0 when none asked."""
    upper: int
    """End of the range that the report speaks of [bytes from the start of the block]."""
    lower: int
    """Start of that range [bytes from the start of the block]."""
    claims: tuple[tuple[int, int], ...]
    """What has arrived: (offset relative to `lower`, length) [bytes]; rising, never touching, none empty."""


@dataclass(slots=True)
class ReportAck:
    """A report has arrived. RFC 5326 §3.2.3."""

    session: SessionId
    report_serial: int


@dataclass(slots=True)
class CancelSegment:
    """The session is over. RFC 5326 §3.2.4."""

    session: SessionId
    reason: CancelReason
    by_sender: bool
    """The block's sender cancels; otherwise its receiver does."""


@dataclass(slots=True)
class CancelAck:
    """A cancel segment has arrived; it has no content. RFC 5326 §3.2.4."""

    session: SessionId
    by_sender: bool
    """It answers a cancel by the block's sender."""


Segment: TypeAlias = DataSegment | ReportSegment | ReportAck | CancelSegment | CancelAck

_REPORT: Final = 8
_REPORT_ACK: Final = 9
_CANCEL_BY_SENDER: Final = 12
_CANCEL_BY_RECEIVER: Final = 14

# (red, checkpoint, end of red part, end of block) of the data types; RFC 5326 §3.1.2.
_DATA_FLAGS: Final = {
    0: (True, False, False, False),
    1: (True, True, False, False),
    2: (True, True, True, False),
    3: (True, True, True, True),
    4: (False, False, False, False),
    7: (False, False, False, True),
}
_CONTROL_BYTES: Final = {flags: bytes((kind,)) for kind, flags in _DATA_FLAGS.items()}
_NO_EXTENSIONS: Final = b"\0"


def encode_segment(segment: Segment) -> bytes:
    """The bytes of a segment."""
    originator, number = segment.session
    session = encode_sdnv(originator) + encode_sdnv(number) + _NO_EXTENSIONS
    if type(segment) is DataSegment:
        return _encode_data(segment, session)
    if type(segment) is ReportSegment:
        return _encode_report(segment, session)
    if type(segment) is ReportAck:
        assert segment.report_serial > 0, "report serials begin at 1"
        return bytes((_REPORT_ACK,)) + session + encode_sdnv(segment.report_serial)
    if type(segment) is CancelSegment:
        kind = _CANCEL_BY_SENDER if segment.by_sender else _CANCEL_BY_RECEIVER
        return bytes((kind,)) + session + bytes((segment.reason,))
    assert type(segment) is CancelAck, f"{segment!r} is no segment"
    kind = _CANCEL_BY_SENDER if segment.by_sender else _CANCEL_BY_RECEIVER
    return bytes((kind + 1,)) + session


def _encode_data(segment: DataSegment, session: bytes) -> bytes:
    checkpoint = segment.checkpoint
    flags = (segment.red, checkpoint, segment.end_of_red, segment.end_of_block)
    control = _CONTROL_BYTES.get(flags)
    assert control is not None, f"no segment type is (red, checkpoint, end of red, end of block) = {flags}"
    data = segment.data
    head = control + session + encode_sdnv(segment.client_service) + encode_sdnv(segment.offset)
    if not checkpoint:
        return head + encode_sdnv(len(data)) + data
    assert segment.checkpoint_serial > 0, "checkpoint serials begin at 1"
    serials = encode_sdnv(segment.checkpoint_serial) + encode_sdnv(segment.report_serial)
    return head + encode_sdnv(len(data)) + serials + data


def _encode_report(segment: ReportSegment, session: bytes) -> bytes:
    assert segment.report_serial > 0, "report serials begin at 1"
    assert _claims_fault(segment.claims, segment.upper - segment.lower) is None, f"claims of {segment!r}"
    parts = [
        bytes((_REPORT,)) + session,
        encode_sdnv(segment.report_serial),
        encode_sdnv(segment.checkpoint_serial),
        encode_sdnv(segment.upper),
        encode_sdnv(segment.lower),
        encode_sdnv(len(segment.claims)),
    ]
    for offset, length in segment.claims:
        parts.append(encode_sdnv(offset))
        parts.append(encode_sdnv(length))
    return b"".join(parts)


def decode_segment(data: bytes) -> Segment:
    """The segment in exactly these bytes.

    Raises:
        SegmentError: they are not one segment of RFC 5326; names the field.
    """
    segment, end = _read_segment(data, 0)
    if end != len(data):
        raise SegmentError(f"length: {len(data) - end} bytes after the segment")
    return segment


def split_segments(data: bytes) -> list[bytes]:
    """The segments in these bytes, each by itself, still encoded.

    A datagram holds an integral number of segments (RFC 5326 §5); nearly always it is one.

    Raises:
        SegmentError: they are not whole segments one after the other; names the field.
    """
    segments: list[bytes] = []
    start = 0
    while start < len(data) or not segments:
        _, end = _read_segment(data, start)
        segments.append(data[start:end])
        start = end
    return segments


def _read_segment(data: bytes, start: int) -> tuple[Segment, int]:
    """The segment at the offset, and the offset after it."""
    if start >= len(data):
        raise SegmentError("control: the segment is empty")
    kind = data[start]
    if kind > 0x0F:
        raise SegmentError(f"version: {kind >> 4}, only 0 is defined")
    originator, at = decode_sdnv(data, start + 1, "originator")
    number, at = decode_sdnv(data, at, "session number")
    if at >= len(data):
        raise SegmentError("extension counts: the data end")
    extension_counts = data[at]
    at += 1
    if extension_counts:
        at = _skip_extensions(data, at, extension_counts >> 4, "header extension")
    trailers_count = extension_counts & 0x0F
    session = (originator, number)

    segment: Segment
    flags = _DATA_FLAGS.get(kind)
    if flags is not None:
        segment, at = _decode_data(data, at, session, flags)
    elif kind == _REPORT:
        segment, at = _decode_report(data, at, session)
    elif kind == _REPORT_ACK:
        serial, at = _decode_serial(data, at, "report serial")
        segment = ReportAck(session, serial)
    elif kind in (_CANCEL_BY_SENDER, _CANCEL_BY_RECEIVER):
        if at >= len(data):
            raise SegmentError("cancel reason: the data end")
        if data[at] > CancelReason.RXMTCYCEXC:
            raise SegmentError(f"cancel reason: {data[at]} is reserved")
        segment = CancelSegment(session, CancelReason(data[at]), kind == _CANCEL_BY_SENDER)
        at += 1
    elif kind in (_CANCEL_BY_SENDER + 1, _CANCEL_BY_RECEIVER + 1):
        segment = CancelAck(session, kind == _CANCEL_BY_SENDER + 1)
    else:
        raise SegmentError(f"type: {kind} is undefined")

    if trailers_count:
        at = _skip_extensions(data, at, trailers_count, "trailer extension")
    return segment, at


def _decode_data(
    data: bytes, at: int, session: SessionId, flags: tuple[bool, bool, bool, bool]
) -> tuple[DataSegment, int]:
    red, checkpoint, end_of_red, end_of_block = flags
    client_service, at = decode_sdnv(data, at, "client service")
    offset, at = decode_sdnv(data, at, "offset")
    length, at = decode_sdnv(data, at, "data length")
    checkpoint_serial = report_serial = 0
    if checkpoint:
        checkpoint_serial, at = _decode_serial(data, at, "checkpoint serial")
        report_serial, at = decode_sdnv(data, at, "report serial")
    end = at + length
    if end > len(data):
        raise SegmentError(f"data length: {length} bytes are announced, {len(data) - at} are there")
    if offset + length > SDNV_VALUE_MAX:
        raise SegmentError(f"offset: {offset} leaves no room for {length} bytes within 64 bits")
    piece = data[at:end]
    segment = DataSegment(
        session,
        red,
        checkpoint,
        end_of_red,
        end_of_block,
        client_service,
        offset,
        piece,
        checkpoint_serial,
        report_serial,
    )
    return segment, end


def _decode_report(data: bytes, at: int, session: SessionId) -> tuple[ReportSegment, int]:
    report_serial, at = _decode_serial(data, at, "report serial")
    checkpoint_serial, at = decode_sdnv(data, at, "checkpoint serial")
    upper, at = decode_sdnv(data, at, "upper bound")
    lower, at = decode_sdnv(data, at, "lower bound")
    claims_count, at = decode_sdnv(data, at, "claim count")
    if claims_count > (len(data) - at) // 2:
        raise SegmentError(f"claim count: {claims_count} claims do not fit {len(data) - at} bytes")
    claims = []
    for _ in range(claims_count):
        offset, at = decode_sdnv(data, at, "claim offset")
        length, at = decode_sdnv(data, at, "claim length")
        claims.append((offset, length))
    fault = _claims_fault(claims, upper - lower)
    if fault is not None:
        raise SegmentError(fault)
    return ReportSegment(session, report_serial, checkpoint_serial, upper, lower, tuple(claims)), at


def _decode_serial(data: bytes, at: int, field: str) -> tuple[int, int]:
    serial, at = decode_sdnv(data, at, field)
    if serial == 0:
        raise SegmentError(f"{field}: serials begin at 1")
    return serial, at


def _skip_extensions(data: bytes, at: int, count: int, field: str) -> int:
    """The offset after that many extensions of `tag | length | value`. RFC 5326 §3.1.4."""
    for _ in range(count):
        length, at = decode_sdnv(data, at + 1, field)
        at += length
    if at > len(data):
        raise SegmentError(f"{field}: the data end inside it")
    return at


def _claims_fault(claims: list[tuple[int, int]] | tuple[tuple[int, int], ...], span: int) -> str | None:
    """What is wrong with claims on a range of that many bytes, by the rules of RFC 5326 §3.2.2."""
    if span < 0:
        return "upper bound: below the lower bound"
    end = -1
    for offset, length in claims:
        if length == 0:
            return "claim length: a claim is of at least one byte"
        if offset <= end:
            return f"claim offset: {offset} is not beyond the end {end} of the claim before it"
        end = offset + length
    if end > span:
        return f"claim length: a claim ends at {end}, beyond the {span} bytes of the report"
    return None
