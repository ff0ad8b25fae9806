"""A disk in memory that forgets, on a power cut, what a real one may forget.

The rules, which the measured crash behaviour of Linux file systems gave:

- What `sync` or `replace` made durable survives.
- Of bytes appended since, each sector survives or not, in any order, with a probability that is drawn for each file
  from 0, 0.5, 0.9 and 1. A sector that did not is zeros, or the file ends before it; one of them may be torn: its
  first bytes new, the rest zeros.
- A file written whole and not synced is the old one, or a new one of which sectors are missing in the same way.
- A file that was never synced may be absent.
- Removals reach the medium in order, and any number of the last ones may be undone, until a `replace` (which syncs the
  directory) makes those before it durable.

Rot is asked for by the world's side; `hil.sim.faulty_disk` adds the faults of a disk that refuses.

Sizes are those of the contents: blocks, names and the file system's own records cost nothing.
"""

from dataclasses import dataclass, field
from typing import Final

from flightsw.errors import StorageError
from flightsw.ports import Random

SECTOR_BYTES: Final = (
    512  # the unit that drives promise to write whole; smaller than the 4096 of newer ones, hence harsher
)
SURVIVAL: Final = (0.0, 0.5, 0.9, 1.0)
"""Shares of unsynced sectors that a power cut lets through: one is drawn for each file. Source: docs/determinism.md."""


@dataclass(slots=True)
class _File:
    """One file: what reads return, and what the medium holds."""

    content: bytes | bytearray = field(default_factory=bytearray)
    """Bytes are shared with who wrote them; they become an array of the file's own when they are changed in place."""
    durable_bytes: int = 0
    """How much of the content is on the medium, when it was not rewritten since the last sync."""
    before: bytes | None = None
    """What is on the medium when the content was rewritten since the last sync."""
    is_entered: bool = False
    """Whether the directory entry is on the medium."""

    def own(self) -> bytearray:
        """The content, to be changed in place."""
        if not isinstance(self.content, bytearray):
            self.content = bytearray(self.content)
        return self.content

    def durable(self) -> bytes | None:
        """What the medium holds for sure; None when it may hold no such file."""
        if not self.is_entered:
            return None
        return bytes(self.content[: self.durable_bytes]) if self.before is None else self.before


