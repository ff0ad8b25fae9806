"""Bundles of the Bundle Protocol version 7 (RFC 9171): what travels from endpoint to endpoint over many hops.

A bundle is a CBOR array of indefinite length: the primary block, extension blocks in any order, and the payload block
last. Every block ends with its own CRC, or says that it has none.

| block | layout (RFC 9171 §4.3) |
|---|---|
| primary | [7, flags, crc type, destination, source, report-to, [time, sequence], lifetime, (offset, total), (crc)] |
| others | [type, number, flags, crc type, byte string with the block's data, (crc)] |

Previous node, age and hop count are read into fields of `Bundle`; all other extension blocks (security, and what we do
not know) are kept as `CanonicalBlock`. Blocks are read and written head by head, not through trees of objects: it is
several times faster, and CRCs and security need the very bytes. A forwarder changes only extension blocks: `forwarded`
copies the primary and payload blocks as they came.

Reading is strict: counts, ranges, CRCs and the rules on block numbers and flags hold, or `BundleError` names the block
and the field. It takes what other writers may do: CBOR heads longer than needed, other block orders, CRC types mixed.
"""

from dataclasses import dataclass, field
from enum import IntFlag
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from flightsw.errors import BundleError, MessageError
from flightsw.wire.cbor import ARRAY, BYTES, UNSIGNED, encode_head, read_bytes, read_head
from flightsw.wire.crc import CRC_16_X25 as CRC_16_X25
from flightsw.wire.crc import CRC_32C as CRC_32C
from flightsw.wire.crc import CRC_NONE as CRC_NONE
from flightsw.wire.crc import checked_crc, with_crc
from flightsw.wire.eids import DTN_NONE, SCHEME_DTN, Eid, encode_eid, read_eid

DTN_EPOCH_UTC_S: Final = 946_684_800
"""2000-01-01T00:00:00Z, where DTN time begins [s since 1970-01-01T00:00:00Z]. RFC 9171 §4.2.6."""

BUNDLE_BYTES_MAX: Final = 1_048_576
"""Longest bundle [bytes]: 64 object chunks. Whole bundles are held in memory, and boards are small."""

BUNDLE_BLOCKS_MAX: Final = 32
"""Most blocks in a bundle: a secured, forwarded bundle has 7. Bounds the work that one bundle may ask for."""

BLOCK_PAYLOAD: Final = 1
BLOCK_PREVIOUS_NODE: Final = 6
BLOCK_AGE: Final = 7
BLOCK_HOP_COUNT: Final = 10
"""Block types, RFC 9171 §9.1."""

SHORT_PRIMARY_BYTES: Final = 22
"""Bytes of a primary block up to its creation timestamp, where two endpoints take seven each and nobody gets a report;
of shorter ones the rest is the upper bytes of the time, which change once in 49 days. Longer ones are read slowly."""

LONG_PRIMARY_BYTES: Final = 192
"""More than any primary block has up to there [bytes]: five heads, and three endpoints of five, of 9 bytes each."""

SHORT_START_BYTES: Final = 6
"""Bytes that say what a block is: five heads, of which the type's may take two. Longer ones are read, but slowly."""

HOP_LIMIT_MAX: Final = 255
"""Largest hop limit; the smallest is 1. RFC 9171 §4.4.3."""


class BundleFlags(IntFlag):
    """Bundle processing control flags, RFC 9171 §4.2.3."""

    FRAGMENT = 0x01
    ADMINISTRATIVE_RECORD = 0x02
    MUST_NOT_FRAGMENT = 0x04
    ACKNOWLEDGE_BY_APPLICATION = 0x20
    STATUS_TIME = 0x40
    REPORT_RECEPTION = 0x4000
    REPORT_FORWARDING = 0x1_0000
    REPORT_DELIVERY = 0x2_0000
    REPORT_DELETION = 0x4_0000


