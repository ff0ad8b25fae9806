"""What a process does to the files of a folder, from its system calls (strace): the order in which it wrote and synced.

The kernel's page cache survives the death of a process, so killing one shows nothing of power cuts. From the recorded
calls `hil.powercut.medium` makes what a disk may hold when the power fails between any two of them.

A call that changes files of the folder in a way that is not understood here ends the recording with an error: what is
not seen would not be tested.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from flightsw.errors import SimulationError
from hil.powercut.child import PREFIX, line_of, read_notes
from hil.powercut.subject import Note

STRING_BYTES_MAX: Final = 1 << 24
"""Longest data of one call that strace shows [bytes]: no store writes more at once."""

UNDERSTOOD: Final = (
    *("openat", "open", "creat", "close", "lseek", "write", "writev", "pwrite64", "pwritev", "ftruncate"),
    *("fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"),
)
REFUSED: Final = (
    *("truncate", "fallocate", "pwritev2", "copy_file_range", "sendfile", "splice", "link", "linkat", "symlink"),
    *("symlinkat", "rmdir", "dup", "dup2", "dup3", "mmap", "sync_file_range"),
)
"""Changes, or ways to them, that no store uses; mmap is refused where it is shared and writable."""

STANDARD_OUTPUT: Final = 1
"""Descriptor of the child's notes."""

_CALL: Final = re.compile(r"\d+\s+(\w+)\((.*)\)\s+= (-?\d+|0x[0-9a-f]+|\?)")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_DESCRIPTOR: Final = re.compile(r"(\d+)<")
_LAST_NUMBER: Final = re.compile(r", (\d+)$")


class RecordingError(SimulationError):
    """strace failed, or showed what is not understood."""


class Create(NamedTuple):
    """A new name of a new file."""

    name: str
    file: int


class Change(NamedTuple):
    """Bytes of a file are new; it grows when they end behind its end."""

    file: int
    offset: int
    data: bytes


class Cut(NamedTuple):
    """A file has another size."""

    file: int
    size_bytes: int


class SyncFile(NamedTuple):
    """The content of a file is made durable."""

    file: int


class SyncFolder(NamedTuple):
    """The names in a folder are made durable."""

    folder: str


class Rename(NamedTuple):
    """A file has another name; what had that name has none."""

    name: str
    new_name: str


class Remove(NamedTuple):
    """A name is gone."""

    name: str


class MakeFolder(NamedTuple):
    """A new folder."""

    name: str


Operation = Create | Change | Cut | SyncFile | SyncFolder | Rename | Remove | MakeFolder | Note
"""One step: a change, a sync, or what the store said."""

ROOT: Final = "."
"""Name of the recorded folder itself; names in it are relative to it."""


@dataclass
class _Open:
    """What a descriptor stands for."""

    file: int | None
    """None for a folder."""
    name: str
    is_append: bool
    position: int = 0


@dataclass
class Recording:
    """What a process did in a folder."""

    held: dict[str, bytes | None]
    """What was there before, durably: name -> content, None for a folder."""
    notes: list[Note]
    """What was said before."""
    operations: list[Operation] = field(default_factory=list)


