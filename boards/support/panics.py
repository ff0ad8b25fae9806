"""What the kernel has kept of its own end: records of pstore.

A backend (ramoops in memory that a reset spares, EFI variables) keeps the last lines of a kernel that panics; the next
one shows them as `/sys/fs/pstore/dmesg-*`, and systemd-pstore moves them to `/var/lib/systemd/pstore`. They stay until
somebody removes them, so the node remembers which it has seen, by digest. Source: Linux
Documentation/admin-guide/{ramoops,pstore-blk}.rst, systemd-pstore.service(8).
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from boards.support.sysfs import BoardFiles
from flightsw.errors import SensorError

FOLDERS: Final = (("/sys/fs/pstore", 0), ("/var/lib/systemd/pstore", 2))
"""Where records lie, and how many folders deep."""
RECORDS_MAX: Final = 64
"""Records that are looked at, the newest: a backend has room for a few, and the archive keeps what nobody tidies."""
RECORD_BYTES_MAX: Final = 1 << 20
"""What is read of a record [bytes]: they have 64 KiB."""
PANIC: Final = re.compile(r"Kernel panic - not syncing: *([^\n]{0,120})")
WATCHDOG: Final = re.compile(r"watchdog (timer expired|pretimeout)", re.IGNORECASE)
"""Panics that a watchdog has called. Source: Linux drivers/watchdog/softdog.c, pretimeout_panic.c."""


@dataclass(frozen=True, slots=True)
class PanicRecord:
    """One record of a panic."""

    digest: str
    """Tells it apart from all others: it holds the times of its lines."""
    reason: str
    """As the kernel has said it; one line."""

    @property
    def is_watchdog(self) -> bool:
        """Whether a watchdog has called the panic."""
        return WATCHDOG.search(self.reason) is not None


def panic_records(files: BoardFiles) -> list[PanicRecord]:
    """The records of panics that are there; what cannot be read is left out."""
    records = []
    for name in _names(files):
        try:
            data = files.data(name, RECORD_BYTES_MAX)
        except SensorError:
            continue
        found = PANIC.search(data.decode("utf-8", errors="replace"))
        if found is not None:
            reason = "".join(letter if letter.isprintable() else " " for letter in found[1]).strip()
            records.append(PanicRecord(hashlib.sha256(data).hexdigest()[:32], reason))
    return records


def _names(files: BoardFiles) -> list[str]:
    return list(islice((name for folder, depth in FOLDERS for name in _walk(files, folder, depth)), RECORDS_MAX))


def _walk(files: BoardFiles, folder: str, depth: int) -> Iterator[str]:
    """Records under a folder, the newest first: systemd-pstore names its folders by the time."""
    for name in reversed(files.names(folder)):
        if name.startswith("dmesg"):
            yield f"{folder}/{name}"
        elif depth > 0:
            yield from _walk(files, f"{folder}/{name}", depth - 1)
