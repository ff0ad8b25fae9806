"""Finds copies of known bytes in the RAM of an emulated board: of a model's weights, wherever they lie.

Physical pages have no order, so each page is looked at alone. Words of eight bytes of the data, one in each
`STEP_BYTES`, are searched at every alignment; around a word that is found, the copy reaches as far as RAM and data are
equal. So a stretch of `STEP_BYTES` + 7 equal bytes in one page is found, unless its only words of those are of fewer
than `DISTINCT_BYTES_MIN` different bytes, or lie a second time in the data. What a runtime keeps in another order or
form, as matrices packed for its kernels, is none.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from hil.emulation.memory import PAGE_BYTES, RAM_BASE, GuestMemory

WORD_BYTES: Final = 8
STEP_BYTES: Final = 32
DISTINCT_BYTES_MIN: Final = 5
"""Fewest different bytes of a word that is looked for: zeros and the like are everywhere."""
CHUNK_BYTES: Final = 1 << 22
_LOW_BITS: Final = 0xFFFF


class Extent(NamedTuple):
    """A stretch of a copy, within one page."""

    address: int
    """Physical address of its first byte."""
    offset: int
    """Place of that byte in the data."""
    length: int
    """[bytes]."""


def find_copies(memory: GuestMemory, data: bytes, parts: Sequence[tuple[int, int]]) -> list[Extent]:
    """Stretches of RAM that hold parts of the data, by address.

    Args:
        memory: of a machine that stands still.
        data: whose copies are looked for.
        parts: (start, end) in the data of what counts.
    """
    words = {
        int.from_bytes(data[at : at + WORD_BYTES], "little"): at
        for start, end in parts
        for at in range(start, end - WORD_BYTES + 1, STEP_BYTES)
        if len(set(data[at : at + WORD_BYTES])) >= DISTINCT_BYTES_MIN
    }
    wanted = np.array(sorted(words), dtype="<u8")
    may_be = np.zeros(_LOW_BITS + 1, dtype=bool)
    may_be[wanted & _LOW_BITS] = True
    found: set[Extent] = set()
    for start in range(0, memory.size_bytes, CHUNK_BYTES):
        chunk = memory.read(RAM_BASE + start, min(CHUNK_BYTES, memory.size_bytes - start))
        if not any(chunk[:PAGE_BYTES]) and not chunk.strip(b"\0"):
            continue
        for shift in range(WORD_BYTES):
            read = np.frombuffer(chunk, "<u8", (len(chunk) - shift) // WORD_BYTES, shift)
            likely = np.flatnonzero(may_be[read & _LOW_BITS])
            for index in likely[np.isin(read[likely], wanted)]:
                address = RAM_BASE + start + shift + int(index) * WORD_BYTES
                at = words[int(read[index])]
                part = next(one for one in parts if one[0] <= at < one[1])
                found.add(_extent(memory, data[slice(*part)], part[0], address, at))
    return sorted(one for one in found if one.length >= STEP_BYTES)


def _extent(memory: GuestMemory, part: bytes, start: int, address: int, at: int) -> Extent:
    """The stretch around a word, as far as page and part reach.

    Args:
        memory: of the machine.
        part: of the data.
        start: of the part.
        address: of the word in RAM.
        at: of the word in the data.
    """
    page = address - address % PAGE_BYTES
    before = min(address - page, at - start)
    after = min(page + PAGE_BYTES - address, start + len(part) - at)
    ram = np.frombuffer(memory.read(address - before, before + after), np.uint8)
    true = np.frombuffer(part, np.uint8, before + after, at - start - before)
    wrong = np.flatnonzero(ram != true)
    first = int(wrong[wrong < before].max(initial=-1)) + 1
    last = int(wrong[wrong >= before].min(initial=before + after))
    return Extent(address - before + first, at - before + first, last - first)