def record(subject: str, folder: Path, seed: int, lives: int, notes: list[Note], strace: str) -> Recording:
    """Run a subject in a folder under strace.

    Args:
        subject: its name.
        folder: where it lives; what lies there counts as durable.
        seed: of its draws.
        lives: how often it lives, one after the other.
        notes: what was said of the folder before.
        strace: the program.

    Raises:
        RecordingError: the subject or strace failed, or a call is not understood.
    """
    trace, said = folder.with_name(folder.name + ".trace"), folder.with_name(folder.name + ".notes")
    said.write_bytes(b"".join(map(line_of, notes)))
    held = {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
    calls = ",".join((*UNDERSTOOD, *REFUSED))
    watched = [strace, "-f", "-xx", "-y", "-s", str(STRING_BYTES_MAX), "-e", f"trace={calls}", "-o", str(trace)]
    child = [sys.executable, "-m", "hil.powercut.child", subject, str(folder), str(seed), str(lives), str(said)]
    done = subprocess.run([*watched, *child], capture_output=True, check=False)
    if done.returncode:
        raise RecordingError(f"{subject}: {done.stderr.decode(errors='replace')[-2000:]}")
    reader = CallReader(Recording(held, notes), str(folder))
    with trace.open(encoding="ascii") as lines:
        for line in lines:
            reader.take(line)
    return reader.recording


class CallReader:
    """Reads the lines of strace.

    Args:
        recording: begins with what lies in the folder; takes the operations.
        folder: its path.
    """

    def __init__(self, recording: Recording, folder: str) -> None:
        self.recording = recording
        self._folder = folder
        files = [(name, content) for name, content in sorted(recording.held.items()) if content is not None]
        self._names = {name: number for number, (name, _) in enumerate(files)}
        """The files as the process sees them: name -> number."""
        self._sizes = {number: len(content) for number, (_, content) in enumerate(files)}
        self._next_file = len(self._names)
        self._open: dict[int, _Open] = {}

    def take(self, line: str) -> None:
        """One line."""
        if "<unfinished" in line or " resumed>" in line:
            raise RecordingError(f"calls of several threads: {line[:200]}")
        found = _CALL.match(line)
        if found is None or found[3].startswith("-") or found[3] == "?":
            return  # the end of the process, a signal, or a call that failed
        call, arguments = found[1], found[2]
        result = int(found[3], 0)
        if call in ("open", "openat", "creat"):
            self._take_open(arguments, result)
        elif call in ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"):
            self._take_name(call, arguments)
        elif call in REFUSED:
            self._refuse(call, arguments, line)
        else:
            self._take_descriptor(call, arguments, result)

    def _take_open(self, arguments: str, descriptor: int) -> None:
        name = self._paths(arguments)[0]
        self._open.pop(descriptor, None)
        if name is None:
            return
        if name == ROOT or "O_DIRECTORY" in arguments or (self._path(name).is_dir() and name not in self._names):
            self._open[descriptor] = _Open(None, name, False)
            return
        if any(flag in arguments for flag in ("O_SYNC", "O_DSYNC", "O_TMPFILE", "O_DIRECT|")):
            raise RecordingError(f"opened in a way that is not understood: {arguments}")
        file = self._names.get(name)
        if file is None:
            file = self._names[name] = self._next_file
            self._next_file += 1
            self._sizes[file] = 0
            self._add(Create(name, file))
        elif "O_TRUNC" in arguments:
            self._sizes[file] = 0
            self._add(Cut(file, 0))
        self._open[descriptor] = _Open(file, name, "O_APPEND" in arguments)

    def _take_name(self, call: str, arguments: str) -> None:
        names = self._paths(arguments)
        if all(name is None for name in names):
            return
        name = names[0]
        if name is None or None in names:
            raise RecordingError(f"{call} into or out of the folder: {arguments[:200]}")
        if call.startswith("rename"):
            new_name = names[1]
            assert new_name is not None, "checked above"
            if name.rpartition("/")[0] != new_name.rpartition("/")[0] or name not in self._names:
                raise RecordingError(f"{call} of a folder, or into another one: {name} to {new_name}")
            self._names[new_name] = self._names.pop(name)
            self._add(Rename(name, new_name))
        elif call.startswith("unlink"):
            if self._names.pop(name, None) is None:
                raise RecordingError(f"{call} of {name}, which is no file")
            self._add(Remove(name))
        else:
            self._add(MakeFolder(name))

    def _take_descriptor(self, call: str, arguments: str, result: int) -> None:
        found = _DESCRIPTOR.match(arguments)
        if found is None:
            return
        descriptor = int(found[1])
        if call == "write" and descriptor == STANDARD_OUTPUT:
            self._take_note(arguments)
            return
        there = self._open.get(descriptor)
        if there is None:
            return
        if call == "close":
            del self._open[descriptor]
        elif call in ("fsync", "fdatasync"):
            self._add(SyncFolder(there.name) if there.file is None else SyncFile(there.file))
        elif there.file is None:
            return  # a folder is read
        elif call == "lseek":
            there.position = result
        elif call == "ftruncate":
            size_bytes = _last_number(arguments)
            self._sizes[there.file] = size_bytes
            self._add(Cut(there.file, size_bytes))
        else:
            self._take_write(call, arguments, result, there)

    def _take_write(self, call: str, arguments: str, size_bytes: int, there: _Open) -> None:
        assert there.file is not None, "a folder takes no bytes"
        data = b"".join(_strings(arguments))[:size_bytes]
        if call.startswith("pwrite"):
            offset = _last_number(arguments)
        else:
            offset = self._sizes[there.file] if there.is_append else there.position
            there.position = offset + size_bytes
        self._sizes[there.file] = max(self._sizes[there.file], offset + size_bytes)
        self._add(Change(there.file, offset, data))

    def _take_note(self, arguments: str) -> None:
        line = b"".join(_strings(arguments))
        if line.startswith(PREFIX):
            self.recording.operations += read_notes(line)

    def _refuse(self, call: str, arguments: str, line: str) -> None:
        found = _DESCRIPTOR.search(arguments)
        is_ours = any(name is not None for name in self._paths(arguments)) or (
            found is not None and int(found[1]) in self._open
        )
        is_private = call == "mmap" and not ("MAP_SHARED" in arguments and "PROT_WRITE" in arguments)
        if is_ours and not is_private:
            raise RecordingError(f"a call that is not understood: {line[:200]}")

    def _paths(self, arguments: str) -> list[str | None]:
        """The paths among the arguments, relative to the folder; None for one outside of it."""
        return [self._relative(text.decode(errors="surrogateescape")) for text in _strings(arguments)]

    def _relative(self, path: str) -> str | None:
        if path == self._folder:
            return ROOT
        return path.removeprefix(self._folder + "/") if path.startswith(self._folder + "/") else None

    def _path(self, name: str) -> Path:
        return Path(self._folder, name)

    def _add(self, operation: Operation) -> None:
        self.recording.operations.append(operation)


def _strings(arguments: str) -> Iterator[bytes]:
    for text, is_cut in _STRING.findall(arguments):
        if is_cut:
            raise RecordingError(f"more than {STRING_BYTES_MAX} bytes in one call")
        yield bytes.fromhex(text.replace("\\x", ""))


def _last_number(arguments: str) -> int:
    found = _LAST_NUMBER.search(arguments)
    if found is None:
        raise RecordingError(f"no number at the end of {arguments[-80:]}")
    return int(found[1])
