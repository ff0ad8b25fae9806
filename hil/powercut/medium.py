"""What a disk may hold when the power fails between two system calls.

- What fsync made durable survives: the content by one of the file, the names by one of the folder.
- Since then, each sector of a file holds any of the contents that it had, the newest with a probability that is drawn
  for each file from 0, 0.5, 0.9 and 1. The size is drawn in the same way; what was never there is zeros. One sector may
  be torn: its first bytes of the newest content, the rest of an older one.
- Names that were made, changed or removed in a folder since then survive in order, up to any of them.

That is harsher than ext4, whose journal keeps the order of names over all folders, and where fsync of a new file also
makes its name durable.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from flightsw.ports import Random
from hil.powercut.recording import (
    ROOT,
    Change,
    Create,
    Cut,
    MakeFolder,
    Operation,
    Remove,
    Rename,
    SyncFile,
    SyncFolder,
)
from hil.powercut.subject import Note
from hil.sim.disk import SECTOR_BYTES, SURVIVAL

Named = Create | Rename | Remove | MakeFolder
TORN_SHARE: Final = 0.3
"""How often one of the sectors that differ is torn."""


@dataclass
class _File:
    """One file: what is durable, and each content since."""

    versions: list[bytes] = field(default_factory=lambda: [b""])
    """The first is durable, the last is what a reader sees."""

    def change(self, content: bytes) -> None:
        self.versions.append(content)

    def after_cut(self, random: Random) -> bytes:
        versions = self.versions
        if len(versions) == 1:
            return versions[0]
        share = random.choice(SURVIVAL)

        def drawn(choices: list[bytes]) -> bytes:
            return choices[-1] if random.random() < share else random.choice(choices[:-1])

        size_bytes = len(drawn(versions))
        content = bytearray(versions[0][:size_bytes].ljust(size_bytes, b"\0"))
        longest = max(map(len, versions))
        differing = []
        for start in range(0, min(size_bytes, longest), SECTOR_BYTES):
            sectors = [one[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0") for one in versions]
            if any(one != sectors[0] for one in sectors):
                content[start : start + SECTOR_BYTES] = drawn(sectors)
                differing.append((start, sectors))
        if differing and random.random() < TORN_SHARE:
            start, sectors = random.choice(differing)
            new_bytes = random.randrange(SECTOR_BYTES)
            content[start : start + SECTOR_BYTES] = sectors[-1][:new_bytes] + random.choice(sectors[:-1])[new_bytes:]
        return bytes(content[:size_bytes])


class Medium:
    """A disk that takes recorded operations one by one.

    Args:
        held: what is durably there at first: name -> content, None for a folder.
    """

    def __init__(self, held: dict[str, bytes | None]) -> None:
        self._files: list[_File] = []
        self._entered: dict[str, int | None] = {}
        """Durable names: file, or None for a folder."""
        for name, content in sorted(held.items()):
            self._entered[name] = None if content is None else len(self._files)
            if content is not None:
                self._files.append(_File([content]))
        self._now = dict(self._entered)
        self._pending: dict[str, list[Named]] = {}
        """By folder: names that are not durable, in order."""

    def take(self, operation: Operation) -> None:
        """The next operation; notes change nothing."""
        match operation:
            case Change(number, offset, data):
                before = self._files[number].versions[-1].ljust(offset, b"\0")
                self._files[number].change(before[:offset] + data + before[offset + len(data) :])
            case Cut(number, size_bytes):
                before = self._files[number].versions[-1]
                self._files[number].change(before[:size_bytes].ljust(size_bytes, b"\0"))
            case SyncFile(number):
                del self._files[number].versions[:-1]
            case SyncFolder(folder):
                self._apply(self._entered, self._pending.pop(folder, []))
            case Note():
                pass
            case _:
                if isinstance(operation, Create):
                    assert operation.file == len(self._files), "files are numbered as they come"
                    self._files.append(_File())
                self._apply(self._now, [operation])
                self._pending.setdefault(_folder_of(operation.name), []).append(operation)

    def after_cut(self, random: Random) -> dict[str, bytes | None]:
        """What is there after a power cut now: name -> content, None for a folder."""
        names = dict(self._entered)
        for folder in sorted(self._pending):
            pending = self._pending[folder]
            self._apply(names, pending[: random.randint(0, len(pending))])
        held: dict[str, bytes | None] = {}
        for name, number in sorted(names.items()):
            if all(folder in names for folder in _folders_of(name)):
                held[name] = None if number is None else self._files[number].after_cut(random)
        return held

    def _apply(self, names: dict[str, int | None], operations: Iterable[Named]) -> None:
        for operation in operations:
            match operation:
                case Create(name, number):
                    names[name] = number
                case Rename(name, new_name):
                    names[new_name] = names.pop(name)
                case Remove(name):
                    names.pop(name)
                case MakeFolder(name):
                    names[name] = None


def _folder_of(name: str) -> str:
    folder, _, _ = name.rpartition("/")
    return folder or ROOT


def _folders_of(name: str) -> list[str]:
    """The folders on the way to a name."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
