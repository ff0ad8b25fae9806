"""All subjects by name: those on the disk port for both explorers, and those that need real files."""

from pathlib import Path
from typing import Final

from flightsw.host.files import FileDisk
from flightsw.ports import Random
from hil.powercut import books, databases, manager, mutants, objects, slots, states, stores
from hil.powercut.subject import DISK_BYTES, FolderSubject, Notes, Subject


class OnFiles:
    """A subject of the disk port, on real files.

    Args:
        subject: what to run.
    """

    def __init__(self, subject: Subject) -> None:
        self.name = subject.name
        self._subject = subject

    def live(self, folder: Path, random: Random, notes: Notes) -> None:
        """One life on the files of a folder."""
        disk = FileDisk(folder, DISK_BYTES)
        self._subject.live(disk, random, notes)
        disk.close()

    def check(self, folder: Path, notes: Notes) -> list[str]:
        """A look at the files of a folder."""
        disk = FileDisk(folder, DISK_BYTES)
        try:
            return self._subject.check(disk, notes)
        finally:
            disk.close()


def _named(found: list[Subject]) -> dict[str, Subject]:
    return {one.name: one for one in found}


SUBJECTS: Final = _named(
    stores.subjects() + manager.subjects() + books.subjects() + states.subjects() + objects.subjects()
)
"""Stores on the disk port."""

MUTANTS: Final = _named(mutants.mutants())
"""Stores on the disk port with a planted bug."""

FOLDER_SUBJECTS: Final[dict[str, FolderSubject]] = {
    **{name: OnFiles(one) for name, one in SUBJECTS.items()},
    **{one.name: one for one in databases.subjects() + slots.subjects()},
}
"""Stores on real files: those of the disk port, the ground's databases, and slots with their launcher."""

FOLDER_MUTANTS: Final[dict[str, FolderSubject]] = {
    **{name: OnFiles(one) for name, one in MUTANTS.items()},
    **{
        one.name: one
        for one in (
            mutants.LazyFiles("mutant-folder-not-synced", syncs_file=True, syncs_folder=False),
            mutants.LazyFiles("mutant-rename-before-sync", syncs_file=False, syncs_folder=True),
            *databases.mutants(),
            *slots.mutants(),
        )
    },
}
"""Stores on real files with a planted bug."""
