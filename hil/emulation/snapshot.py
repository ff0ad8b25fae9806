"""A running machine, saved so that others start from it.

RAM lies in a file of its own, without its empty pages, and is copied into the memory of a new machine before QEMU
starts; QEMU itself reads the state of the devices alone. Its own snapshots (`Machine.save`) carry RAM in a stream, and
take a second and all of the machine's memory to restore; this takes a few tenths.

Source: QEMU 7.2, migration/ram.c (x-ignore-shared: RAM that is shared is not migrated), as Kata Containers' VM
templating uses it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError
from hil.emulation.memory import GuestMemory

WITHOUT_SHARED_RAM: Final = "x-ignore-shared"
"""Capability of migration that both ends must have on."""


@dataclass(frozen=True)
class Snapshot:
    """A saved machine, in a folder that nobody changes."""

    folder: Path
    ram_mib: int
    """RAM of the machine that it is of; one that starts from it must have as much."""

    @property
    def disk(self) -> Path:
        """Overlay over the image's disk."""
        return self.folder / "disk.qcow2"

    @property
    def ram(self) -> Path:
        """What RAM held, sparse."""
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        """QEMU's stream of the processor and the devices."""
        return self.folder / "state"

    def take(self, memory: GuestMemory, disk: Path) -> None:
        """Keep RAM and disk of a machine that stands still. Raises: ConfigError: the files cannot be written."""
        try:
            memory.store(self.ram)
            shutil.copyfile(disk, self.disk)
        except OSError as error:
            raise ConfigError(f"{self.folder}: {error.strerror or error}") from None

    def lay(self, memory: GuestMemory, disk: Path) -> None:
        """Give a machine RAM and disk of its own, as they were. Raises: ConfigError: files are missing, or no room."""
        try:
            memory.fill(self.ram)
            shutil.copyfile(self.disk, disk)
        except OSError as error:
            raise ConfigError(f"{self.folder}: {error.strerror or error}") from None
