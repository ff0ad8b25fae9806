"""Flips bits in the memory of a running process, as a particle does: the process is neither asked nor stopped.

Struck is what a process has written itself and what lies in memory now: its heap, its other private anonymous memory
and, of models, the memory files that manager and worker share. Code and constants of libraries are files that the
kernel shares among processes; a flip there is a matter of the whole machine, and the emulated boards have it
(`hil.emulation`). Which bit follows from the seed and from the pages that are there.

Sources: proc_pid_maps(5), proc_pid_mem(5); pagemap: Documentation/admin-guide/mm/pagemap.rst, bit 63 "page present",
bit 62 "page swapped", bit 56 "page exclusively mapped", bits 0-54 "page frame number", which is 0 for who has no
CAP_SYS_ADMIN.
"""

import os
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from flightsw.errors import BoardError

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
ENTRY_BYTES: Final = 8
PRESENT: Final = 1 << 63
EXCLUSIVE: Final = 1 << 56
FRAME: Final = (1 << 55) - 1
BITS_MAX: Final = 10_000
"""Flips of one strike."""

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ \S+ (\d+)\s*(.*)")
_MODELS = "/memfd:flatrack"

Part = Literal["private", "models"]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A run of addresses of a process.

    Attributes:
        start, end: addresses, the end not in it.
        name: as the kernel says, `[heap]` for example; empty for plain anonymous memory.
    """

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit that was flipped.

    Attributes:
        address: of the byte in the process.
        bit: 0 to 7.
        mapping: name of the mapping; `anonymous` for one without.
        before: the byte as it was.
    """

    address: int
    bit: int
    mapping: str
    before: int


class ProcessMemory:
    """Memory of one process.

    Args:
        pid: of the process.
        proc: the board's /proc.
    """

    def __init__(self, pid: int, proc: Path) -> None:
        self._folder = proc / str(pid)
        self._pid = pid

    def mappings(self, part: Part) -> list[Mapping]:
        """Mappings of a part that can be struck, by address. Raises: BoardError: the process has gone."""
        try:
            text = (self._folder / "maps").read_text(errors="replace")
        except OSError as error:
            raise BoardError(f"process {self._pid}: its maps cannot be read: {error.strerror}") from None
        found = []
        for line in text.splitlines():
            match = _MAPPING.fullmatch(line)
            if match is None:
                continue
            start, end, rights, inode, name = match.groups()
            is_private = rights == "rw-p" and inode == "0" and (name in ("", "[heap]") or name.startswith("[anon:"))
            is_wanted = is_private if part == "private" else rights[:2] == "rw" and name.startswith(_MODELS)
            if is_wanted:
                found.append(Mapping(int(start, 16), int(end, 16), name))
        return found

    def flip(self, part: Part, seed: int, bits: int) -> list[Flip]:
        """Flip some bits, each in a byte of its own; the same pages and the same seed give the same bits.

        Raises:
            BoardError: the process has gone, has no such memory, or may not be written.
        """
        pages = self._pages(part)
        size_bytes = len(pages) * PAGE_BYTES
        if size_bytes < bits:
            raise BoardError(f"process {self._pid}: {size_bytes} bytes of {part} memory, expected at least {bits}")
        chance = random.Random(seed)
        flips = []
        try:
            with (self._folder / "mem").open("r+b", buffering=0) as memory:
                for place in sorted(chance.sample(range(size_bytes), bits)):
                    mapping, page, _ = pages[place // PAGE_BYTES]
                    address, bit = page + place % PAGE_BYTES, chance.randrange(8)
                    memory.seek(address)
                    before = memory.read(1)[0]
                    memory.seek(address)
                    memory.write(bytes((before ^ 1 << bit,)))
                    flips.append(Flip(address, bit, mapping.name or "anonymous", before))
        except (OSError, IndexError) as error:
            raise BoardError(f"process {self._pid}: its memory cannot be struck: {error}") from None
        return flips

    def physical_pages(self, part: Part) -> list[int]:
        """Physical addresses of the pages of a part that lie in memory now, for who strikes RAM from outside. Private
        ones that other processes have too are left out: above all the kernel's page of zeros, which is everybody's.

        Raises:
            BoardError: the process has gone, has no such memory, or the kernel does not say.
        """
        entries = [entry for _, _, entry in self._pages(part) if part == "models" or entry & EXCLUSIVE]
        frames = [entry & FRAME for entry in entries]
        if not all(frames) or not frames:
            raise BoardError(f"process {self._pid}: no physical pages of {part} memory, expected a kernel that says")
        return [frame * PAGE_BYTES for frame in frames]

    def _pages(self, part: Part) -> list[tuple[Mapping, int, int]]:
        """Pages of a part that lie in memory now: (mapping, address, entry of pagemap)."""
        found = []
        try:
            with (self._folder / "pagemap").open("rb", buffering=0) as pagemap:
                for mapping in self.mappings(part):
                    pagemap.seek(mapping.start // PAGE_BYTES * ENTRY_BYTES)
                    entries = pagemap.read((mapping.end - mapping.start) // PAGE_BYTES * ENTRY_BYTES)
                    for index in range(len(entries) // ENTRY_BYTES):
                        entry = int.from_bytes(entries[index * ENTRY_BYTES : (index + 1) * ENTRY_BYTES], "little")
                        if entry & PRESENT:
                            found.append((mapping, mapping.start + index * PAGE_BYTES, entry))
        except OSError as error:
            raise BoardError(f"process {self._pid}: its pages cannot be read: {error.strerror}") from None
        return found