class BlockFlags(IntFlag):
    """Block processing control flags, RFC 9171 §4.2.4."""

    REPLICATE_IN_FRAGMENTS = 0x01
    REPORT_IF_UNPROCESSED = 0x02
    DELETE_BUNDLE_IF_UNPROCESSED = 0x04
    DISCARD_BLOCK_IF_UNPROCESSED = 0x10


# Plain integers, because operations on IntFlag members are slow.
_FRAGMENT: Final = 0x01
_ADMINISTRATIVE: Final = 0x02
_MUST_NOT_FRAGMENT: Final = 0x04
_REPORTS: Final = 0x7_4000

BlockHead: TypeAlias = tuple[int, int, int]
"""Number, flags and CRC type of a block."""

_PrimaryStart: TypeAlias = tuple[int, int, Eid, Eid, Eid, int]
"""Flags, CRC type, destination, source, report-to, and the offset after them."""

DEFAULT_HEADS: Final[tuple[BlockHead, BlockHead, BlockHead]] = ((2, 0, CRC_NONE), (3, 1, CRC_NONE), (4, 1, CRC_NONE))
"""Of our previous node, age and hop count blocks. They change at every hop, between links that check all they carry, so
a CRC of their own (6 bytes each) would guard little. Age and hop count belong in every fragment."""


class CanonicalBlock(NamedTuple):
    """An extension block that this module does not interpret. RFC 9171 §4.3.2."""

    type: int
    number: int
    """At least 2, unique in the bundle; security blocks refer to it."""
    flags: int
    """`BlockFlags`."""
    crc_type: int
    data: bytes
    """The block's data, without the byte string's head."""


@dataclass(slots=True)
class Bundle:
    """A bundle. Leave a decoded one as it is and derive others by `dataclasses.replace`, which drops the raw blocks."""

    destination: Eid
    source: Eid
    report_to: Eid
    creation: tuple[int, int]
    """(DTN time [ms since 2000-01-01T00:00:00Z], sequence number). Time 0: the source has no clock. RFC 9171 §4.4.2
    then asks for an age, but reading does not insist: RFC 9173's examples have none."""
    lifetime_ms: int
    """How long after its creation the bundle is worth carrying [ms]. RFC 9171 §4.3.1."""
    payload: bytes
    flags: int = 0
    """`BundleFlags`."""
    crc_type: int = CRC_32C
    """Of the primary block."""
    payload_crc_type: int = CRC_32C
    payload_flags: int = 0
    """`BlockFlags` of the payload block."""
    fragment_offset: int = 0
    """Where the payload begins in the whole one [bytes]; only where the fragment flag is set."""
    total_length: int = 0
    """Length of the whole payload [bytes]; only where the fragment flag is set."""
    previous_node: Eid | None = None
    """Who forwarded the bundle to us. RFC 9171 §4.4.1."""
    age_ms: int | None = None
    """Time since creation, as the nodes on its way have added it up [ms]. RFC 9171 §4.4.2."""
    hop_count: tuple[int, int] | None = None
    """(limit, hops made). A bundle with more hops than its limit is to be deleted. RFC 9171 §4.4.3."""
    blocks: tuple[CanonicalBlock, ...] = ()
    """All other extension blocks, in order."""
    heads: tuple[BlockHead, BlockHead, BlockHead] = DEFAULT_HEADS
    """Of the previous node, age and hop count blocks; kept, because security blocks refer to block numbers."""
    primary_bytes: bytes = field(init=False, default=b"", repr=False, compare=False)
    """The primary block as it came, or as it was signed; empty otherwise."""
    payload_block_bytes: bytes = field(init=False, default=b"", repr=False, compare=False)
    """The payload block as it came, or as it was signed; empty otherwise."""


