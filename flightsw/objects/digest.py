"""Names and pieces of objects: digest, chunks, proofs and bitmaps.

Chunks are CHUNK_BYTES long, the last one shorter; an empty object has one empty chunk, so that it can travel too.

The name of an object of one chunk is the BLAKE2b-256 digest (RFC 7693) of its bytes. A longer one is named by a tree
over its chunks, so that a chunk can be checked when it arrives, before anything else of the object is here:

```text
name = H("flatrack.name", size as 8 bytes big-endian + root)
root = H("flatrack.node", left + right), and so on down; a last node without a partner goes up as it is
leaf = H(chunk)
```

H is BLAKE2b-256, the words are its personalisation: no name, node or leaf can pass for another. A chunk's proof is the
partners on its way up, at most 16 of 32 bytes. The tree is shaped as that of RFC 9162 §2.1.

A bitmap has one bit for each chunk, most significant bit first; the bits that fill the last byte are 0.
"""

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from flightsw.errors import StorageError
from flightsw.objects.synthetic import synthetic_of
from flightsw.wire.messages import CHUNK_BYTES

OBJECT_BYTES_MAX: Final = 1 << 30
"""A real object's size [bytes]: 1 GiB = 65,536 chunks, whose bitmap of 8 KiB fits one bundle."""

DIGEST_BYTES: Final = 32
_NODE: Final = b"flatrack.node"
_NAME: Final = b"flatrack.name"


class Shape(NamedTuple):
    """How an object is cut into chunks."""

    size_bytes: int
    chunk_bytes: int
    is_synthetic: bool = False

    @property
    def chunks_count(self) -> int:
        """Chunks of the object."""
        return max(1, -(-self.size_bytes // self.chunk_bytes))

    def chunk_size_bytes(self, index: int) -> int:
        """Length of one chunk on the link [bytes]."""
        return min(self.chunk_bytes, self.size_bytes - index * self.chunk_bytes)

    def data_bytes(self, index: int) -> int:
        """Data in one chunk's message [bytes]: none when the object is synthetic."""
        return 0 if self.is_synthetic else self.chunk_size_bytes(index)


def shape_of(digest: bytes, size_bytes: int) -> Shape:
    """How the object of that name and size is cut.

    Raises:
        StorageError: no object can have that name and that size.
    """
    synthetic = synthetic_of(digest)
    if synthetic is not None:
        if synthetic.size_bytes != size_bytes:
            raise StorageError(f"object of {size_bytes} bytes, but its name says {synthetic.size_bytes}")
        return Shape(size_bytes, synthetic.chunk_bytes, True)
    if not 0 <= size_bytes <= OBJECT_BYTES_MAX:
        raise StorageError(f"no space: object of {size_bytes} bytes, at most {OBJECT_BYTES_MAX}")
    return Shape(size_bytes, CHUNK_BYTES)


class ChunkTree:
    """The tree over the chunks of some bytes: their name, and the proof of each chunk.

    Args:
        data: the whole object.
    """

    __slots__ = ("_levels", "digest")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        starts = range(0, len(view), CHUNK_BYTES) or (0,)
        level = [_leaf(view[start : start + CHUNK_BYTES]) for start in starts]
        self._levels = [level]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=False)
            above = [_node(left, right) for left, right in pairs]
            if len(level) & 1:
                above.append(level[-1])
            self._levels.append(level := above)
        self.digest = level[0] if len(self._levels) == 1 else _name(len(view), level[0])
        """The name of the object."""

    def proof(self, index: int) -> bytes:
        """What proves that a chunk belongs to the object: the partners on its way up, the lowest first."""
        partners: list[bytes] = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                partners.append(level[index ^ 1])
            index >>= 1
        return b"".join(partners)


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """The name of an object."""
    return ChunkTree(data).digest


def chunk_holds(digest: bytes, shape: Shape, index: int, data: bytes, proof: bytes) -> bool:
    """Whether this is a chunk of the object of that name, whatever its sender says.

    Of a synthetic object every chunk in range holds: its name alone is the proof.
    """
    count = shape.chunks_count
    if index >= count or len(data) != shape.data_bytes(index):
        return False
    if shape.is_synthetic:
        return not proof
    node = _leaf(data)
    if count == 1:
        return not proof and node == digest
    used_bytes = 0
    while count > 1:
        if index ^ 1 < count:
            partner = proof[used_bytes : used_bytes + DIGEST_BYTES]
            used_bytes += DIGEST_BYTES
            node = _node(partner, node) if index & 1 else _node(node, partner)
        index >>= 1
        count = (count + 1) >> 1
    return used_bytes == len(proof) and _name(shape.size_bytes, node) == digest


def chunks_count(size_bytes: int) -> int:
    """Chunks of a real object."""
    return Shape(size_bytes, CHUNK_BYTES).chunks_count


def full_bitmap(count: int) -> bytes:
    """The bitmap with every bit of `count` chunks set."""
    whole, rest = divmod(count, 8)
    return b"\xff" * whole + (bytes([0xFF00 >> rest & 0xFF]) if rest else b"")


def bitmap_without(cleared: Iterable[int], count: int) -> bytes:
    """The bitmap with every bit of `count` chunks set but some."""
    bitmap = bytearray(full_bitmap(count))
    for index in cleared:
        bitmap[index >> 3] &= ~(0x80 >> (index & 7))
    return bytes(bitmap)


def missing_chunks(bitmap: bytes, count: int) -> list[int]:
    """Indices whose bit is 0, rising; bits that the bitmap lacks are 0."""
    return [
        index for index in range(count) if index >> 3 >= len(bitmap) or not bitmap[index >> 3] & 0x80 >> (index & 7)
    ]


def _leaf(chunk: bytes | memoryview) -> bytes:
    return hashlib.blake2b(chunk, digest_size=DIGEST_BYTES).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.blake2b(left + right, digest_size=DIGEST_BYTES, person=_NODE).digest()


def _name(size_bytes: int, root: bytes) -> bytes:
    return hashlib.blake2b(size_bytes.to_bytes(8, "big") + root, digest_size=DIGEST_BYTES, person=_NAME).digest()
