"""Stores with a planted bug. Both explorers must find every one of them, or they prove nothing of the real stores."""

import os
from pathlib import Path
from typing import Final

from flightsw.errors import StorageError
from flightsw.host.files import TEMPORARY_SUFFIX, FileDisk
from flightsw.ports import Disk, Random
from flightsw.storage.log import RecordLog
from flightsw.storage.records import seal, unseal
from hil.powercut.stores import FILE, SIZES_BYTES, STEPS, Log, LogSubject, Rewrite, TwoCopiesSubject
from hil.powercut.subject import DISK_BYTES, Notes, Subject, blob, number_of, record_faults, state_faults
from hil.sim.faulty_disk import FaultyDisk

LENGTH_BYTES: Final = 4


class _NeverSynced(RecordLog):
    """Says that its records are durable, and has asked nobody."""

    def sync(self) -> None:
        """Do nothing."""


class _Unchecked:
    """A log of records with a length and no CRC."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def append(self, record: bytes) -> None:
        """Add a record."""
        self._disk.append(FILE, len(record).to_bytes(LENGTH_BYTES, "big") + record)

    def sync(self) -> None:
        """Make all records durable."""
        if self._disk.exists(FILE):
            self._disk.sync(FILE)

    def records(self) -> list[bytes]:
        """All records, whatever they hold."""
        content = self._disk.read(FILE) if self._disk.exists(FILE) else b""
        records, at = [], 0
        while at < len(content):
            start = at + LENGTH_BYTES
            at = start + int.from_bytes(content[at:start], "big")
            records.append(content[start:at])
        return records

    def rewrite(self, records: list[bytes]) -> None:
        """Replace all records."""
        lengths = [len(record).to_bytes(LENGTH_BYTES, "big") for record in records]
        self._disk.replace(FILE, b"".join(map(bytes.__add__, lengths, records)))


class _AcknowledgedEarly:
    """Calls a record durable, and writes it then."""

    name = "mutant-ack-before-write"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Append and sync."""
        log = RecordLog(disk, FILE)
        for _ in range(STEPS):
            notes.ack("record", number := notes.next_number("record"))
            log.append(blob(number, random.choice(SIZES_BYTES)))
            log.sync()

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Acknowledged records are there."""
        return record_faults(notes, "record", [number_of(one) for one in RecordLog(disk, FILE).records()])


class _InPlace:
    """One copy, overwritten where it lies."""

    name = "mutant-overwritten-in-place"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Store."""
        for _ in range(STEPS):
            notes.begin("state", number := notes.next_number("state"))
            disk.write(FILE, seal(blob(number, random.choice(SIZES_BYTES))))
            disk.sync(FILE)
            notes.ack("state", number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """The old state or the new one."""
        try:
            found = number_of(unseal(disk.read(FILE))) if disk.exists(FILE) else None
        except StorageError:
            return ["the state is torn"]
        return state_faults(notes, "state", found)


class _ForgottenFolder:
    """Calls a removal durable without a sync of the folder."""

    name = "mutant-removal-not-synced"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Store and remove."""
        for _ in range(STEPS):
            name = f"state {random.randrange(3)}"
            value = None if disk.exists(name) else notes.next_number(name)
            notes.begin(name, value)
            if value is None:
                disk.remove(name)
            else:
                disk.append(name, seal(blob(value, 40)))
                disk.sync(name)
            notes.ack(name, value)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Each state as it was, or as it was to be."""
        faults = []
        for name in notes.keys("state"):
            try:
                found = number_of(unseal(disk.read(name))) if disk.exists(name) else None
            except StorageError:
                found = None  # cut while it was written
            faults += state_faults(notes, name, found)
        return faults


def _never_synced(disk: Disk) -> tuple[Log, Rewrite | None]:
    log = _NeverSynced(disk, FILE)
    return log, log.compact


def _unchecked(disk: Disk) -> tuple[Log, Rewrite | None]:
    log = _Unchecked(disk)
    return log, log.rewrite


def mutants() -> list[Subject]:
    """Those on the disk port."""
    return [
        LogSubject("mutant-never-synced", _never_synced),
        LogSubject("mutant-no-crc", _unchecked),
        _AcknowledgedEarly(),
        _InPlace(),
        _ForgottenFolder(),
    ]


class NeverDurable(FaultyDisk):
    """A disk that syncs nothing: no subject may pass on it."""

    def sync(self, name: str) -> None:
        """Do nothing, but count as a change."""
        self._strike(name, lambda: None)
        self._file(name)

    def replace(self, name: str, data: bytes) -> None:
        """New content that is not durable."""
        self.write(name, data)


class _LazyDisk(FileDisk):
    """Replaces files without one of the two syncs.

    Args:
        folder: where the files lie.
        syncs_file, syncs_folder: what it does all the same.
    """

    def __init__(self, folder: Path, *, syncs_file: bool, syncs_folder: bool) -> None:
        super().__init__(folder, DISK_BYTES)
        self._syncs_file = syncs_file
        self._syncs_folder = syncs_folder

    def replace(self, name: str, data: bytes) -> None:
        """New content: atomic for those who look, and not for a power cut."""
        path = self.folder / name
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if self._syncs_file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if self._syncs_folder:
            descriptor = os.open(self.folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        self._set_size(name, len(data))


class LazyFiles:
    """A store of two copies that is right, on files that are not synced as they must be.

    Args:
        name: for the command line.
        syncs_file, syncs_folder: what a replace does.
    """

    def __init__(self, name: str, *, syncs_file: bool, syncs_folder: bool) -> None:
        self.name = name
        self._syncs_file = syncs_file
        self._syncs_folder = syncs_folder
        self._subject = TwoCopiesSubject()

    def live(self, folder: Path, random: Random, notes: Notes) -> None:
        """Store on the lazy disk."""
        disk = _LazyDisk(folder, syncs_file=self._syncs_file, syncs_folder=self._syncs_folder)
        self._subject.live(disk, random, notes)
        disk.close()

    def check(self, folder: Path, notes: Notes) -> list[str]:
        """The old state or the new one."""
        disk = FileDisk(folder, DISK_BYTES)
        try:
            return self._subject.check(disk, notes)
        finally:
            disk.close()
