"""Folders that are made once: there whole or not at all, by one process while the others wait."""

import asyncio
import fcntl
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError
from flightsw.link.pacing import lab_s

POLL_S: Final = 0.2
"""Time between two tries to get the lock [s of the machine]: what is waited for takes half a minute."""


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder that gets its name when it is filled. Raises: ConfigError: it cannot be written."""
    new = path.with_name(path.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir()
        yield new
        new.rename(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait, without the loop, until no other process holds this lock."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def made_once(path: Path, make: Callable[[Path], Awaitable[None]]) -> None:
    """See that a folder is there; another process that makes it is waited for, while the loop goes on.

    Args:
        path: of the folder.
        make: fills the empty folder that it is given.

    Raises:
        ConfigError: it cannot be written.
    """
    with path.with_suffix(".lock").open("w") as lock:
        while not path.exists():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(lab_s(POLL_S))
                continue
            if not path.exists():
                with new_folder(path) as new:
                    await make(new)
