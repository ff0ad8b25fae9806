"""Entries of FAT folders and their names: a short one of 8 + 3 letters, and before it a long one in parts.

Source: Microsoft, FAT32 File System Specification 1.03, p. 22-31. The two flags of lower case in byte 12 are Windows
NT's, which mtools and Linux follow too.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

ENTRY_BYTES: Final = 32
LONG: Final = 0x0F
FOLDER: Final = 0x10
ARCHIVE: Final = 0x20
VOLUME: Final = 0x08
LAST_PART: Final = 0x40
LOWER_NAME: Final = 0x08
LOWER_SUFFIX: Final = 0x10
PART_CHARACTERS: Final = 13
NAME_CHARACTERS_MAX: Final = 255
FIRST_DAY: Final = 0x0021
"""1980-01-01: every file has it, so that the same files make the same image."""
SHORT_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
FORBIDDEN: Final = frozenset('"*/:<>?\\|') | frozenset(map(chr, range(32)))


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder as its folder names it."""

    name: str
    short: bytes
    """Short name: 11 bytes, padded with blanks."""
    is_folder: bool
    cluster: int
    """First cluster; 0 for an empty file."""
    size_bytes: int
    first_slot: int
    """Index of its first entry, which is that of the long name where there is one."""
    slot: int
    """Index of its short entry."""

    @staticmethod
    def dot(name: str, cluster: int) -> bytes:
        """The entry of `.` or `..`."""
        return _short_entry(name.encode().ljust(11), FOLDER, cluster, 0)

    @staticmethod
    def point(folder: bytearray, slot: int, cluster: int, size_bytes: int) -> None:
        """Let an entry name another content."""
        struct.pack_into("<H", folder, slot * ENTRY_BYTES + 20, cluster >> 16)
        struct.pack_into("<HI", folder, slot * ENTRY_BYTES + 26, cluster & 0xFFFF, size_bytes)


def folded(name: str) -> str:
    """A name as FAT compares it: without case."""
    return name.rstrip(" .").upper() or name


def is_name(name: str) -> bool:
    """Whether FAT can hold the name."""
    return (
        0 < len(name.encode("utf-16-le")) // 2 <= NAME_CHARACTERS_MAX
        and name == name.strip(" ").rstrip(".")
        and not FORBIDDEN & set(name)
    )


def entries_in(data: bytes) -> Iterator[Entry]:
    """The entries of a folder; volume labels, and long names whose short one is gone, are passed over."""
    parts: dict[int, str] = {}
    checksum = first_slot = -1
    for slot in range(len(data) // ENTRY_BYTES):
        raw = data[slot * ENTRY_BYTES : (slot + 1) * ENTRY_BYTES]
        if raw[0] == 0:
            return
        if raw[0] == 0xE5:
            parts = {}
        elif raw[11] & 0x3F == LONG:
            if raw[0] & LAST_PART:
                parts, checksum, first_slot = {}, raw[13], slot
            parts[raw[0] & 0x3F] = (raw[1:11] + raw[14:26] + raw[28:32]).decode("utf-16-le", "replace")
        else:
            if not raw[11] & VOLUME:
                whole = len(parts) > 0 and sorted(parts) == list(range(1, len(parts) + 1))
                is_long = whole and checksum == short_checksum(raw[:11])
                name = "".join(parts[n] for n in sorted(parts)).split("\0")[0] if is_long else _short_text(raw)
                high, low, size_bytes = struct.unpack_from("<H4xHI", raw, 20)
                cluster = (high << 16 | low) & 0x0FFFFFFF
                is_folder = bool(raw[11] & FOLDER)
                start = first_slot if is_long else slot
                yield Entry(name, bytes(raw[:11]), is_folder, cluster, size_bytes, start, slot)
            parts = {}


def entries_for(name: str, present: Sequence[Entry], cluster: int, size_bytes: int, *, is_folder: bool) -> bytes:
    """The entries of a new name: its long parts, last first, and the short one.

    Args:
        name: what `is_name` holds for.
        present: what is in the folder: the short name is none of theirs.
        cluster: its first cluster.
        size_bytes: of the file [bytes]; 0 for a folder.
        is_folder: whether it is one.
    """
    short = _short_name(name, {entry.short for entry in present})
    end = _short_entry(short, FOLDER if is_folder else ARCHIVE, cluster, size_bytes)
    if _short_text(end) == name:
        return end
    units = name.encode("utf-16-le")
    count = -(-len(units) // (PART_CHARACTERS * 2))
    if len(units) % (PART_CHARACTERS * 2):
        units += b"\0\0"
    units = units.ljust(count * PART_CHARACTERS * 2, b"\xff")
    parts = b""
    for number in range(count, 0, -1):
        text = units[(number - 1) * PART_CHARACTERS * 2 : number * PART_CHARACTERS * 2]
        order = number | (LAST_PART if number == count else 0)
        parts += struct.pack(
            "<B10sBBB12sH4s", order, text[:10], LONG, 0, short_checksum(short), text[10:22], 0, text[22:]
        )
    return parts + end


def short_checksum(short: bytes) -> int:
    """What ties the parts of a long name to its short one. Source: the specification, p. 28."""
    total = 0
    for byte in short:
        total = ((total & 1) << 7 | total >> 1) + byte & 0xFF
    return total


def _short_entry(short: bytes, attributes: int, cluster: int, size_bytes: int) -> bytes:
    return struct.pack(
        "<11sBBBHHHHHHHI",
        short,
        attributes,
        0,
        0,
        0,
        FIRST_DAY,
        FIRST_DAY,
        cluster >> 16,
        0,
        FIRST_DAY,
        cluster & 0xFFFF,
        size_bytes,
    )


def _short_text(raw: bytes) -> str:
    """The short name as it is shown."""
    first = b"\xe5" if raw[0] == 0x05 else raw[:1]  # the specification's stand-in for a first byte of 0xE5
    name = (first + raw[1:8]).decode("cp437").rstrip(" ")
    suffix = raw[8:11].decode("cp437").rstrip(" ")
    name = name.lower() if raw[12] & LOWER_NAME else name
    suffix = suffix.lower() if raw[12] & LOWER_SUFFIX else suffix
    return f"{name}.{suffix}" if suffix else name


def _short_name(name: str, taken: set[bytes]) -> bytes:
    """A short name that is not taken: the name itself where it is one, else its beginning, a tilde and a number."""
    stem, dot, suffix = name.upper().rpartition(".")
    if not dot or not stem:
        stem, suffix = name.upper(), ""
    letters = "".join(c if c in SHORT_LETTERS else "_" for c in stem.replace(" ", "").replace(".", ""))
    ending = "".join(c if c in SHORT_LETTERS else "_" for c in suffix.replace(" ", ""))[:3].ljust(3)
    plain = (letters[:8].ljust(8) + ending).encode()
    if plain not in taken and letters == stem and len(stem) <= 8 and len(suffix) <= 3:
        return plain
    for number in range(1, 1_000_000):
        tail = f"~{number}"
        short = ((letters[: 8 - len(tail)] + tail).ljust(8) + ending).encode()
        if short not in taken:
            return short
    raise AssertionError("a folder of 65,536 entries leaves one of a million names free")
