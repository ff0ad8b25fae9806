"""Files of a board that a bench writes and reads: its settings, and what its node has left."""

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from flightsw.errors import BoardError, ConfigError
from hil.on_board import permission

SETTINGS: Final = "etc/flatrack"
MAIN: Final = "node.toml"
"""Written last: a program that waits for it finds all else there."""
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
        ConfigError: a path leads elsewhere or to the permission, which no bench gives itself, or there are too many
            files.
        BoardError: a file cannot be written.
    """
    if len(files) > FILES_MAX:
        raise ConfigError(f"configure: {len(files)} files, expected at most {FILES_MAX}")
    folder = root / SETTINGS
    for name in sorted(files, key=lambda name: (name == MAIN, name)):
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ConfigError(f"configure: {name!r}: expected a path under /{SETTINGS}")
        if SETTINGS / path == PurePosixPath(permission.FILE):
            raise ConfigError(f"configure: {name!r}: the permission to strike this board, which no bench gives itself")
        _replace(folder / path, files[name])


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


def _replace(path: Path, data: bytes) -> None:
    """Put a file in its place, durably, readable by root alone: keys are among them."""
    temporary = path.with_name(path.name + ".agent~")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):  # it was never made, or has its name already
            temporary.unlink()
        raise BoardError(f"{path}: cannot be written: {error.strerror}") from None
