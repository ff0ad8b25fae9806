"""The disk of a program on a real machine: named files in one folder, with the promises of the Disk port.

| call | what it does |
|---|---|
| `replace` | writes a temporary file, fsync, renames it over the name, fsync of the folder |
| `sync` | fsync of the file, and of its folder when the name is new there |
| `remove` | unlink; durable with the next `replace`, which syncs the folders of earlier removals too |

Order of `replace` and its measured crash behaviour: docs/determinism.md. A name may contain `/`: its parts are folders.
One program has the folder at a time: two would both be right and both be wrong. What a program that died in the middle
of a `replace` left behind is removed at the next start.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flightsw.errors import StorageError

LOCK_NAME: Final = ".lock"
TEMPORARY_SUFFIX: Final = ".replacing~"
"""Ends the name of the temporary file of a `replace`; no name of flight ends so."""


class FileDisk:
    """Implements `flightsw.ports.Disk`.

    Args:
        folder: where the files lie; made when missing.
        capacity_bytes: what all contents together may take [bytes].

    Raises:
        StorageError: the folder cannot be used, or another program has it.
    """

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self.folder = folder
        self.capacity_bytes = capacity_bytes
        self._sizes: dict[str, int] = {}
        self._used_bytes = 0
        self._unentered: set[str] = set()
        """Names that this program made and whose folder it has not synced since."""
        self._removed_from: set[Path] = set()
        """Folders with removals that are not synced."""
        with _told("open", str(folder)):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                _sync(folder.parent)
            self._lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StorageError(f"{folder}: another program has this folder") from None
        with _told("open", str(folder)):
            self._scan()

    def close(self) -> None:
        """Give the folder back. No effect when that was done."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- the Disk port

    def read(self, name: str) -> bytes:
        """The whole content. Raises: StorageError."""
        self._check(name)
        with _told("read", name):
            return self._path(name).read_bytes()

    def exists(self, name: str) -> bool:
        """Whether the name is there."""
        return name in self._sizes

    def append(self, name: str, data: bytes) -> None:
        """Add to the end; durable only after `sync`. Raises: StorageError; what was added in part is cut off again."""
        self._reserve("append", name, len(data), 0)
        before_bytes = self._sizes.get(name, 0)
        with _told("append", name):
            descriptor = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                _write_all(descriptor, data)
            except OSError:
                os.ftruncate(descriptor, before_bytes)
                raise
            finally:
                os.close(descriptor)
        self._set_size(name, before_bytes + len(data))

    def write(self, name: str, data: bytes) -> None:
        """New content; durable only after `sync`. Raises: StorageError; the content is then old, new or torn."""
        self._reserve("write", name, len(data), self._sizes.get(name, 0))
        with _told("write", name):
            descriptor = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                self._set_size(name, 0)
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
        self._set_size(name, len(data))

    def sync(self, name: str) -> None:
        """Make what was appended or written durable. Raises: StorageError."""
        self._check(name)
        path = self._path(name)
        with _told("sync", name):
            _sync(path)
            if name in self._unentered:
                _sync(path.parent)
                self._unentered.discard(name)

    def replace(self, name: str, data: bytes) -> None:
        """New content, atomically and durably. Raises: StorageError; the old content stands, or the whole new one."""
        self._reserve("replace", name, len(data), 0)
        path = self._path(name)
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        with _told("replace", name):
            try:
                descriptor = self._open(name + TEMPORARY_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                try:
                    _write_all(descriptor, data)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            self._set_size(name, len(data))
            self._removed_from.add(path.parent)
            for folder in sorted(self._removed_from):
                _sync(folder)
        self._removed_from.clear()
        self._unentered.discard(name)

    def remove(self, name: str) -> None:
        """Forget the name; no error when absent. A power cut may bring it back until the next `replace`."""
        if name not in self._sizes:
            return
        path = self._path(name)
        with _told("remove", name):
            path.unlink(missing_ok=True)
        self._used_bytes -= self._sizes.pop(name)
        if name not in self._unentered:
            self._removed_from.add(path.parent)
        self._unentered.discard(name)

    def names(self, prefix: str = "") -> list[str]:
        """Names that start with prefix, sorted."""
        return sorted(name for name in self._sizes if name.startswith(prefix))

    def free_bytes(self) -> int:
        """What still fits: within the capacity, and on the file system [bytes]. Raises: StorageError."""
        with _told("look at", str(self.folder)):
            system = os.statvfs(self.folder)
        return max(0, min(self.capacity_bytes - self._used_bytes, system.f_bavail * system.f_frsize))

    # -- inside

    def path(self, name: str) -> Path:
        """Where the file of a name lies; for those who strike it. Raises: StorageError when absent."""
        self._check(name)
        return self._path(name)

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if name.endswith(TEMPORARY_SUFFIX) or any(part in ("", ".", "..", LOCK_NAME) or "\0" in part for part in parts):
            raise StorageError(f"{name!r}: not a name of a file here")
        return self.folder.joinpath(*parts)

    def _check(self, name: str) -> None:
        if name not in self._sizes:
            raise StorageError(f"{name}: no such file")

    def _reserve(self, action: str, name: str, new_bytes: int, freed_bytes: int) -> None:
        self._path(name)
        free_bytes = self.capacity_bytes - self._used_bytes + freed_bytes
        if new_bytes > free_bytes:
            raise StorageError(
                f"disk full: {action} of {new_bytes} bytes to {name}: "
                f"{free_bytes} of {self.capacity_bytes} bytes are free"
            )

    def _open(self, name: str, flags: int) -> int:
        """A descriptor; folders on the way are made, durably."""
        path = self.folder.joinpath(*name.split("/"))
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            missing = [folder for folder in path.parents if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                _sync(folder.parent)
            return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def _set_size(self, name: str, size_bytes: int) -> None:
        before_bytes = self._sizes.get(name)
        if before_bytes is None:
            self._unentered.add(name)
        self._used_bytes += size_bytes - (before_bytes or 0)
        self._sizes[name] = size_bytes

    def _scan(self) -> None:
        """Take over what lies there.

        A program that died may have made names, renamed or removed files without having synced the folder. From now on
        they count as durable, so they are made so.
        """
        for folder, _, files in os.walk(self.folder, onerror=_raise):
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(self.folder).as_posix()
                if name == LOCK_NAME:
                    continue
                if name.endswith(TEMPORARY_SUFFIX):
                    path.unlink()
                    continue
                self._sizes[name] = path.stat().st_size
            _sync(Path(folder))
        self._used_bytes = sum(self._sizes.values())


@contextmanager
def _told(action: str, name: str) -> Iterator[None]:
    """Every error of the operating system becomes one of ours that names the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{action} {name}: {error.strerror or error}") from None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(path: Path) -> None:
    """fsync of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
