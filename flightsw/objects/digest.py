"""Names and pieces of objects: digest, chunk sizes and bitmaps.

An object's name is the BLAKE2b-256 digest of its bytes (RFC 7693). Chunks are CHUNK_BYTES long, the last one shorter;
an empty object has one empty chunk, so that it can travel too. A bitmap has one bit for each chunk, most significant
bit first; the bits that fill the last byte are 0.
"""

import hashlib
from typing import Final

from flightsw.wire.messages import CHUNK_BYTES

OBJECT_BYTES_MAX: Final = 1 << 30
"""An object's size [bytes]: 1 GiB = 65,536 chunks, whose bitmap of 8 KiB fits one bundle."""


def digest_of(data: bytes) -> bytes:
    """BLAKE2b-256 of the data: the name of an object."""
    return hashlib.blake2b(data, digest_size=32).digest()


def chunks_count(size_bytes: int) -> int:
    """Chunks of an object."""
    return max(1, -(-size_bytes // CHUNK_BYTES))


def chunk_size_bytes(size_bytes: int, index: int) -> int:
    """Length of one chunk of an object [bytes]."""
    return min(CHUNK_BYTES, size_bytes - index * CHUNK_BYTES)


def full_bitmap(count: int) -> bytes:
    """The bitmap with every bit of `count` chunks set."""
    whole, rest = divmod(count, 8)
    return b"\xff" * whole + (bytes([0xFF00 >> rest & 0xFF]) if rest else b"")


def missing_chunks(bitmap: bytes, count: int) -> list[int]:
    """Indices whose bit is 0, rising; bits that the bitmap lacks are 0."""
    return [
        index for index in range(count) if index >> 3 >= len(bitmap) or not bitmap[index >> 3] & 0x80 >> (index & 7)
    ]
