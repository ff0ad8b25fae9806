"""Torn writes: a power cut that keeps of each unflushed write the sectors that chance keeps.

While a machine records, its writes go into a layer that is thrown away and into a log in their order, flushes among
them. After the power cut the disk is made from the log: what a later flush has covered is whole, and of each write
behind the last flush every sector is there or not, as the seed draws. A drive with a volatile cache may do just that.

Layout of the log: Linux, drivers/md/dm-log-writes.c; QEMU 7.2, block/blklogwrites.c writes the same.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flightsw.errors import BoardError
from flightsw.ports import Random
from hil.emulation.tools import call, scratch_folder

SECTOR_BYTES: Final = 512
MAGIC: Final = 0x6A73_6677_7368_72
FLUSH: Final = 1
FUA: Final = 2
DISCARD: Final = 4
_SUPER: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQQ")


@dataclass(frozen=True, slots=True)
class Write:
    """One entry of a log."""

    sector: int
    flags: int
    data: bytes
    """Whole sectors; empty for a flush."""


@dataclass(frozen=True, slots=True)
class Torn:
    """What a power cut has left of a log."""

    flushed_count: int
    """Sectors that a flush had covered."""
    kept_count: int
    """Unflushed sectors that are there."""
    lost_count: int
    """Unflushed sectors that are not."""


def entries(log: bytes) -> Iterator[Write]:
    """The writes and flushes of a log, in their order.

    Raises:
        BoardError: it is none.
    """
    if len(log) < SECTOR_BYTES:
        return
    magic, _, count, sector_bytes = _SUPER.unpack_from(log)
    if magic != MAGIC or sector_bytes != SECTOR_BYTES:
        raise BoardError(f"log of writes: magic {magic:#x}, sectors of {sector_bytes} bytes: not one of QEMU's")
    offset = SECTOR_BYTES
    for _ in range(count):
        sector, sectors, flags, _ = _ENTRY.unpack_from(log, offset)
        offset += SECTOR_BYTES
        length = 0 if flags & DISCARD else sectors * SECTOR_BYTES
        yield Write(sector, flags, log[offset : offset + length])
        offset += length


def surviving(log: bytes, rng: Random) -> tuple[dict[int, bytes], Torn]:
    """Which sectors a disk has after a power cut, by their numbers; and how many were lost."""
    writes = list(entries(log))
    last_flush = max((index for index, write in enumerate(writes) if write.flags & FLUSH), default=-1)
    sectors: dict[int, bytes] = {}
    flushed = kept = lost = 0
    for index, write in enumerate(writes):
        is_durable = index < last_flush or bool(write.flags & FUA)
        for start in range(0, len(write.data), SECTOR_BYTES):
            if is_durable:
                flushed += 1
            elif rng.random() < 0.5:
                kept += 1
            else:
                lost += 1
                continue
            sectors[write.sector + start // SECTOR_BYTES] = write.data[start : start + SECTOR_BYTES]
    return sectors, Torn(flushed, kept, lost)


def tear(log: Path, disk: Path, rng: Random) -> Torn:
    """Bring to a disk what a power cut has left of a log.

    Args:
        log: of the writes since the machine began to record.
        disk: qcow2 file as it was then.
        rng: decides about each unflushed sector.

    Raises:
        BoardError: the log is none.
        ConfigError: qemu-io is missing, or cannot write.
    """
    sectors, torn = surviving(log.read_bytes(), rng)
    with scratch_folder() as folder:
        commands: list[str | Path] = []
        for number, (first, data) in enumerate(_runs(sectors)):
            part = Path(folder) / str(number)
            part.write_bytes(data)
            commands += ["-c", f"write -q -s {part} {first * SECTOR_BYTES} {len(data)}"]
        if commands:
            call("qemu-io", "-f", "qcow2", *commands, disk)
    return torn


def _runs(sectors: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Sectors that follow each other, together."""
    first, data = -1, bytearray()
    for sector in sorted(sectors):
        if data and sector != first + len(data) // SECTOR_BYTES:
            yield first, bytes(data)
            data.clear()
        if not data:
            first = sector
        data += sectors[sector]
    if data:
        yield first, bytes(data)
