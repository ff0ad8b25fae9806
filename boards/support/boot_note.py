"""What one start of a node leaves for the next, so that it can say why it happened: a small file, replaced durably.

A start writes that it runs; an orderly end writes how it ended. What is found at the next start is evidence for
`boards.support.boot_evidence`. A note that is damaged says nothing, and never keeps a node from starting.
"""

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from boards.support.panics import panic_records
from boards.support.sysfs import BoardFiles, Reader, read_file, reason
from flightsw.errors import SensorError, StorageError
from flightsw.ports import ResetCause

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
"""Another one for each boot of the kernel. Source: random(4)."""
NOTE_BYTES_MAX: Final = 16_384
"""What is read of a note [bytes]: 64 digests of records and some words."""
TEMPORARY_SUFFIX: Final = ".new"


class BootNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of the last start."""

    boot_id: str
    """Of the kernel that it ran on; empty when it was not known, or the note is damaged."""
    phase: Literal["running", "ended"] = "running"
    cause: str = ""
    """Once it has ended: why the next start will be, a name of `ResetCause`."""
    panics: tuple[str, ...] = ()
    """Digests of the panic records that were there: they are of earlier ends."""

    def ended(self, cause: ResetCause) -> "BootNote":
        """The note of an orderly end."""
        return msgspec.structs.replace(self, phase="ended", cause=cause.name)


def boot_id(files: BoardFiles) -> str:
    """Which boot of the kernel this is; empty where it is not known."""
    try:
        return files.text(BOOT_ID)
    except SensorError:
        return ""


def note_of_start(root: Path = Path("/"), read: Reader = read_file) -> BootNote:
    """The note of a start that begins now, to be stored once the last one has been judged."""
    files = BoardFiles(root, read)
    return BootNote(boot_id=boot_id(files), panics=tuple(record.digest for record in panic_records(files)))


def load_note(path: Path) -> BootNote | None:
    """The note of the last start; None when there was none. A damaged note is one that knows nothing."""
    try:
        return msgspec.json.decode(read_file(path, NOTE_BYTES_MAX), type=BootNote)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return BootNote(boot_id="")


def store_note(path: Path, note: BootNote) -> None:
    """Replace the note, atomically and durably.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(note))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {reason(error)}") from None
