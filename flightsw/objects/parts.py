"""A partial object on the disk: chunks in any order, as records of one log.

Record 0 is the size of the object (8 bytes, big-endian); each further record is a chunk: its index (4 bytes,
big-endian) and its data. The bitmap is not stored: it is what the log holds, so that it can never claim a chunk that
is not there.
"""

from typing import Final

from flightsw.errors import StorageError
from flightsw.objects.digest import OBJECT_BYTES_MAX, chunk_size_bytes, chunks_count
from flightsw.ports import Disk
from flightsw.storage.log import RecordLog

SIZE_FIELD_BYTES: Final = 8
INDEX_FIELD_BYTES: Final = 4


class Part:
    """Chunks of one object that is not whole yet.

    Args:
        disk: where the log lies.
        name: its file name.
        size_bytes: of the whole object, for a new part; None to read an existing one.

    Raises:
        StorageError: the disk is full or broken, or what lies there is no part.
    """

    def __init__(self, disk: Disk, name: str, size_bytes: int | None = None) -> None:
        self._log = RecordLog(disk, name)
        if size_bytes is not None:
            if self._log.records_count:
                self._log.compact([])
            self._log.append(size_bytes.to_bytes(SIZE_FIELD_BYTES, "big"))
        records = self._log.records()
        if not records or len(records[0]) != SIZE_FIELD_BYTES:
            raise StorageError(f"{name}: no size record")
        self.size_bytes = int.from_bytes(records[0], "big")
        if self.size_bytes > OBJECT_BYTES_MAX:
            raise StorageError(f"{name}: size {self.size_bytes} bytes, at most {OBJECT_BYTES_MAX}")
        self._bits = bytearray(-(-chunks_count(self.size_bytes) // 8))
        self._left_count = chunks_count(self.size_bytes)
        for record in records[1:]:
            self._mark(int.from_bytes(record[:INDEX_FIELD_BYTES], "big"))

    def holds(self, index: int) -> bool:
        """Whether a chunk is in the log."""
        return bool(self._bits[index >> 3] & 0x80 >> (index & 7))

    def add(self, index: int, data: bytes) -> None:
        """Keep a chunk that is not held yet; durable after `sync`. Raises: StorageError."""
        assert len(data) == chunk_size_bytes(self.size_bytes, index), "the caller checks the length of a chunk"
        self._log.append(index.to_bytes(INDEX_FIELD_BYTES, "big") + data)
        self._mark(index)

    def is_full(self) -> bool:
        """Whether every chunk is held; says nothing of the digest."""
        return self._left_count == 0

    def synced_bitmap(self) -> bytes:
        """The chunks held, after making them durable: what may be claimed to a peer. Raises: StorageError."""
        self._log.sync()
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
        if index < chunks_count(self.size_bytes) and not self.holds(index):
            self._bits[index >> 3] |= 0x80 >> (index & 7)
            self._left_count -= 1
