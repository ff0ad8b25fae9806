"""A FAT32 file system inside an image: read, write and remove files without a mount and without root.

It writes what the boot partition of a board needs and no more: files are replaced as a whole, folders are made, names
may be long. Both tables and FSINFO are brought up to date by `sync`. The allocation table is kept in memory: 1 MB for
the boot partition of Raspberry Pi OS.

| at | what | source |
|---|---|---|
| sector 0 | boot sector: sizes, first cluster of the root folder | p. 7-12 |
| sector `fsinfo` | count of free clusters and where to look for one | p. 21-22 |
| behind the reserved sectors | the allocation tables, 28 bits of an entry count | p. 13-18 |
| cluster 2 on | folders and files; a folder is entries of 32 bytes | p. 22-31 |

Pages are those of Microsoft, FAT32 File System Specification 1.03.

Library or own code: pyfatfs 1.1.0 leaves FSINFO stale, so that fsck complains, and stands on a package that needs
setuptools at run time.
"""

import struct
from array import array
from collections.abc import Iterator
from typing import BinaryIO, Final

from flightsw.errors import ConfigError
from hil.cards.fat_names import ENTRY_BYTES, Entry, entries_for, entries_in, folded, is_name

SECTOR_BYTES: Final = (512, 1024, 2048, 4096)
FREE: Final = 0
END: Final = 0x0FFFFFFF
END_MIN: Final = 0x0FFFFFF8
CLUSTER_MASK: Final = 0x0FFFFFFF
FIRST_CLUSTER: Final = 2
FSINFO_SIGNATURES: Final = (0x41615252, 0x61417272)
UNKNOWN: Final = 0xFFFFFFFF
FOLDER_ENTRIES_MAX: Final = 65_536
"""Most entries of a folder. Source: the specification, p. 33: a folder has at most 2 MiB."""