def encode_bundle(bundle: Bundle) -> bytes:
    """The bytes of a bundle, all blocks written anew.

    Raises:
        BundleError: the bundle would be longer than `BUNDLE_BYTES_MAX`.
    """
    return _assembled(
        bundle,
        primary_block(bundle),
        _payload_block(bundle),
        bundle.previous_node,
        bundle.age_ms,
        bundle.hop_count,
    )


def departing(bundle: Bundle, age_ms: int) -> bytes:
    """The bytes of a bundle of our own as it leaves: with the age that it has then, and the blocks that were signed.

    Raises:
        BundleError: the bundle would be longer than `BUNDLE_BYTES_MAX`.
    """
    return _assembled(
        bundle,
        bundle.primary_bytes or primary_block(bundle),
        bundle.payload_block_bytes or _payload_block(bundle),
        bundle.previous_node,
        age_ms,
        bundle.hop_count,
    )


def forwarded(bundle: Bundle, previous_node: Eid, age_ms: int | None = None) -> bytes:
    """The bytes that a forwarder sends on: its own previous node block, the age, one hop more, all else as it came.

    Args:
        bundle: a decoded bundle. Whether its hops or lifetime are used up is the caller's question.
        previous_node: the forwarder.
        age_ms: the new age [ms]; None leaves the age as it came. A bundle that came without one goes without.

    Raises:
        BundleError: the bundle would be longer than `BUNDLE_BYTES_MAX`.
    """
    hop_count = bundle.hop_count
    return _assembled(
        bundle,
        bundle.primary_bytes or primary_block(bundle),
        bundle.payload_block_bytes or _payload_block(bundle),
        previous_node,
        bundle.age_ms if age_ms is None or bundle.age_ms is None else age_ms,
        None if hop_count is None else (hop_count[0], hop_count[1] + 1),
    )


def _assembled(
    bundle: Bundle,
    primary: bytes,
    payload_block: bytes,
    previous_node: Eid | None,
    age_ms: int | None,
    hop_count: tuple[int, int] | None,
) -> bytes:
    parts = [b"\x9f", primary]
    heads = bundle.heads
    if previous_node is not None:
        parts.append(encode_block(BLOCK_PREVIOUS_NODE, heads[0], encode_eid(previous_node)))
    if age_ms is not None:
        parts.append(encode_block(BLOCK_AGE, heads[1], encode_head(UNSIGNED, age_ms)))
    if hop_count is not None:
        parts.append(_hop_count_block(heads[2], *hop_count))
    if bundle.blocks:
        numbers = [block.number for block in bundle.blocks] + [head[0] for head in heads]
        assert len(dict.fromkeys(numbers)) == len(numbers), f"block numbers repeat in {bundle!r}"
        parts += [encode_block(block.type, block[1:4], block.data) for block in bundle.blocks]
    parts.append(payload_block)
    parts.append(b"\xff")
    data = b"".join(parts)
    if len(data) > BUNDLE_BYTES_MAX:
        raise BundleError(f"payload block: the bundle would be {len(data)} bytes, at most {BUNDLE_BYTES_MAX} are taken")
    return data


@lru_cache(maxsize=1024)  # limits are few and counts are small
def _hop_count_block(head: BlockHead, limit: int, count: int) -> bytes:
    assert 1 <= limit <= HOP_LIMIT_MAX, f"hop limit {limit}"
    return encode_block(BLOCK_HOP_COUNT, head, b"\x82" + encode_head(UNSIGNED, limit) + encode_head(UNSIGNED, count))


def primary_block(bundle: Bundle) -> bytes:
    """The primary block, written anew."""
    flags = bundle.flags
    time_ms, sequence = bundle.creation
    body = (
        _primary_start(int(flags), bundle.crc_type, bundle.destination, bundle.source, bundle.report_to)
        + encode_head(UNSIGNED, time_ms)
        + encode_head(UNSIGNED, sequence)
        + encode_head(UNSIGNED, bundle.lifetime_ms)
    )
    if flags & _FRAGMENT:
        assert bundle.fragment_offset + len(bundle.payload) <= bundle.total_length, "a fragment is part of the whole"
        body += encode_head(UNSIGNED, bundle.fragment_offset) + encode_head(UNSIGNED, bundle.total_length)
    return with_crc(body, bundle.crc_type)


