"""One user of a board at a time: two benches on one board would each see the other's faults.

A lock is an flock(2) on a file in the user's runtime folder; the kernel gives it back when its holder ends, however it
ends. It is of this machine and this user: who shares boards over several machines needs a coordinator.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError

OWNER_FOLDER: Final = 0o700


def runtime_folder() -> Path:
    """Where locks and sockets of this user lie: `$XDG_RUNTIME_DIR/flatrack`, else a folder in /tmp of this user alone.

    Raises:
        ConfigError: it cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "flatrack" if base else Path(tempfile.gettempdir()) / f"flatrack-{os.getuid()}"
    try:
        folder.mkdir(mode=OWNER_FOLDER, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ConfigError(f"{folder}: belongs to another user, expected a folder of our own; set XDG_RUNTIME_DIR")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


@contextmanager
def held(name: str, purpose: str) -> Iterator[None]:
    """Have a board for oneself.

    Args:
        name: of the board.
        purpose: what for; others are told.

    Raises:
        ConfigError: somebody has it; says who.
    """
    path = runtime_folder() / f"board-{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise ConfigError(f"board {name}: in use by {holder or 'another program'}, expected a free one") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{purpose} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        os.close(descriptor)