class FatVolume:
    """A FAT32 file system that lies in a file.

    Args:
        file: open for reading and writing, in binary.
        where: names the volume in errors.
        start_bytes: where it begins in the file [bytes].
        size_bytes: how much room it has there [bytes].

    Raises:
        ConfigError: it is no FAT32 file system, or a damaged one.
    """

    def __init__(self, file: BinaryIO, where: str, start_bytes: int, size_bytes: int) -> None:
        self._file = file
        self._where = where
        self._start_bytes = start_bytes
        boot = self._read_at(0, 512)
        if boot[510:512] != b"\x55\xaa":
            raise ConfigError(f"{where}: no boot sector, expected a FAT32 file system")
        sector_bytes, cluster_sectors, reserved, tables, root_entries = struct.unpack_from("<HBHBH", boot, 11)
        sectors_16, table_sectors_16 = struct.unpack_from("<HxH", boot, 19)
        sectors, table_sectors, flags, version, root, fsinfo = struct.unpack_from("<IIHHIH", boot, 32)
        if root_entries or sectors_16 or table_sectors_16 or version or not table_sectors:
            raise ConfigError(f"{where}: FAT12, FAT16 or no FAT at all, expected a FAT32 file system")
        if sector_bytes not in SECTOR_BYTES or not cluster_sectors or cluster_sectors & (cluster_sectors - 1):
            raise ConfigError(f"{where}: damaged: clusters of {cluster_sectors} sectors of {sector_bytes} bytes")
        if flags & 0x80:
            raise ConfigError(f"{where}: its two tables are not kept alike, expected tables that mirror each other")
        if sectors * sector_bytes > size_bytes:
            raise ConfigError(f"{where}: {sectors * sector_bytes} bytes, in a partition of {size_bytes} bytes")
        self._tables: int = tables
        self._table_start: int = reserved * sector_bytes
        self._table_bytes: int = table_sectors * sector_bytes
        self._cluster_bytes: int = sector_bytes * cluster_sectors
        self._data_start: int = self._table_start + tables * self._table_bytes
        clusters_count = (sectors * sector_bytes - self._data_start) // self._cluster_bytes
        self._clusters_end = clusters_count + FIRST_CLUSTER
        if clusters_count < 1 or not tables or self._clusters_end * 4 > self._table_bytes:
            raise ConfigError(
                f"{where}: damaged: {clusters_count} clusters in {tables} tables of {table_sectors} sectors"
            )
        self._table = array("I")
        assert self._table.itemsize == 4, "array('I') is 32 bits wide on every platform that Linux runs on"
        self._table.frombytes(self._read_at(self._table_start, self._clusters_end * 4))
        self._root: int = root
        self._fsinfo: int = fsinfo * sector_bytes if 0 < fsinfo < reserved else 0
        self._next_free = FIRST_CLUSTER
        """No cluster before it is free."""

    # -- looking

    def free_bytes(self) -> int:
        """What still fits, in whole clusters [bytes]."""
        return sum(not entry & CLUSTER_MASK for entry in self._table[FIRST_CLUSTER:]) * self._cluster_bytes

    def needed_bytes(self, size_bytes: int) -> int:
        """What a file of a size takes, in whole clusters [bytes]."""
        return -(-size_bytes // self._cluster_bytes) * self._cluster_bytes

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder. Raises: ConfigError: the file system is damaged."""
        return self._find(path) is not None

    def names(self, path: str = "") -> list[str]:
        """Names in a folder, sorted. Raises: ConfigError: there is no such folder, or it is damaged."""
        cluster = self._folder(path)
        return sorted(entry.name for entry in self._entries(cluster) if entry.name not in (".", ".."))

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of this name. Raises: ConfigError: the file system is damaged."""
        entry = self._find(path)
        return entry is not None and entry.is_folder

    def read(self, path: str) -> bytes:
        """The content of a file. Raises: ConfigError: there is no such file, or it is damaged."""
        entry = self._find(path)
        if entry is None or entry.is_folder:
            raise ConfigError(f"{self._where}: {path}: no such file")
        data = b"".join(self._cluster(number) for number in self._chain(entry.cluster))
        if len(data) < entry.size_bytes:
            raise ConfigError(f"{self._where}: {path}: damaged: {len(data)} of its {entry.size_bytes} bytes are there")
        return data[: entry.size_bytes]

    # -- changing

    def write(self, path: str, data: bytes) -> None:
        """Make a file, or give it a new content; folders on the way are made.

        Raises:
            ConfigError: it does not fit, its name is none, a folder has it, or the file system is damaged.
        """
        folder_path, _, name = path.strip("/").rpartition("/")
        folder = self._made_folder(folder_path)
        old = self._find(path)
        if old is not None and old.is_folder:
            raise ConfigError(f"{self._where}: {path}: is a folder, expected a file")
        chain = self._allocate(len(data), path)
        for index, number in enumerate(chain):
            self._put_cluster(number, data[index * self._cluster_bytes : (index + 1) * self._cluster_bytes])
        first = chain[0] if chain else 0
        if old is None:
            self._enter(folder, name, first, len(data), is_folder=False)
        else:
            self._change(folder, old, first, len(data))
            self._free(old.cluster)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; no error when absent.

        Raises:
            ConfigError: the file system is damaged.
        """
        entry = self._find(path)
        if entry is None:
            return
        if entry.is_folder:
            for name in self.names(path):
                self.remove(f"{path}/{name}")
        folder = self._folder(path.strip("/").rpartition("/")[0])
        data = bytearray(self._folder_bytes(folder))
        for slot in range(entry.first_slot, entry.slot + 1):
            data[slot * ENTRY_BYTES] = 0xE5  # the specification's mark of an entry that is free again
        self._put_folder(folder, bytes(data))
        self._free(entry.cluster)

    def sync(self) -> None:
        """Write the allocation tables and FSINFO."""
        content = self._table.tobytes()
        for number in range(self._tables):
            self._write_at(self._table_start + number * self._table_bytes, content)
        if self._fsinfo:
            sector = self._read_at(self._fsinfo, 512)
            if struct.unpack_from("<I480xI", sector) == FSINFO_SIGNATURES:
                free_count = self.free_bytes() // self._cluster_bytes
                hint = next((n for n in range(self._next_free, self._clusters_end) if self._is_free(n)), UNKNOWN)
                self._write_at(self._fsinfo + 488, struct.pack("<II", free_count, hint))
        self._file.flush()

    # -- folders

    def _find(self, path: str) -> Entry | None:
        parts = [part for part in path.split("/") if part]
        cluster = self._root
        found: Entry | None = None
        for index, part in enumerate(parts):
            found = next((entry for entry in self._entries(cluster) if folded(entry.name) == folded(part)), None)
            if found is None or (index < len(parts) - 1 and not found.is_folder):
                return None
            cluster = found.cluster or self._root
        return found

    def _folder(self, path: str) -> int:
        """First cluster of a folder."""
        if not path.strip("/"):
            return self._root
        entry = self._find(path)
        if entry is None or not entry.is_folder:
            raise ConfigError(f"{self._where}: {path}: no such folder")
        return entry.cluster

    def _made_folder(self, path: str) -> int:
        """First cluster of a folder, which is made when it is not there, with those above it."""
        if not path or self.is_folder(path):
            return self._folder(path)
        if self.exists(path):
            raise ConfigError(f"{self._where}: {path}: is a file, expected a folder")
        above, _, name = path.rpartition("/")
        parent = self._made_folder(above)
        cluster = self._allocate(1, path)[0]
        dots = Entry.dot(".", cluster) + Entry.dot("..", 0 if parent == self._root else parent)
        self._put_cluster(cluster, dots)
        self._enter(parent, name, cluster, 0, is_folder=True)
        return cluster

    def _entries(self, cluster: int) -> Iterator[Entry]:
        return entries_in(self._folder_bytes(cluster))

    def _folder_bytes(self, cluster: int) -> bytes:
        data = b"".join(self._cluster(number) for number in self._chain(cluster))
        if len(data) > FOLDER_ENTRIES_MAX * ENTRY_BYTES:
            raise ConfigError(f"{self._where}: damaged: a folder of {len(data)} bytes")
        return data

    def _put_folder(self, cluster: int, data: bytes) -> None:
        for index, number in enumerate(self._chain(cluster)):
            self._put_cluster(number, data[index * self._cluster_bytes : (index + 1) * self._cluster_bytes])

    def _enter(self, folder: int, name: str, cluster: int, size_bytes: int, *, is_folder: bool) -> None:
        """Add an entry to a folder, which grows when it is full."""
        if not is_name(name):
            raise ConfigError(f"{self._where}: {name!r}: no name that a FAT file system can hold")
        data = self._folder_bytes(folder)
        new = entries_for(name, list(entries_in(data)), cluster, size_bytes, is_folder=is_folder)
        wanted = len(new) // ENTRY_BYTES
        slot = _room(data, wanted)
        needed_bytes = (slot + wanted) * ENTRY_BYTES
        if needed_bytes > FOLDER_ENTRIES_MAX * ENTRY_BYTES:
            raise ConfigError(f"{self._where}: {name}: its folder is full, at {FOLDER_ENTRIES_MAX} entries")
        if needed_bytes > len(data):
            more = self._allocate(needed_bytes - len(data), name)
            self._table[self._chain(folder)[-1]] = more[0]
        self._put_folder(folder, data[: slot * ENTRY_BYTES] + new + data[needed_bytes:])

    def _change(self, folder: int, entry: Entry, cluster: int, size_bytes: int) -> None:
        data = bytearray(self._folder_bytes(folder))
        Entry.point(data, entry.slot, cluster, size_bytes)
        self._put_folder(folder, bytes(data))

    # -- clusters

    def _is_free(self, number: int) -> bool:
        return not self._table[number] & CLUSTER_MASK

    def _allocate(self, size_bytes: int, what: str) -> list[int]:
        """A new chain for so many bytes, in the table.

        Raises:
            ConfigError: there is no room.
        """
        wanted = -(-size_bytes // self._cluster_bytes)
        chain: list[int] = []
        for number in range(self._next_free, self._clusters_end):
            if len(chain) == wanted:
                break
            if self._is_free(number):
                chain.append(number)
        if len(chain) < wanted:
            raise ConfigError(
                f"{self._where}: {what} takes {wanted * self._cluster_bytes} bytes, expected at most the "
                f"{len(chain) * self._cluster_bytes} bytes that are free"
            )
        if chain:
            for number, following in zip(chain, [*chain[1:], END], strict=True):
                self._table[number] = following
            self._next_free = chain[-1] + 1
        return chain

    def _free(self, cluster: int) -> None:
        for number in self._chain(cluster):
            self._table[number] = FREE
            self._next_free = min(self._next_free, number)

    def _chain(self, cluster: int) -> list[int]:
        """The clusters of a file; none for an empty one.

        Raises:
            ConfigError: the chain leads nowhere, or in a circle.
        """
        chain: list[int] = []
        number = cluster
        while cluster and number < END_MIN:
            if not FIRST_CLUSTER <= number < self._clusters_end or len(chain) >= self._clusters_end:
                raise ConfigError(f"{self._where}: damaged: the chain from cluster {cluster} leads to {number}")
            chain.append(number)
            number = self._table[number] & CLUSTER_MASK
        return chain

    def _cluster(self, number: int) -> bytes:
        return self._read_at(self._cluster_start(number), self._cluster_bytes)

    def _put_cluster(self, number: int, data: bytes) -> None:
        self._write_at(self._cluster_start(number), data.ljust(self._cluster_bytes, b"\0"))

    def _cluster_start(self, number: int) -> int:
        return self._data_start + (number - FIRST_CLUSTER) * self._cluster_bytes

    def _read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        self._file.seek(self._start_bytes + offset_bytes)
        data = self._file.read(size_bytes)
        if len(data) < size_bytes:
            end_bytes = self._start_bytes + offset_bytes + len(data)
            raise ConfigError(f"{self._where}: ends after {end_bytes} bytes: cut off")
        return data

    def _write_at(self, offset_bytes: int, data: bytes) -> None:
        self._file.seek(self._start_bytes + offset_bytes)
        self._file.write(data)


def _room(data: bytes, wanted: int) -> int:
    """The first slot of a folder with so many free ones in a row; the last may lie behind its end."""
    run = 0
    count = len(data) // ENTRY_BYTES
    for slot in range(count):
        first = data[slot * ENTRY_BYTES]
        if first == 0:
            return slot - run
        run = run + 1 if first == 0xE5 else 0
        if run == wanted:
            return slot - run + 1
    return count - run
