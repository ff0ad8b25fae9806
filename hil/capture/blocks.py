"""From captured LTP segments to blocks, and from blocks to bundles.

A capture may hold anything, in any order, or the middle of something: blocks that never end give way to newer ones, so
that memory stays bounded.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from flightsw.errors import MessageError
from flightsw.net.coverage import Coverage
from flightsw.wire.bundles import BUNDLE_BLOCKS_MAX, BUNDLE_BYTES_MAX
from flightsw.wire.cbor import ARRAY, BYTES, read_head
from flightsw.wire.segments import CancelSegment, DataSegment, Segment, SessionId

OPEN_BYTES_MAX: Final = 67_108_864
"""Segments of unfinished blocks that are kept [bytes]: 64 of the longest blocks at once."""

FINISHED_MAX: Final = 65_536
"""Blocks that were given and are known when a segment comes again: those of an hour of a busy fleet."""

_SEGMENT_OVERHEAD_BYTES: Final = 256
"""What a segment costs beside its data, so that many short ones are bounded too [bytes]."""

_ARRAY_OF_ANY_LENGTH: Final = 0x9F
_BREAK: Final = 0xFF
_NEST_MAX: Final = 16
"""Deepest nesting in a bundle's block: endpoints and timestamps need three."""

SessionKey = tuple[SessionId, str, str]
"""(session, source address, target address)"""


@dataclass(slots=True)
class _Open:
    """A block of which segments have come."""

    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    end: int | None = None
    held_bytes: int = 0


class Blocks:
    """Puts blocks together."""

    def __init__(self) -> None:
        self._open: OrderedDict[SessionKey, _Open] = OrderedDict()
        self._finished: OrderedDict[SessionKey, None] = OrderedDict()
        self._held_bytes = 0
        self.given_up_count = 0
        """Unfinished blocks that gave way to newer ones, or were longer than a bundle may be."""

    @property
    def open_count(self) -> int:
        """Blocks of which segments are missing."""
        return len(self._open)

    def add(self, segment: Segment, source: str, target: str) -> bytes | None:
        """Take a segment. Returns the block that it completes, once.

        Args:
            segment: of whatever type.
            source: address of its sender.
            target: address of its receiver.
        """
        if isinstance(segment, CancelSegment):
            # the block's receiver cancels on the way back
            ends = (source, target) if segment.by_sender else (target, source)
            self._forget((segment.session, *ends))
            return None
        if not isinstance(segment, DataSegment):
            return None
        key = (segment.session, source, target)
        if key in self._finished:
            return None
        if segment.end_of_block and segment.offset == 0:  # the most by far
            self._finish(key)
            return segment.data
        return self._add_piece(key, segment)

    def _add_piece(self, key: SessionKey, segment: DataSegment) -> bytes | None:
        end = segment.offset + len(segment.data)
        if end > BUNDLE_BYTES_MAX:
            self._give_up(key)
            return None
        block = self._open.get(key)
        if block is None:
            block = self._open[key] = _Open()
        if not block.coverage.covers(segment.offset, end):
            block.coverage.add(segment.offset, end)
            block.pieces.append((segment.offset, segment.data))
            block.held_bytes += len(segment.data) + _SEGMENT_OVERHEAD_BYTES
            self._held_bytes += len(segment.data) + _SEGMENT_OVERHEAD_BYTES
        if segment.end_of_block:
            block.end = end
        if block.end is not None and block.coverage.covers(0, block.end):
            data = bytearray(block.end)
            for offset, piece in block.pieces:
                data[offset : offset + len(piece)] = piece
            self._finish(key)
            return bytes(data[: block.end])
        while self._held_bytes > OPEN_BYTES_MAX:
            self._give_up(next(iter(self._open)))
        return None

    def _finish(self, key: SessionKey) -> None:
        self._forget(key)
        self._finished[key] = None
        if len(self._finished) > FINISHED_MAX:
            self._finished.popitem(last=False)

    def _give_up(self, key: SessionKey) -> None:
        self._forget(key)
        self.given_up_count += 1

    def _forget(self, key: SessionKey) -> None:
        block = self._open.pop(key, None)
        if block is not None:
            self._held_bytes -= block.held_bytes


def bundles_in(block: bytes) -> list[bytes]:
    """The bundles in a block: one in ours, several in a row where a sender aggregates (CCSDS 734.1-B §3.7 allows it).

    What is no CBOR of a bundle's shape ends the list as its last member, for the bundle codec to say what is wrong.
    """
    bundles, at = [], 0
    while at < len(block):
        try:
            end = _bundle_end(block, at)
        except MessageError:
            end = len(block)
        bundles.append(block[at:end])
        at = end
    return bundles


def _bundle_end(data: bytes, at: int) -> int:
    if data[at] != _ARRAY_OF_ANY_LENGTH:
        raise MessageError("bundle: no array of indefinite length")
    at += 1
    for _ in range(BUNDLE_BLOCKS_MAX + 1):
        if data[at : at + 1] == bytes((_BREAK,)):
            return at + 1
        at = _item_end(data, at, _NEST_MAX)
    raise MessageError(f"bundle: more than {BUNDLE_BLOCKS_MAX} blocks")


def _item_end(data: bytes, at: int, nest_max: int) -> int:
    """The offset after the CBOR item at an offset: unsigned integer, byte or text string, or array, as bundles have."""
    if at >= len(data) or nest_max == 0:
        raise MessageError("item: the data end, or it is nested too deep")
    base = data[at] & 0xE0
    value, at = read_head(data, at, base, "item")
    if base == ARRAY:
        for _ in range(value):
            at = _item_end(data, at, nest_max - 1)
    elif base in (BYTES, BYTES | 0x20):
        at += value
        if at > len(data):
            raise MessageError("item: the data end inside it")
    elif base:
        raise MessageError(f"item: {base:#x} is none of a bundle")
    return at
