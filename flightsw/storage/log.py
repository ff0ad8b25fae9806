"""An append log of CRC'd records: the form of durable state that loses nothing acknowledged at a power cut.

A record is durable once `sync` has returned. After a power cut the unsynced tail may be there, torn or gone, so reading
stops at the first record whose CRC does not hold, and what follows is cut off and counted before anything is appended:
a record behind a torn one could never be read back. Measured: no acknowledged record lost in 3,000 power cuts
(docs/determinism.md).
"""

from collections.abc import Iterable

from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.records import HEADER, record_at, seal


class RecordLog:
    """One log on one disk.

    Args:
        disk: where it lies.
        name: its file name; a missing file is an empty log.

    Raises:
        StorageError: the file is there and cannot be read or mended.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._name = name
        self._unsynced = False
        self._suspect = False
        self.torn_bytes_count = 0
        """Bytes that were cut off because no record in them held [bytes]."""
        self.records_count = 0
        self._mend()

    def append(self, record: bytes) -> None:
        """Add a record; durable after `sync`.

        Raises:
            StorageError: the disk is full or broken; the record is not in the log.
        """
        if self._suspect:
            self._mend()
        sealed = seal(record)
        self._unsynced = True
        try:
            self._disk.append(self._name, sealed)
        except StorageError:
            self._suspect = True  # it may have taken a part: the next append would stand behind a torn record
            raise
        self.records_count += 1

    def sync(self) -> None:
        """Make all appended records durable.

        Raises:
            StorageError: they are not; what the disk had in flight may be lost, so the next call writes the log anew.
        """
        if self._suspect:
            self._mend()
        if not self._unsynced:
            return
        try:
            self._disk.sync(self._name)
        except StorageError:
            self._suspect = True
            raise
        self._unsynced = False

    def records(self) -> list[bytes]:
        """All records, oldest first.

        Raises:
            StorageError: the file cannot be read.
        """
        return self._scan()[0]

    def compact(self, records: Iterable[bytes]) -> None:
        """Replace the whole log, atomically and durably.

        Raises:
            StorageError: the old log stands.
        """
        kept = [seal(record) for record in records]
        self._disk.replace(self._name, b"".join(kept))
        self.records_count = len(kept)
        self._unsynced = self._suspect = False

    def remove(self) -> None:
        """Forget the log and its file.

        Raises:
            StorageError: the disk is broken.
        """
        self._disk.remove(self._name)
        self.records_count = 0
        self._unsynced = self._suspect = False

    def _scan(self) -> tuple[list[bytes], bytes, int]:
        """Records that hold, the content, and where the first that does not hold starts."""
        content = self._disk.read(self._name) if self._disk.exists(self._name) else b""
        records: list[bytes] = []
        offset = 0
        while (record := record_at(content, offset)) is not None:
            records.append(record)
            offset += HEADER.size + len(record)
        return records, content, offset

    def _mend(self) -> None:
        """Cut off a torn tail; after a failed write, also put the sound part on the disk anew."""
        records, content, sound = self._scan()
        if self._suspect or sound < len(content):
            self._disk.replace(self._name, content[:sound])
        self.torn_bytes_count += len(content) - sound
        self.records_count = len(records)
        self._unsynced = self._suspect = False
