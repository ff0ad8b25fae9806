"""Software slots under power cuts, on real files: the launcher and the node write the same boot record in turn."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from boards import boot_record
from boards.boot_record import FACTORY, BootRecord
from boards.launcher import replace_file
from boards.slots import IMAGE_SUFFIX, WHEEL, DiskSlots
from flightsw.host.files import FileDisk
from flightsw.ports import Random
from hil.powercut.subject import DISK_BYTES, FolderSubject, Notes, blob, number_of, state_faults

TRIAL_BOOTS: Final = 2
BOOTS: Final = 4
"""Boots in one life."""


class Slots:
    """Something whole always boots, what was committed is committed, and no trial boots too often.

    Args:
        name: for the command line.
        replace: how the launcher writes its record; anything but the launcher's own way is a planted bug.
    """

    def __init__(self, name: str = "slots", replace: Callable[[Path, bytes], None] = replace_file) -> None:
        self.name = name
        self._replace = replace

    def live(self, folder: Path, random: Random, notes: Notes) -> None:
        """Some boots: install, try, commit, go back."""
        for _ in range(BOOTS):
            slots, disk = self._booted(folder, notes)
            if slots.status().is_trial:
                self._end_trial(slots, random, notes)
            else:
                notes.begin("image", number := 1 + notes.next_number("image"))
                image = hashlib.sha256(str(number).encode()).digest()
                slots.install(blob(number, random.choice((100, 600, 5000))), f"0.{number}.0", image)
                if random.random() < 0.8:
                    slots.request_trial(image, TRIAL_BOOTS)
            disk.close()

    def check(self, folder: Path, notes: Notes) -> list[str]:
        """Boot once more."""
        slots, disk = self._booted(folder, notes)
        disk.close()
        record = slots.record
        content = record.contents.get(record.running)
        faults = []
        if record.running != FACTORY:
            found = number_of((folder / (record.running + IMAGE_SUFFIX)).read_bytes())
            if content is None or content.version != f"0.{found}.0":
                faults.append(f"slot {record.running} boots image {found}, the record says {content}")
        committed = record.contents.get(record.committed)
        if record.fallback.endswith("does not hold"):
            faults.append(record.fallback)
        faults += state_faults(notes, "committed", None if committed is None else committed.version)
        for key in notes.keys("trial boots"):
            if notes.next_number(key) > TRIAL_BOOTS:
                faults.append(f"{key}: {notes.next_number(key)}, at most {TRIAL_BOOTS}")
        return faults

    def _end_trial(self, slots: DiskSlots, random: Random, notes: Notes) -> None:
        version = slots.status().version
        if random.random() < 0.5:
            notes.begin("committed", version)
            slots.commit()
            notes.ack("committed", version)
        elif random.random() < 0.5:
            slots.revert("rolled back by command")

    def _booted(self, folder: Path, notes: Notes) -> tuple[DiskSlots, FileDisk]:
        """What the launcher does before a boot, and the slots of the node that it starts."""
        record, is_changed = boot_record.load(partial(_read, folder))
        chosen = boot_record.chosen(record, partial(_holds, folder, record))
        if chosen != record or is_changed:
            chosen = boot_record.store(chosen, lambda name, data: self._replace(folder / name, data))
        if chosen.is_trial:
            key = f"trial boots of {chosen.contents[chosen.running].version}"
            notes.ack(key, notes.next_number(key))
        disk = FileDisk(folder, DISK_BYTES)
        return DiskSlots(disk, WHEEL, "0.1.0", running=chosen.running), disk


def _write_unsynced(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _read(folder: Path, name: str) -> bytes | None:
    return (folder / name).read_bytes() if (folder / name).exists() else None


def _holds(folder: Path, record: BootRecord, slot: str) -> bool:
    content, data = record.contents.get(slot), _read(folder, slot + IMAGE_SUFFIX)
    return content is not None and data is not None and hashlib.sha256(data).hexdigest() == content.sha256


def subjects() -> list[FolderSubject]:
    """All of them."""
    return [Slots()]


def mutants() -> list[FolderSubject]:
    """With a planted bug: the launcher's record is not synced."""
    return [Slots("mutant-launcher-not-synced", _write_unsynced)]
