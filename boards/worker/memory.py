"""The memory in which models lie: one file in memory (memfd_create(2)) that manager and worker map.

The manager writes it; the worker gets it open for reading alone, so that nothing that runs there can change a model. It
grows and never shrinks (its seals see to that), because a mapping of what is no more there would end the process that
touches it. The place of a model that nobody holds any more is given to the next one that fits.
"""

import fcntl
import mmap
import os
import weakref
from dataclasses import dataclass
from typing import Final

from flightsw.errors import BoardError

MODELS_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
"""All models together [bytes]: more than the memory of most boards."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a model lies in the memory: first byte, and length rounded up to whole pages [bytes]."""

    offset: int
    length: int


class ModelMemory:
    """Memory for models, shared with a worker.

    Args:
        bytes_max: how far it may grow [bytes].
    """

    def __init__(self, bytes_max: int = MODELS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._size_bytes = 0
        self._free: list[Place] = []
        self._descriptor = os.memfd_create("flatrack models", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)

    def open_for_reading(self) -> int:
        """A descriptor for a worker, which closes it; nothing can be written through it."""
        return os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    def place(self, data: bytes) -> tuple[Place, memoryview]:
        """Copy a model into the memory; returns where it lies, and its bytes there, which may be changed.

        The place is given back when nobody holds these bytes any more.

        Raises:
            BoardError: there is no more memory for models.
        """
        place = self._take(-(-max(len(data), 1) // mmap.PAGESIZE) * mmap.PAGESIZE)
        mapping = mmap.mmap(self._descriptor, place.length, offset=place.offset)
        mapping[: len(data)] = data
        weakref.finalize(mapping, self._give_back, place)
        return place, memoryview(mapping)[: len(data)]

    def close(self) -> None:
        """Give the memory back, as far as nobody maps it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self, length: int) -> Place:
        for index, free in enumerate(self._free):
            if free.length >= length:
                del self._free[index]
                if free.length > length:
                    self._free.insert(index, Place(free.offset + length, free.length - length))
                return Place(free.offset, length)
        if self._size_bytes + length > self._bytes_max:
            raise BoardError(f"memory for models: {length} bytes more, expected at most {self._bytes_max} in all")
        place = Place(self._size_bytes, length)
        try:
            os.ftruncate(self._descriptor, place.offset + length)
        except OSError as error:
            raise BoardError(f"memory for models: {length} bytes more: {error.strerror}") from error
        self._size_bytes += length
        return place

    def _give_back(self, place: Place) -> None:
        """Join a place to its free neighbours."""
        if self._descriptor < 0:
            return
        places = sorted([*self._free, place])
        joined = [places[0]]
        for after in places[1:]:
            if joined[-1].offset + joined[-1].length == after.offset:
                joined[-1] = Place(joined[-1].offset, joined[-1].length + after.length)
            else:
                joined.append(after)
        self._free = joined
