"""Numbered records that can be found again behind damage: the unit of `StateLog` and `RingLog`.

| field | bytes | meaning |
|---|---|---|
| mark | 4 | D3 0F 5A 96: where a reader that lost its place looks for the next record |
| CRC-32C | 4, big-endian | over the name of the log and all that follows |
| length | 4, big-endian | of data |
| generation | 4, big-endian | which snapshot the record belongs to |
| number | 8, big-endian | rises by one with each record |
| flags | 1 | meaning of the log that writes it |
| data | length | |

The name of the log is under the CRC, so that a record of another log, as the data of this one, never passes for one of
this log. Layout: ours.
"""

import struct
from typing import Final, NamedTuple

from flightsw.errors import StorageError
from flightsw.storage.records import RECORD_BYTES_MAX
from flightsw.wire.crc import crc32c

MARK: Final = b"\xd3\x0f\x5a\x96"
NUMBER_MAX: Final = 1 << 62
"""Highest number: no log lives that long; a higher one is damage, and must not bring the next one beyond 64 bits."""
GENERATION_MAX: Final = 1 << 31
"""Highest generation, for the same reason."""
_HEAD: Final = struct.Struct(">4sI")
_FIELDS: Final = struct.Struct(">IIQB")
OVERHEAD_BYTES: Final = _HEAD.size + _FIELDS.size
"""What a record takes on the disk beside its data [bytes]."""


class Entry(NamedTuple):
    """One record as it was found."""

    number: int
    generation: int
    flags: int
    data: bytes


class Entries(NamedTuple):
    """What a file holds."""

    entries: list[Entry]
    """In the order of the file."""
    gaps: list[int]
    """Where stretches lie in which no record holds: the index of the record behind each, rising."""

    @property
    def damaged_count(self) -> int:
        """How many such stretches there are."""
        return len(self.gaps)


def entry_bytes(log: str, entry: Entry) -> bytes:
    """What goes to the disk.

    Raises:
        StorageError: the data are longer than a record may be.
    """
    if len(entry.data) > RECORD_BYTES_MAX:
        raise StorageError(f"{log}: record of {len(entry.data)} bytes, at most {RECORD_BYTES_MAX}")
    body = _FIELDS.pack(len(entry.data), entry.generation, entry.number, entry.flags) + entry.data
    return _HEAD.pack(MARK, crc32c(log.encode() + body)) + body


def entries_in(log: str, content: bytes) -> Entries:
    """All records of a file that hold; what does not hold is skipped up to the next mark that begins one that does."""
    salt = log.encode()
    entries: list[Entry] = []
    gaps: list[int] = []
    offset = 0
    while 0 <= offset < len(content):
        entry = _entry_at(salt, content, offset)
        if entry is not None:
            entries.append(entry)
            offset += OVERHEAD_BYTES + len(entry.data)
            continue
        gaps.append(len(entries))
        while (offset := content.find(MARK, offset + 1)) >= 0 and _entry_at(salt, content, offset) is None:
            pass
    return Entries(entries, gaps)


def _entry_at(salt: bytes, content: bytes, offset: int) -> Entry | None:
    """The record that starts at an offset, or None when none that holds does."""
    body = offset + _HEAD.size
    start = offset + OVERHEAD_BYTES
    if start > len(content) or content[offset : offset + len(MARK)] != MARK:
        return None
    length, generation, number, flags = _FIELDS.unpack_from(content, body)
    if length > RECORD_BYTES_MAX or start + length > len(content) or number > NUMBER_MAX or generation > GENERATION_MAX:
        return None
    if crc32c(salt + content[body : start + length]) != int.from_bytes(content[offset + 4 : body], "big"):
        return None
    return Entry(number, generation, flags, content[start : start + length])
