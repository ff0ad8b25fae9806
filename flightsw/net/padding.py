"""Padding: link time of data that do not move (`flightsw.objects.synthetic`).

A service declares with `send` how many bytes its payload stands for beyond its own. The bundle says so in an extension
block, so that every hop charges for it; the transmitter is busy for as long, at the coding's cost of real data, and the
frame meets loss and bit errors as one of that length. Only reliable bundles are padded, and of a block's segments the
first: when it is sent again, so is the padding.
"""

from typing import Final

from flightsw.errors import WireError
from flightsw.wire import cbor
from flightsw.wire.bundles import CRC_NONE, Bundle, CanonicalBlock
from flightsw.wire.segments import DataSegment, decode_segment

BLOCK_PADDING: Final = 193
"""Our extension block: the padding as one CBOR unsigned integer [bytes]. 192 to 255 are for private use, RFC 9171 §9.1.
A node that does not know it passes it on and charges nothing."""

PADDING_BYTES_MAX: Final = 1 << 30
"""Padding of one bundle [bytes]: 1 GiB, a second of a 10 Gbit/s link; more would hold up all other traffic longer."""

_NUMBER: Final = 20
"""Block number; 2 to 5 are previous node, age, hop count and priority, the next ones those of security."""


def padding_blocks(padding_bytes: int) -> tuple[CanonicalBlock, ...]:
    """The block that declares a padding; none for none."""
    if not padding_bytes:
        return ()
    return (CanonicalBlock(BLOCK_PADDING, _NUMBER, 0, CRC_NONE, cbor.dumps(padding_bytes)),)


def padding_of(bundle: Bundle) -> int:
    """The padding that a bundle declares [bytes]; 0 when it declares none or nonsense."""
    for block in bundle.blocks:
        if block.type == BLOCK_PADDING:
            try:
                declared = cbor.loads(block.data)
            except WireError:
                return 0
            return declared if type(declared) is int and 0 <= declared <= PADDING_BYTES_MAX else 0
    return 0


def session_of_first(segment: bytes) -> int | None:
    """The session number when this is the first data segment of a block, else None."""
    decoded = decode_segment(segment)
    return decoded.session[1] if type(decoded) is DataSegment and decoded.offset == 0 else None