class SimulatedDisk:
    """Named files with the promises of the Disk port, and with power cuts and bit rot.

    Args:
        capacity_bytes: What all contents together may take.
        random: The stream that power cuts draw from; no other call draws.
    """

    def __init__(self, capacity_bytes: int, random: Random) -> None:
        self.capacity_bytes = capacity_bytes
        self.power_cuts_count = 0
        self._random = random
        self._files: dict[str, _File] = {}
        self._used_bytes = 0
        self._removed: dict[str, bytes] = {}  # durable contents of removed files, in order of removal

    # The Disk port

    def read(self, name: str) -> bytes:
        """The whole content. Raises: StorageError when absent."""
        return bytes(self._file(name).content)

    def exists(self, name: str) -> bool:
        """Whether the name is there."""
        return name in self._files

    def append(self, name: str, data: bytes) -> None:
        """Add to the end; durable only after `sync`. Raises: StorageError when the disk is full; nothing is written."""
        self._reserve("append", name, len(data), 0)
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _File()
        file.own().extend(data)
        self._used_bytes += len(data)

    def write(self, name: str, data: bytes) -> None:
        """New content; durable only after `sync`. Raises: StorageError when the disk is full; the old content stays."""
        file = self._files.get(name)
        old_bytes = 0 if file is None else len(file.content)
        self._reserve("write", name, len(data), old_bytes)
        if file is None:
            file = self._files[name] = _File()
        elif file.before is None:
            file.before = bytes(file.content[: file.durable_bytes])
        file.content = bytes(data)
        file.durable_bytes = 0
        self._used_bytes += len(data) - old_bytes

    def sync(self, name: str) -> None:
        """Make what was appended or written durable. Raises: StorageError when absent."""
        file = self._file(name)
        file.durable_bytes = len(file.content)
        file.before = None
        file.is_entered = True
        self._removed.pop(name, None)  # the new entry stands where the removed one stood

    def replace(self, name: str, data: bytes) -> None:
        """New content, atomically and durably. Raises: StorageError when old and new do not fit side by side."""
        self._reserve("replace", name, len(data), 0)
        file = self._files.get(name)
        old_bytes = 0 if file is None else len(file.content)
        self._files[name] = _File(bytes(data), durable_bytes=len(data), is_entered=True)
        self._used_bytes += len(data) - old_bytes
        self._removed.clear()  # the directory is synced

    def remove(self, name: str) -> None:
        """Forget the name; no error when absent. A power cut may bring it back until the next `replace`."""
        file = self._files.pop(name, None)
        if file is None:
            return
        self._used_bytes -= len(file.content)
        durable = file.durable()
        if durable is not None:
            self._removed[name] = durable

    def names(self, prefix: str = "") -> list[str]:
        """Names that start with prefix, sorted."""
        return sorted(name for name in self._files if name.startswith(prefix))

    def free_bytes(self) -> int:
        """What still fits."""
        return self.capacity_bytes - self._used_bytes

    # The world's side

    def power_cut(self) -> None:
        """Lose what a power cut may lose. The disk then holds what the next boot finds, all of it durable."""
        draw = self._random
        self.power_cuts_count += 1
        survivors: dict[str, bytes] = {}
        removals = list(self._removed.items())
        for name, removed_content in removals[draw.randint(0, len(removals)) :]:
            survivors[name] = removed_content
        for name in self.names():
            content = self._after_cut(self._files[name])
            if content is not None and name not in survivors:  # a name that came back never held the new file
                survivors[name] = content
        self._removed.clear()
        self._files = {
            name: _File(content, durable_bytes=len(content), is_entered=True)
            for name, content in sorted(survivors.items())
        }
        self._used_bytes = sum(len(content) for content in survivors.values())

    def flip_bit(self, name: str, bit_index: int) -> None:
        """Rot one bit of a file, on the medium and so for every reader; bit 0 is the lowest of the first byte.

        Raises:
            StorageError: No such file, or the file is shorter.
        """
        content = self._file(name).own()
        if not 0 <= bit_index < 8 * len(content):
            raise StorageError(f"{name}: no bit {bit_index} in {len(content)} bytes")
        content[bit_index >> 3] ^= 1 << (bit_index & 7)

    def lose_sector(self, name: str, sector_index: int) -> None:
        """Turn one sector of a file into zeros, on the medium and so for every reader.

        Raises:
            StorageError: No such file, or the file is shorter.
        """
        content = self._file(name).own()
        start = sector_index * SECTOR_BYTES
        if not 0 <= start < len(content):
            raise StorageError(f"{name}: no sector {sector_index} in {len(content)} bytes")
        size_bytes = min(SECTOR_BYTES, len(content) - start)
        content[start : start + size_bytes] = bytes(size_bytes)

    def synced_view(self, name: str) -> bytes | None:
        """What a power cut now would surely leave at the name; None when it might leave nothing. For checks."""
        file = self._files.get(name)
        return None if file is None else file.durable()

    def _after_cut(self, file: _File) -> bytes | None:
        """What is left of a file that is there now; None when nothing is."""
        draw = self._random
        if not file.is_entered and draw.random() < 0.5:
            return None
        if file.before is not None and draw.random() < 0.5:
            return file.before
        if file.durable_bytes == len(file.content):
            return bytes(file.content)
        return self._scattered(bytes(file.content), file.durable_bytes)

    def _scattered(self, content: bytes, durable_bytes: int) -> bytes:
        """A content of which only some sectors after the durable part went to the medium before the power failed."""
        draw = self._random
        share = draw.choice(SURVIVAL)
        first_sector = durable_bytes // SECTOR_BYTES
        sectors = [content[at : at + SECTOR_BYTES] for at in range(0, len(content), SECTOR_BYTES)]
        written = [index < first_sector or draw.random() < share for index in range(len(sectors))]
        left = [sector if is_there else bytes(len(sector)) for sector, is_there in zip(sectors, written, strict=True)]
        missing = [index for index, is_there in enumerate(written) if not is_there]
        end = len(content)
        if missing and draw.random() < 0.5:
            torn = draw.choice(missing)
            new_bytes = draw.randrange(len(sectors[torn]))
            left[torn] = sectors[torn][:new_bytes].ljust(len(sectors[torn]), b"\0")
            if torn == len(sectors) - 1 and draw.random() < 0.5:
                end = torn * SECTOR_BYTES + new_bytes
        if missing and missing[-1] == len(sectors) - 1 and end == len(content) and draw.random() < 0.5:
            # the size went to the medium with the last sector that did
            last = next((index for index in reversed(range(len(sectors))) if written[index]), -1)
            end = (last + 1) * SECTOR_BYTES
        return content[:durable_bytes] + b"".join(left)[durable_bytes : max(durable_bytes, end)]

    def _file(self, name: str) -> _File:
        file = self._files.get(name)
        if file is None:
            raise StorageError(f"{name}: no such file")
        return file

    def _reserve(self, action: str, name: str, new_bytes: int, freed_bytes: int) -> None:
        free_bytes = self.capacity_bytes - self._used_bytes + freed_bytes
        if new_bytes > free_bytes:
            raise StorageError(
                f"disk full: {action} of {new_bytes} bytes to {name}: "
                f"{free_bytes} of {self.capacity_bytes} bytes are free"
            )
