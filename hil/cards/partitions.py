"""Partition tables of images, MBR and GPT: where the boot partition lies, and where the root.

| table | layout | source |
|---|---|---|
| MBR | four entries of 16 bytes at 446, `55 AA` at 510 | UEFI Specification 2.10, §5.2.1 |
| GPT | header in sector 1 with its CRC-32, entries where it says | §5.3 |

Sectors are taken to have 512 bytes, as cards and USB disks have.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Final

from flightsw.errors import ConfigError

SECTOR_BYTES: Final = 512
MBR_PROTECTIVE: Final = 0xEE
GPT_ENTRIES_MAX: Final = 1024
"""Most entries of a table that we read: 128 are usual."""
FAT_MARK: Final = (b"FAT32   ", 82)
"""What stands in the boot sector of a FAT32 file system, and where."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of an image."""

    number: int
    """From 1."""
    start_bytes: int
    size_bytes: int
    is_fat: bool
    """Whether its boot sector says FAT32."""


def partitions(file: BinaryIO, where: str, size_bytes: int) -> tuple[Partition, ...]:
    """The partitions of an image, in the order of its table.

    Args:
        file: the image, open in binary.
        where: names it in errors.
        size_bytes: of the image.

    Raises:
        ConfigError: there is no table, it is damaged, or a partition ends behind the end of the image.
    """
    sector = _sector(file, 0)
    if len(sector) < SECTOR_BYTES or sector[510:] != b"\x55\xaa":
        raise ConfigError(f"{where}: no partition table, expected the image of a whole disk")
    rows = [struct.unpack_from("<B3xB3xII", sector, 446 + 16 * index) for index in range(4)]
    if any(kind == MBR_PROTECTIVE for _, kind, _, _ in rows):
        spans = _gpt(file, where)
    else:
        if any(status not in (0, 0x80) for status, _, _, _ in rows):
            raise ConfigError(f"{where}: its partition table is damaged, expected the image of a whole disk")
        spans = [(number, first, count) for number, (_, kind, first, count) in enumerate(rows, 1) if kind and count]
    found = []
    for number, first, count in spans:
        end_bytes = (first + count) * SECTOR_BYTES
        if end_bytes > size_bytes:
            raise ConfigError(f"{where}: partition {number} ends at {end_bytes} of {size_bytes} bytes: cut off")
        text, at = FAT_MARK
        is_fat = _sector(file, first)[at : at + len(text)] == text
        found.append(Partition(number, first * SECTOR_BYTES, count * SECTOR_BYTES, is_fat))
    return tuple(found)


def boot_partition(found: tuple[Partition, ...], where: str) -> Partition:
    """The first FAT32 partition, which the firmware of a Raspberry Pi boots from.

    Raises:
        ConfigError: there is none.
    """
    for partition in found:
        if partition.is_fat:
            return partition
    raise ConfigError(f"{where}: {len(found)} partitions, none of them FAT32, expected a boot partition")


def _gpt(file: BinaryIO, where: str) -> list[tuple[int, int, int]]:
    """Rows of (number, first sector, count of sectors)."""
    header = _sector(file, 1)
    if header[:8] != b"EFI PART":
        raise ConfigError(f"{where}: a protective table but no GPT: damaged")
    size, checksum = struct.unpack_from("<II", header, 12)
    first, count, entry_bytes, entries_checksum = struct.unpack_from("<QIII", header, 72)
    if not 92 <= size <= SECTOR_BYTES or zlib.crc32(header[:16] + bytes(4) + header[20:size]) != checksum:
        raise ConfigError(f"{where}: the checksum of its GPT does not hold: damaged")
    if not 128 <= entry_bytes <= 4096 or not 0 < count <= GPT_ENTRIES_MAX:
        raise ConfigError(f"{where}: a GPT of {count} entries of {entry_bytes} bytes: damaged")
    file.seek(first * SECTOR_BYTES)
    entries = file.read(count * entry_bytes)
    if zlib.crc32(entries) != entries_checksum:
        raise ConfigError(f"{where}: the checksum of its GPT's entries does not hold: damaged")
    rows = []
    for index in range(count):
        kind, start, last = struct.unpack_from("<16s16xQQ", entries, index * entry_bytes)
        if any(kind) and last >= start:
            rows.append((index + 1, start, last - start + 1))
    return rows


def _sector(file: BinaryIO, number: int) -> bytes:
    file.seek(number * SECTOR_BYTES)
    return file.read(SECTOR_BYTES)