@lru_cache(maxsize=4096)  # the same for all bundles of a flow; a node has far fewer flows
def _primary_start(flags: int, crc_type: int, destination: Eid, source: Eid, report_to: Eid) -> bytes:
    """The primary block up to and with the head of the creation timestamp."""
    assert _flags_fault(flags, source) is None, _flags_fault(flags, source)
    head = encode_head(ARRAY, _primary_count(flags, crc_type)) + b"\x07"
    head += encode_head(UNSIGNED, flags) + encode_head(UNSIGNED, crc_type)
    return head + encode_eid(destination) + encode_eid(source) + encode_eid(report_to) + b"\x82"


def encode_block(block_type: int, head: BlockHead, data: bytes) -> bytes:
    """The bytes of a block that is not the primary one."""
    block = _block_start(block_type, head) + encode_head(BYTES, len(data)) + data
    return block if head[2] == CRC_NONE else with_crc(block, head[2])


def _payload_block(bundle: Bundle) -> bytes:
    return encode_block(BLOCK_PAYLOAD, (1, bundle.payload_flags, bundle.payload_crc_type), bundle.payload)


@lru_cache(maxsize=256)  # block types and numbers in use are a handful
def _block_start(block_type: int, head: BlockHead) -> bytes:
    number, flags, crc_type = head
    return encode_head(ARRAY, 5 if crc_type == CRC_NONE else 6) + b"".join(
        [encode_head(UNSIGNED, value) for value in (block_type, number, int(flags), crc_type)]
    )


def _primary_count(flags: int, crc_type: int) -> int:
    """Elements of a primary block."""
    return 8 + (2 if flags & _FRAGMENT else 0) + (0 if crc_type == CRC_NONE else 1)


def _flags_fault(flags: int, source: Eid) -> str | None:
    """What RFC 9171 §4.2.3 finds wrong with the flags."""
    if flags & _REPORTS and (flags & _ADMINISTRATIVE or source == DTN_NONE):
        return "flags: administrative records and bundles of dtn:none must not ask for status reports"
    if source == DTN_NONE and not flags & _MUST_NOT_FRAGMENT:
        return "flags: a bundle of dtn:none must not be fragmented"
    return None


def decode_bundle(data: bytes) -> Bundle:
    """The bundle in exactly these bytes.

    Raises:
        BundleError: they are not one bundle of RFC 9171, or a CRC does not hold; names the block and the field.
    """
    if len(data) > BUNDLE_BYTES_MAX:
        raise BundleError(f"bundle: {len(data)} bytes, at most {BUNDLE_BYTES_MAX} are taken")
    if data[:1] != b"\x9f":
        raise BundleError("bundle: no CBOR array of indefinite length")
    try:
        bundle, at = _read_primary(data)
    except MessageError as error:
        raise BundleError(f"primary block: {error}") from None

    numbers: list[int] = []
    blocks: list[CanonicalBlock] = []
    known: dict[int, BlockHead] = {}
    while True:
        start = at
        try:
            block, at = _read_block(data, at)
            if block.number in numbers:
                raise MessageError(f"number: {block.number} is taken")
            numbers.append(block.number)
            if block.type == BLOCK_PAYLOAD:
                break
            if len(numbers) == BUNDLE_BLOCKS_MAX - 1:
                raise MessageError(f"number: more than {BUNDLE_BLOCKS_MAX} blocks")
            if block.type not in (BLOCK_PREVIOUS_NODE, BLOCK_AGE, BLOCK_HOP_COUNT):
                blocks.append(block)
                continue
            if block.type in known:
                raise MessageError("type: the bundle has such a block already")
            known[block.type] = block[1:4]
            _interpret(bundle, block)
        except MessageError as error:
            raise BundleError(f"block at byte {start}: {error}") from None
    _finish(bundle, block, numbers, known)
    if blocks:
        bundle.blocks = tuple(blocks)
    bundle.payload_block_bytes = data[start:at]
    if data[at:] != b"\xff":
        raise BundleError("bundle: array and data must end after the payload block")
    return bundle


