"""Files of a board that a bench writes and reads: its settings, and what its node has left."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from flightsw.errors import BoardError, ConfigError
from hil.on_board import permission

SETTINGS: Final = "etc/flatrack"
MAIN: Final = "node.toml"
"""Written last: a program that waits for it finds all else there."""
BEFORE_RUN: Final = "before-run"
"""Folder under /etc/flatrack of what was there before a run (`hil.on_board.loan`)."""
OWNER_ONLY: Final = 0o600
READABLE: Final = ("var/lib/flatrack", "etc/flatrack", "sys/fs/pstore")
FILE_BYTES_MAX: Final = 32 * 1024 * 1024
"""One file [bytes]: half of a control message."""
FILES_MAX: Final = 256
"""Files of one configuration: settings, keys, plan and world are ten."""


def configure(root: Path, files: dict[str, bytes]) -> None:
    """Write settings, each file whole or not at all, `node.toml` last.

    Args:
        root: of the board.
        files: path under /etc/flatrack -> content.

    Raises:
        ConfigError: a path leads elsewhere (`settings_path`), or there are too many files.
        BoardError: a file cannot be written.
    """
    if len(files) > FILES_MAX:
        raise ConfigError(f"configure: {len(files)} files, expected at most {FILES_MAX}")
    paths = {name: settings_path(name) for name in main_last(files)}
    for name, path in paths.items():
        put(root / SETTINGS / path, files[name])


def main_last(names: Iterable[str]) -> list[str]:
    """Names of settings in the order in which they are written."""
    return sorted(names, key=lambda name: (name == MAIN, name))


def settings_path(name: str) -> PurePosixPath:
    """The path under /etc/flatrack that a bench names.

    Raises:
        ConfigError: it leads elsewhere, to what was there before a run, or to the permission, which no bench gives
            itself.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ConfigError(f"configure: {name!r}: expected a path under /{SETTINGS}")
    if path.parts[0] == BEFORE_RUN:
        raise ConfigError(f"configure: {name!r}: what was there before a run, which no bench writes")
    if SETTINGS / path == PurePosixPath(permission.FILE):
        raise ConfigError(f"configure: {name!r}: the permission to strike this board, which no bench gives itself")
    return path


def readable(root: Path, name: str) -> bytes:
    """The content of a file that a bench may read.

    Raises:
        ConfigError: it lies elsewhere, cannot be read, or is too large.
    """
    path = (root / name.lstrip("/")).resolve()
    folders = [(root / folder).resolve() for folder in READABLE]
    if not any(path.is_relative_to(folder) for folder in folders):
        raise ConfigError(f"file: {name!r}: expected a path under one of {', '.join('/' + one for one in READABLE)}")
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"file: {name!r}: {path.stat().st_size} bytes, expected at most {FILE_BYTES_MAX}")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"file: {name!r}: {error.strerror}") from None


def listing(root: Path, name: str) -> list[str]:
    """Names of the files under a folder that a bench may read, sorted; none when it is not there.

    Raises:
        ConfigError: it lies elsewhere.
    """
    path = (root / name.lstrip("/")).resolve()
    if not any(path.is_relative_to((root / folder).resolve()) for folder in READABLE):
        raise ConfigError(f"files: {name!r}: expected a path under one of {', '.join('/' + one for one in READABLE)}")
    return sorted(str(one.relative_to(path)) for one in path.rglob("*") if one.is_file())


def put(path: Path, data: bytes, mode: int = OWNER_ONLY) -> None:
    """Put a file in its place, durably, and the folders above it; readable by root alone unless another mode is given:
    keys are among them.

    Raises:
        BoardError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".agent~")
    try:
        _make_folder(path.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):  # it was never made, or has its name already
            temporary.unlink()
        raise BoardError(f"{path}: cannot be written: {error.strerror}") from None


def remove(path: Path) -> None:
    """Remove a file, durably. No effect when it is not there. Raises: BoardError."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync(path.parent)
    except OSError as error:
        raise BoardError(f"{path}: cannot be removed: {error.strerror}") from None


def remove_if_empty(folder: Path) -> None:
    """Remove a folder, durably. No effect when something is in it, or it is not there."""
    with suppress(OSError):  # somebody uses it, or it has gone
        folder.rmdir()
        _sync(folder.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each with its name on the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
