"""The RAM of an emulated board, as radiation sees it: bits at physical addresses.

The bench makes the memory (a memfd) and gives it to QEMU, so it can be read and changed while the guest runs, and
nothing has to be asked. QEMU does not notice: code that it has already translated stays as it was, where a real core
would fetch the flipped instruction as soon as its caches forget the old one. A flip through `GdbStub` goes through
QEMU, which then forgets its translation; use it for pages of code.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RAM_BASE: Final = 0x4000_0000
"""Physical address of the first byte of RAM. Source: QEMU 7.2, hw/arm/virt.c, base_memmap[VIRT_MEM]."""
PAGE_BYTES: Final = 4096
BLOCK_BYTES: Final = 16 * PAGE_BYTES
"""What is stored, or left out because it is empty, at a time [bytes]."""


class GuestMemory:
    """RAM that the bench shares with a machine.

    Args:
        size_bytes: of it.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes: Final = size_bytes
        self.fd: Final = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size_bytes)
        self._map = mmap.mmap(self.fd, size_bytes)

    def flip(self, address: int, bit: int) -> None:
        """Flip one bit, 0 to 7, of the byte at a physical address."""
        self._map[self._offset(address)] ^= 1 << bit

    def read(self, address: int, count: int) -> bytes:
        """Bytes from a physical address on."""
        offset = self._offset(address)
        return self._map[offset : offset + count]

    def find(self, pattern: bytes, step: int = PAGE_BYTES) -> Iterator[int]:
        """Physical addresses of a pattern that begins in the first bytes of different pages, or once a `step`."""
        offset = self._map.find(pattern)
        while offset != -1:
            yield RAM_BASE + offset
            offset = self._map.find(pattern, offset + step)

    def store(self, path: Path) -> None:
        """Write everything to a file, with holes where nothing was ever written. Raises: OSError."""
        empty = bytes(BLOCK_BYTES)
        with path.open("wb") as file:
            file.truncate(self.size_bytes)
            for offset in self._written():
                block = self._map[offset : offset + BLOCK_BYTES]
                if block != empty:
                    os.pwrite(file.fileno(), block, offset)

    def fill(self, path: Path) -> None:
        """Take what `store` has written; memory that is empty. Raises: OSError."""
        with path.open("rb") as file:
            for start, end in _extents(file.fileno(), self.size_bytes):
                os.lseek(self.fd, start, os.SEEK_SET)
                while start < end:
                    start += os.sendfile(self.fd, file.fileno(), start, end - start)

    def clear(self) -> None:
        """Forget everything: what a power cut does."""
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, self.size_bytes)

    def close(self) -> None:
        """Give it back."""
        self._map.close()
        os.close(self.fd)

    def _written(self) -> Iterator[int]:
        """Offsets of the blocks that were ever written."""
        for start, end in _extents(self.fd, self.size_bytes):
            yield from range(start - start % BLOCK_BYTES, end, BLOCK_BYTES)

    def _offset(self, address: int) -> int:
        assert RAM_BASE <= address < RAM_BASE + self.size_bytes, f"{address:#x} is not in RAM"
        return address - RAM_BASE


def _extents(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and end of what a sparse file holds. Source: lseek(2), SEEK_DATA."""
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole follows
                raise
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end