def _read_primary(data: bytes) -> tuple[Bundle, int]:
    """The bundle so far, and the offset after its primary block."""
    start = _read_short_primary(data[1 : 1 + SHORT_PRIMARY_BYTES])
    if start is None:
        start = _read_primary_start(data[1 : 1 + LONG_PRIMARY_BYTES])
    flags, crc_type, destination, source, report_to, start_bytes = start
    time_ms, at = read_head(data, 1 + start_bytes, UNSIGNED, "creation time")
    sequence, at = read_head(data, at, UNSIGNED, "sequence number")
    lifetime_ms, at = read_head(data, at, UNSIGNED, "lifetime")
    offset = total_length = 0
    if flags & _FRAGMENT:
        offset, at = read_head(data, at, UNSIGNED, "fragment offset")
        total_length, at = read_head(data, at, UNSIGNED, "total length")
    at = checked_crc(data, 1, at, crc_type)
    fault = _flags_fault(flags, source) if flags or source.scheme == SCHEME_DTN else None
    if fault is not None:
        raise MessageError(fault)
    bundle = Bundle(destination, source, report_to, (time_ms, sequence), lifetime_ms, b"", flags, crc_type)
    bundle.fragment_offset = offset
    bundle.total_length = total_length
    bundle.primary_bytes = data[1:at]
    return bundle, at


@lru_cache(maxsize=4096)  # the same for all bundles of a flow; noise only drives them out
def _read_short_primary(start: bytes) -> _PrimaryStart | None:
    """What `_read_primary_start` reads from so few bytes; None when it takes more of them, or is wrong."""
    try:
        return _read_primary_start(start)
    except MessageError:
        return None


def _read_primary_start(data: bytes) -> _PrimaryStart:
    """The primary block up to and with the head of the creation timestamp."""
    elements_count, at = read_head(data, 0, ARRAY, "array")
    version, at = read_head(data, at, UNSIGNED, "version")
    if version != 7:
        raise MessageError(f"version: {version}, 7 is expected")
    flags, at = read_head(data, at, UNSIGNED, "flags")
    crc_type, at = read_head(data, at, UNSIGNED, "CRC type")
    if elements_count != _primary_count(flags, crc_type):
        raise MessageError(f"array: {elements_count} elements, {_primary_count(flags, crc_type)} are expected")
    destination, at = read_eid(data, at, "destination")
    source, at = read_eid(data, at, "source")
    report_to, at = read_eid(data, at, "report-to")
    pair_count, at = read_head(data, at, ARRAY, "creation timestamp")
    if pair_count != 2:
        raise MessageError(f"creation timestamp: {pair_count} elements, 2 are expected")
    return flags, crc_type, destination, source, report_to, at


def _read_block(data: bytes, start: int) -> tuple[CanonicalBlock, int]:
    """The block at the offset, and the offset after it."""
    short = _read_short_start(data[start : start + SHORT_START_BYTES])
    if short is None:
        block_type, number, flags, crc_type, at = _read_block_start(data, start)
    else:
        block_type, number, flags, crc_type, start_bytes = short
        at = start + start_bytes
    length = data[at] - BYTES if at < len(data) else -1
    if 0 <= length < 24 and at + 1 + length <= len(data):  # nearly all but payloads
        content, at = data[at + 1 : at + 1 + length], at + 1 + length
    else:
        content, at = read_bytes(data, at, "data")
    if crc_type != CRC_NONE:
        at = checked_crc(data, start, at, crc_type)
    return CanonicalBlock(block_type, number, flags, crc_type, content), at


