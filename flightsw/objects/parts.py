"""A partial object on the disk: chunks in any order, as records of one log.

Record 0 is the size of the object (8 bytes, big-endian); each further record is a chunk: its index (4 bytes,
big-endian) and its data. The bitmap is not stored: it is what the log holds, so that it can never claim a chunk that
is not there.
"""

from typing import Final

from flightsw.errors import StorageError
from flightsw.objects.digest import Shape, shape_of
from flightsw.ports import Disk
from flightsw.storage.log import RecordLog
from flightsw.storage.records import HEADER

UNSYNCED_CHUNKS_MAX: Final = 16
"""Chunks that a power cut may take: 256 KiB, 2 s of a 1 Mbit/s link. Each sync costs a real disk some 10 ms."""

SIZE_FIELD_BYTES: Final = 8
INDEX_FIELD_BYTES: Final = 4


class Part:
    """Chunks of one object that is not whole yet.

    Args:
        disk: where the log lies.
        name: its file name.
        digest: of the whole object.
        size_bytes: of the whole object, for a new part; None to read an existing one.

    Raises:
        StorageError: the disk is full or broken, or what lies there is no part of that object.
    """

    def __init__(self, disk: Disk, name: str, digest: bytes, size_bytes: int | None = None) -> None:
        self._log = RecordLog(disk, name)
        if size_bytes is not None:
            if self._log.records_count:
                self._log.compact([])
            self._log.append(size_bytes.to_bytes(SIZE_FIELD_BYTES, "big"))
        records = self._log.records()
        if not records or len(records[0]) != SIZE_FIELD_BYTES:
            raise StorageError(f"{name}: no size record")
        self.shape: Shape = shape_of(digest, int.from_bytes(records[0], "big"))
        count = self.shape.chunks_count
        self._bits = bytearray(-(-count // 8))
        self._left_count = count
        self._unsynced_count = 0
        self._left_bytes = part_bytes(self.shape) - HEADER.size - SIZE_FIELD_BYTES
        for record in records[1:]:
            self._mark(int.from_bytes(record[:INDEX_FIELD_BYTES], "big"))

    @property
    def size_bytes(self) -> int:
        """Size of the whole object [bytes]."""
        return self.shape.size_bytes

    @property
    def left_bytes(self) -> int:
        """What the chunks that are still to come will take on the disk [bytes]."""
        return self._left_bytes

    @property
    def held_count(self) -> int:
        """Chunks that are here."""
        return self.shape.chunks_count - self._left_count

    def holds(self, index: int) -> bool:
        """Whether a chunk is in the log."""
        return bool(self._bits[index >> 3] & 0x80 >> (index & 7))

    def add(self, index: int, data: bytes) -> None:
        """Keep a chunk that is not held yet; durable with the next sync. Raises: StorageError."""
        assert len(data) == self.shape.data_bytes(index), "the caller checks the length of a chunk"
        self._log.append(index.to_bytes(INDEX_FIELD_BYTES, "big") + data)
        self._mark(index)
        self._unsynced_count += 1
        if self._unsynced_count >= UNSYNCED_CHUNKS_MAX:
            self.synced_bitmap()

    def is_full(self) -> bool:
        """Whether every chunk is held; says nothing of the digest."""
        return self._left_count == 0

    def bitmap(self) -> bytes:
        """The chunks held; a power cut may take some of them."""
        return bytes(self._bits)

    def synced_bitmap(self) -> bytes:
        """The chunks held, after making them durable: what may be claimed to a peer. Raises: StorageError."""
        self._log.sync()
        self._unsynced_count = 0
        return bytes(self._bits)

    def joined(self) -> bytes:
        """The object as the disk has it; short when a chunk has rotted there. Raises: StorageError."""
        chunks = {
            int.from_bytes(record[:INDEX_FIELD_BYTES], "big"): record[INDEX_FIELD_BYTES:]
            for record in self._log.records()[1:]
        }
        return b"".join(chunks[index] for index in sorted(chunks))

    def remove(self) -> None:
        """Forget all chunks. Raises: StorageError."""
        self._log.remove()

    def _mark(self, index: int) -> None:
        if index < self.shape.chunks_count and not self.holds(index):
            self._bits[index >> 3] |= 0x80 >> (index & 7)
            self._left_count -= 1
            self._left_bytes -= _chunk_record_bytes(self.shape, index)


def part_bytes(shape: Shape) -> int:
    """What all records of a partial object take on the disk [bytes]."""
    records_bytes = HEADER.size + SIZE_FIELD_BYTES + shape.chunks_count * (HEADER.size + INDEX_FIELD_BYTES)
    return records_bytes + (0 if shape.is_synthetic else shape.size_bytes)


def _chunk_record_bytes(shape: Shape, index: int) -> int:
    return HEADER.size + INDEX_FIELD_BYTES + shape.data_bytes(index)
