"""A disk with something put by: small states that must be written get their room also when the disk is full.

A file of zeros keeps the room from objects, rings and whatever else fills the disk. When a state does not fit, the file
is given up and the write is tried once more; when even that is not enough, files of history give way, oldest first.
`restore` puts the file there again once there is room for it twice over.
"""

from collections.abc import Callable, Sequence
from typing import Final

from flightsw.errors import StorageError
from flightsw.ports import Disk

RESERVE_FILE: Final = "reserve"
RESERVE_BYTES: Final = 65_536
"""What is put by [bytes]: all small states of a node written anew, and some hundred commands remembered."""
_ZEROS: Final = bytes(RESERVE_BYTES)


class ReservedDisk:
    """Implements `flightsw.ports.Disk` for states that must be written; everything else uses the disk itself.

    Args:
        disk: where all lies.
        history: prefixes of names that may give way, in this order.
    """

    def __init__(self, disk: Disk, history: Sequence[str] = ()) -> None:
        self._disk = disk
        self._history = tuple(history)
        self.given_up_count = 0
        """Files that gave way: the reserve, or history."""

    def restore(self) -> bool:
        """Put the reserve there again when there is room; whether it is there. Never raises for the disk."""
        if self._disk.exists(RESERVE_FILE):
            return True
        try:
            if self._disk.free_bytes() < 2 * RESERVE_BYTES:
                return False
            self._disk.replace(RESERVE_FILE, _ZEROS)
        except StorageError:
            return False  # the next call tries again
        return True

    def read(self, name: str) -> bytes:
        """As of the disk. Raises: StorageError."""
        return self._disk.read(name)

    def exists(self, name: str) -> bool:
        """As of the disk."""
        return self._disk.exists(name)

    def append(self, name: str, data: bytes) -> None:
        """Add to the end. Raises: StorageError when nothing more can give way."""
        self._with_room(len(data), lambda: self._disk.append(name, data))

    def write(self, name: str, data: bytes) -> None:
        """New content. Raises: StorageError when nothing more can give way."""
        self._with_room(len(data), lambda: self._disk.write(name, data))

    def sync(self, name: str) -> None:
        """As of the disk. Raises: StorageError."""
        self._disk.sync(name)

    def replace(self, name: str, data: bytes) -> None:
        """New content, atomically and durably. Raises: StorageError when nothing more can give way."""
        self._with_room(len(data), lambda: self._disk.replace(name, data))

    def remove(self, name: str) -> None:
        """As of the disk. Raises: StorageError."""
        self._disk.remove(name)

    def names(self, prefix: str = "") -> list[str]:
        """As of the disk."""
        return self._disk.names(prefix)

    def free_bytes(self) -> int:
        """What still fits without giving anything up."""
        return self._disk.free_bytes()

    def _with_room(self, size_bytes: int, act: Callable[[], None]) -> None:
        while True:
            try:
                return act()
            except StorageError:
                if self._disk.free_bytes() >= size_bytes or not self._give_up():
                    raise  # it is not for the room, or there is nothing left to give

    def _give_up(self) -> bool:
        names = [RESERVE_FILE] if self._disk.exists(RESERVE_FILE) else []
        for prefix in self._history:
            names = names or self._disk.names(prefix)[:1]
        if not names:
            return False
        self._disk.remove(names[0])
        self.given_up_count += 1
        return True