@lru_cache(maxsize=256)  # the same few for all bundles of a fleet; noise only drives them out
def _read_short_start(start: bytes) -> tuple[int, int, int, int, int] | None:
    """What `_read_block_start` reads from so few bytes; None when it takes more of them, or is wrong."""
    try:
        return _read_block_start(start, 0)
    except MessageError:
        return None


def _read_block_start(data: bytes, start: int) -> tuple[int, int, int, int, int]:
    """Type, number, flags and CRC type of the block at the offset, and the offset after them."""
    elements_count, at = read_head(data, start, ARRAY, "array")
    block_type, at = read_head(data, at, UNSIGNED, "type")
    number, at = read_head(data, at, UNSIGNED, "number")
    flags, at = read_head(data, at, UNSIGNED, "flags")
    crc_type, at = read_head(data, at, UNSIGNED, "CRC type")
    if elements_count != (5 if crc_type == CRC_NONE else 6):
        raise MessageError(f"array: {elements_count} elements do not fit CRC type {crc_type}")
    if number == 0 or (number == 1) is not (block_type == BLOCK_PAYLOAD):
        raise MessageError(
            f"number: {number} for type {block_type}; 1 is the payload block's and its alone, 0 nobody's"
        )
    return block_type, number, flags, crc_type, at


def _interpret(bundle: Bundle, block: CanonicalBlock) -> None:
    """Reads a previous node, age or hop count block into the bundle."""
    data = block.data
    if block.type == BLOCK_AGE:
        bundle.age_ms, end = read_head(data, 0, UNSIGNED, "age")
    elif block.type == BLOCK_HOP_COUNT:
        bundle.hop_count, end = _read_hop_count(data)
    else:
        bundle.previous_node, end = read_eid(data, 0, "previous node")
    if end != len(data):
        raise MessageError(f"data: {len(data) - end} bytes after the value")


@lru_cache(maxsize=1024)  # limits are few and counts are small; noise only drives them out
def _read_hop_count(data: bytes) -> tuple[tuple[int, int], int]:
    """(limit, hops made), and the offset after them."""
    pair_count, end = read_head(data, 0, ARRAY, "hop count")
    limit, end = read_head(data, end, UNSIGNED, "hop limit")
    if pair_count != 2 or not 1 <= limit <= HOP_LIMIT_MAX:
        raise MessageError(f"hop limit: {limit}, from 1 to {HOP_LIMIT_MAX} are allowed")
    count, end = read_head(data, end, UNSIGNED, "hop count")
    return (limit, count), end


def _finish(bundle: Bundle, payload: CanonicalBlock, numbers: list[int], known: dict[int, BlockHead]) -> None:
    """Takes over the payload and settles what needs all blocks."""
    bundle.payload = payload.data
    bundle.payload_flags = payload.flags
    bundle.payload_crc_type = payload.crc_type
    if bundle.flags & _FRAGMENT and bundle.fragment_offset + len(payload.data) > bundle.total_length:
        raise BundleError(f"primary block: total length: {bundle.total_length} is less than the fragment's end")
    heads = []
    for block_type, default in zip((BLOCK_PREVIOUS_NODE, BLOCK_AGE, BLOCK_HOP_COUNT), DEFAULT_HEADS, strict=True):
        head = known.get(block_type)
        if head is None:  # not there yet: give it a number that nobody has
            head = default if default[0] not in numbers else (_free_number(numbers), default[1], default[2])
            numbers.append(head[0])
        heads.append(head)
    bundle.heads = (heads[0], heads[1], heads[2])


def _free_number(numbers: list[int]) -> int:
    """The least block number that is not taken. One above the largest would be past 64 bits if the sender so wished."""
    return next(number for number in range(2, len(numbers) + 3) if number not in numbers)
