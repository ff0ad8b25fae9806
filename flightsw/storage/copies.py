"""One small state in two copies: what a damaged one of them lost, the other still holds.

Each copy is a file of its own with a CRC and a version that rises with every store. Both are replaced atomically, one
after the other: at any power cut one of them is whole, the old or the new. The higher version counts. Load mends what
is damaged, missing or behind.
"""

import struct
from typing import Final, NamedTuple

from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.records import seal, unseal

SUFFIXES: Final = (".a", ".b")
"""Endings of the names of the two copies."""

_VERSION: Final = struct.Struct(">Q")


class _Copy(NamedTuple):
    """One copy as it lies there."""

    version: int
    """0 when there is none that holds."""
    data: bytes
    is_damaged: bool


class TwoCopies:
    """One state on one disk. Nothing is read before `load`.

    Args:
        disk: where it lies.
        name: its copies are the files `<name>.a` and `<name>.b`.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._names = tuple(name + suffix for suffix in SUFFIXES)
        self._highest: int | None = None
        """Highest version of either copy, also of a store that failed; None before the first look."""
        self.version = 0
        """Of the state that stands; 0 before the first store."""
        self.repaired_count = 0
        """Damaged or missing copies that were written anew from the other one."""
        self.failed_count = 0
        """Writes of a copy that failed; tried again with the next load or store."""

    def load(self) -> bytes | None:
        """The state, or None when none was ever stored. Mends the copy that is damaged, missing or behind.

        Raises:
            StorageError: something was stored, and neither copy can be read. A later `store` starts anew.
        """
        copies = [self._read(name) for name in self._names]
        best = max(copies, key=lambda copy: copy.version)
        self.version = best.version
        self._highest = max(best.version, self._highest or 0)
        if not best.version:
            if any(copy.is_damaged for copy in copies):
                raise StorageError(f"{self._names[0]} and {self._names[1]}: neither copy holds")
            return None
        for name, copy in zip(self._names, copies, strict=True):
            if copy.version == best.version:
                continue
            failure = self._try(name, seal(_VERSION.pack(best.version) + best.data))
            # a first store that the power cut in two leaves one copy, and no damage
            was_lost = copy.is_damaged or (not copy.version and best.version > 1)
            self.repaired_count += was_lost and failure is None
        return best.data

    def store(self, data: bytes) -> None:
        """Replace the state, atomically and durably: at any power cut the old or the new stands.

        When only one copy could be written the state is stored, and `failed_count` says so.

        Raises:
            StorageError: neither copy could be written; the old state stands (a disk that fails in the middle may hold
                the new one all the same).
        """
        if self._highest is None:
            self._highest = max(self._read(name).version for name in self._names)
        self._highest = version = self._highest + 1  # a failed store may stand all the same: its version is used up
        sealed = seal(_VERSION.pack(version) + data)
        errors = [error for name in self._names if (error := self._try(name, sealed)) is not None]
        if len(errors) == len(self._names):
            raise errors[0]
        self.version = version

    def remove(self) -> None:
        """Forget the state and both files.

        Raises:
            StorageError: the disk is broken.
        """
        for name in self._names:
            self._disk.remove(name)
        self._highest = self.version = 0

    def _try(self, name: str, sealed: bytes) -> StorageError | None:
        try:
            self._disk.replace(name, sealed)
        except StorageError as error:
            self.failed_count += 1
            return error
        return None

    def _read(self, name: str) -> _Copy:
        if not self._disk.exists(name):
            return _Copy(0, b"", is_damaged=False)
        try:
            content = unseal(self._disk.read(name))
        except StorageError:
            return _Copy(0, b"", is_damaged=True)
        if len(content) < _VERSION.size:
            return _Copy(0, b"", is_damaged=True)
        return _Copy(_VERSION.unpack_from(content)[0], content[_VERSION.size :], is_damaged=False)
