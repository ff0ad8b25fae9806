"""Fills the disk that a node writes to: blocks are given to a file of the agent, and given back."""

import errno
import os
from pathlib import Path
from typing import Final

from flightsw.errors import BoardError

NAME: Final = ".fault-agent-fill"
"""In the node's data folder; one that an agent left that was killed is removed at the next start."""
PIECE_BYTES_MIN: Final = 4096
"""A block of nearly every file system [bytes]."""


def fill(folder: Path, free_bytes: int) -> int:
    """Leave about so many bytes free on the file system of a folder; returns how many were taken.

    Some file systems keep blocks that nobody gets, ext4 for its own tables: then all is taken that can be had.

    Raises:
        BoardError: there are fewer already, or they cannot be taken.
    """
    before_bytes = _free_bytes(folder)
    if before_bytes <= free_bytes:
        raise BoardError(f"{folder}: {before_bytes} bytes are free, expected more than {free_bytes}")
    try:
        descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(descriptor, folder, free_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        release(folder)
        raise BoardError(f"{folder}: cannot be filled: {error.strerror}") from None
    return before_bytes - _free_bytes(folder)


def _take(descriptor: int, folder: Path, free_bytes: int) -> None:
    """Give the file blocks in pieces that halve when they cannot be had."""
    piece_bytes = _free_bytes(folder)
    while (left_bytes := _free_bytes(folder) - free_bytes) > 0 and piece_bytes >= PIECE_BYTES_MIN:
        piece_bytes = min(piece_bytes, left_bytes)
        try:
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, piece_bytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            piece_bytes //= 2


def _free_bytes(folder: Path) -> int:
    """Of the file system, with what is kept for root, who runs the node."""
    try:
        state = os.statvfs(folder)
    except OSError as error:
        raise BoardError(f"{folder}: {error.strerror}") from None
    return state.f_bfree * state.f_frsize


def release(folder: Path) -> None:
    """Give the blocks back. Raises: BoardError."""
    try:
        (folder / NAME).unlink(missing_ok=True)
    except OSError as error:
        raise BoardError(f"{folder / NAME}: {error.strerror}") from None
