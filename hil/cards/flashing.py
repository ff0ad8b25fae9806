"""Writing an image on a disk, and reading it back.

The device is opened with O_EXCL, which the kernel refuses while anything of this machine uses it, and stays open until
the end. What is read back comes from the device: the cache of what was written is dropped before. A disk that was
written in part boots nothing, or half of something: whatever ends the writing says that it is not usable, and the first
block, with the partition table, is written when all others have been read back, so that such a disk has no partitions.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from flightsw.errors import BoardError, ConfigError

BLOCK_BYTES: Final = 1 << 22

Progress = Callable[[str, int, int], None]
"""Told what is done ("write", "verify"), bytes so far, and of how many."""


class Target(Protocol):
    """A disk that is open for writing."""

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        """Write. Raises: OSError."""
        ...

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read. Raises: OSError."""
        ...

    def settle(self) -> None:
        """Return when all that was written is on the disk and no copy is in memory. Raises: OSError."""
        ...


class DeviceTarget:
    """A block device.

    Args:
        device: which nobody else uses.

    Raises:
        ConfigError: it is in use, or this user may not write it.
    """

    def __init__(self, device: Path) -> None:
        self._device = device
        try:
            self._descriptor = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            hint = " (as root, or as a user of the group disk)" if isinstance(error, PermissionError) else ""
            raise ConfigError(f"{device}: cannot be opened for writing: {error.strerror}{hint}") from None

    def number(self) -> tuple[int, int]:
        """Major and minor number of what was opened."""
        found = os.fstat(self._descriptor).st_rdev
        return os.major(found), os.minor(found)

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        """Write. Raises: OSError."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._descriptor, rest, offset_bytes)
            offset_bytes += count
            rest = rest[count:]

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read. Raises: OSError."""
        return os.pread(self._descriptor, size_bytes, offset_bytes)

    def settle(self) -> None:
        """Sync and drop what is cached. Raises: OSError."""
        os.fsync(self._descriptor)
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the device back."""
        os.close(self._descriptor)


@contextmanager
def opened(device: Path) -> Iterator[DeviceTarget]:
    """A block device for the time of a block. Raises: ConfigError: as `DeviceTarget`."""
    target = DeviceTarget(device)
    try:
        yield target
    finally:
        target.close()


def flash(image: Path, target: Target, name: str, on_progress: Progress = lambda *_: None) -> str:
    """Write an image on a disk and verify it; returns the image's SHA-256, in hexadecimal digits.

    Args:
        image: of a whole disk, unpacked.
        target: the disk.
        name: of the disk, in errors.
        on_progress: told now and then.

    Raises:
        ConfigError: the image cannot be read.
        BoardError: the disk cannot be written or read, or does not hold what was written. It is not usable then.
    """
    try:
        size_bytes = image.stat().st_size
        file = image.open("rb")
    except OSError as error:
        raise ConfigError(f"{image}: cannot be read: {error.strerror}") from None
    whole, first = hashlib.sha256(), b""
    digests: list[bytes] = []
    try:
        with file:
            while block := file.read(BLOCK_BYTES):
                offset_bytes = len(digests) * BLOCK_BYTES
                target.write_at(offset_bytes, block if digests else bytes(len(block)))
                first = first or block
                whole.update(block)
                digests.append(hashlib.sha256(block).digest())
                on_progress("write", offset_bytes + len(block), size_bytes)
        target.settle()
        for index in range(1, len(digests)):
            _verify(target, name, index, digests[index], size_bytes)
            on_progress("verify", min(size_bytes, (index + 1) * BLOCK_BYTES), size_bytes)
        target.write_at(0, first)
        target.settle()
        _verify(target, name, 0, digests[0], size_bytes)
    except OSError as error:
        raise BoardError(f"{name}: {error.strerror}: it is not usable now: write it again, or another one") from None
    except KeyboardInterrupt:
        raise BoardError(f"{name}: interrupted: it is not usable now: write it again") from None
    return whole.hexdigest()


def _verify(target: Target, name: str, index: int, digest: bytes, size_bytes: int) -> None:
    """Read one block back. Raises: OSError, BoardError."""
    offset_bytes = index * BLOCK_BYTES
    data = target.read_at(offset_bytes, min(BLOCK_BYTES, size_bytes - offset_bytes))
    if hashlib.sha256(data).digest() != digest:
        raise BoardError(
            f"{name}: does not hold what was written, in the {len(data)} bytes from {offset_bytes} on: it is not "
            "usable: take another one"
        )
