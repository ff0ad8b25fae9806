"""Slots on a disk: images in files, and the boot record that a launcher reads (`boards.boot_record`).

The order of writes keeps a slot bootable at any power cut: a slot is taken out of the record before its image is
overwritten, and put into it when the new image was read back.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from boards import boot_record
from boards.boot_record import BootRecord, Content
from flightsw.errors import StorageError
from flightsw.host.files import FileDisk
from flightsw.ports import Disk, SlotStatus
from flightsw.storage.manifest import IMAGE_BYTES_MAX

LAUNCHER_VERSION: Final = 1
"""Of the boot record and of how a slot is started; a manifest may ask for a least one."""
IMAGE_SUFFIX: Final = ".image"


WHEEL: Final = "wheel"
"""What manifests call images that are wheels, each started in an environment of its own."""
SLOT_NAMES: Final = (boot_record.FACTORY, *boot_record.SLOTS)
SLOT_DISK_BYTES: Final = 4 * IMAGE_BYTES_MAX
"""What the slots may take [bytes]: two images, and each once more while it is replaced."""


class DiskSlots:
    """Implements `flightsw.ports.Slots`.

    Args:
        disk: where record and images lie.
        target: the kind of images that are booted here.
        factory_version: of the factory image.
        prefix: before all names on the disk.
        running: the slot that runs, as its launcher says; None where the record says it.
    """

    def __init__(
        self, disk: Disk, target: str, factory_version: str, prefix: str = "", running: str | None = None
    ) -> None:
        self.target: Final = target
        self.launcher: Final = LAUNCHER_VERSION
        self._disk = disk
        self._factory_version = factory_version
        self._prefix = prefix
        self._told: tuple[BootRecord, SlotStatus] | None = None
        """The last status and what it is of: telemetry asks in every cycle."""
        self._record, self._is_uneven = boot_record.load(self._read)
        if running is not None:
            self._record = replace(self._record, running=running)

    @property
    def record(self) -> BootRecord:
        """The boot record."""
        return self._record

    def choose(self) -> str:
        """What a launcher does before a boot: decides the slot, durably, and returns it."""
        self._record, self._is_uneven = boot_record.load(self._read)
        chosen = boot_record.chosen(self._record, self.holds)
        if chosen != self._record or self._is_uneven:
            try:
                self._store(chosen)
            except StorageError:
                self._record = boot_record.unpaid(chosen)
        return self._record.running

    def holds(self, slot: str) -> bool:
        """Whether the image of a slot is what the record says."""
        content = self._record.contents.get(slot)
        if content is None:
            return False
        data = self._read(slot + IMAGE_SUFFIX)
        return data is not None and len(data) == content.size_bytes and _sha256(data) == content.sha256

    def image(self, slot: str) -> bytes:
        """The image of a slot. Raises: StorageError."""
        return self._disk.read(self._name(slot + IMAGE_SUFFIX))

    # -- the Slots port

    def status(self) -> SlotStatus:
        """What runs."""
        record = self._record
        if self._told is not None and self._told[0] is record:
            return self._told[1]
        content = record.contents.get(record.running)
        status = SlotStatus(
            running=record.running,
            version=self._factory_version if content is None else content.version,
            image=b"" if content is None else bytes.fromhex(content.image),
            is_trial=record.is_trial,
            boots_left=record.boots_left if record.is_trial else 0,
            previous="" if record.previous == record.committed else record.previous,
            fallback=record.fallback,
        )
        self._told = (record, status)
        return status

    def install(self, data: bytes, version: str, image: bytes) -> str:
        """Write an image into the spare slot and read it back; returns the slot.

        Raises:
            StorageError: it does not fit, or does not read back; then the slot is empty, and what runs is untouched.
        """
        slot = self._spare()
        content = Content(version, image.hex(), _sha256(data), len(data))
        if self._record.contents.get(slot) == content and self.holds(slot):
            return slot
        if slot in self._record.contents or self._record.previous == slot:
            self._store(boot_record.installed(self._record, slot, None))
        self._disk.replace(self._name(slot + IMAGE_SUFFIX), data)
        if self._disk.read(self._name(slot + IMAGE_SUFFIX)) != data:
            raise StorageError(f"slot {slot}: {len(data)} bytes do not read back as they were written")
        self._store(boot_record.installed(self._record, slot, content))
        return slot

    def request_trial(self, image: bytes, boots_count: int) -> str:
        """Boot the slot with this image on trial from the next boot on; returns the slot.

        Raises:
            StorageError: no slot holds it, or the record cannot be written.
        """
        slot = self._spare()
        content = self._record.contents.get(slot)
        if content is None or content.image != image.hex() or not self.holds(slot):
            raise StorageError(f"slot {slot} does not hold image {image.hex()[:16]}")
        self._store(boot_record.on_trial(self._record, slot, boots_count))
        return slot

    def commit(self) -> None:
        """Keep the slot that is on trial. Raises: StorageError: none is, or the record cannot be written."""
        if not self._record.is_trial:
            raise StorageError(f"slot {self._record.running} is not on trial")
        self._store(boot_record.committed(self._record))

    def revert(self, reason: str) -> None:
        """Leave the trial, or the committed slot, with the next boot.

        Raises:
            StorageError: there is nothing to go back to, or the record cannot be written.
        """
        record = self._record
        if not record.trial and record.previous == record.committed:
            raise StorageError(f"slot {record.committed}: there is no slot before it")
        self._store(boot_record.fallen_back(record, reason))

    def self_test(self) -> str | None:
        """Whether the running image still holds on the disk."""
        running = self._record.running
        if running == boot_record.FACTORY or self.holds(running):
            return None
        return f"the image in slot {running} does not hold"

    # -- inside

    def _spare(self) -> str:
        slot = self._record.spare
        if not slot:
            raise StorageError(f"slots {' and '.join(boot_record.SLOTS)} are both in use until the next boot")
        return slot

    def _store(self, record: BootRecord) -> None:
        try:
            self._record = boot_record.store(record, lambda name, data: self._disk.replace(self._name(name), data))
        except StorageError:
            found, _ = boot_record.load(self._read)
            if replace(found, revision=record.revision) != record:
                raise
            self._record = found  # one of the two files took it, which is enough
        self._is_uneven = False

    def _name(self, name: str) -> str:
        return self._prefix + name

    def _read(self, name: str) -> bytes | None:
        name = self._name(name)
        try:
            return self._disk.read(name) if self._disk.exists(name) else None
        except StorageError:
            return b""  # there, and not to be read: damage


def open_slots(folder: Path, running: str) -> tuple[DiskSlots, FileDisk]:
    """The slots of a program that a launcher has started, and their disk, which the caller gives back.

    Args:
        folder: of the disk.
        running: the slot that runs.

    Raises:
        StorageError: the folder cannot be used.
    """
    import importlib.metadata  # loaded when first needed: it takes a twentieth of a second

    disk = FileDisk(folder, SLOT_DISK_BYTES)
    return DiskSlots(disk, WHEEL, importlib.metadata.version("flatrack"), running=running), disk


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
