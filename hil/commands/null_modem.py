"""`flatrack null-modem`: two serial devices joined by a cable, for programs that are started by hand."""

import asyncio
import os
import signal
import tty
from pathlib import Path
from typing import Final

import click

from flightsw.errors import ConfigError

WAITING_BYTES_MAX: Final = 65_536
"""What may wait for the other end [bytes]: some frames; then the sender waits too, as on a line with flow control."""
PIECE_BYTES: Final = 4096


@click.command(name="null-modem")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
def null_modem_command(first: Path, second: Path) -> None:
    """Make two serial devices, FIRST and SECOND, joined by a cable, until Ctrl-C; bytes go as fast as they come.

    A node and a ground that are started by hand meet on them: serial://FIRST for one, serial://SECOND for the other.
    """
    asyncio.run(_join(first, second))


async def _join(first: Path, second: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    ends: list[_End] = []
    try:
        for path in (first, second):
            ends.append(_End(path))
        ends[0].join(ends[1])
        click.echo(f"{first} and {second} are joined; Ctrl-C ends it")
        await ended.wait()
    finally:
        for end in ends:
            end.close()


class _End:
    """One end of the cable: a pseudo-terminal under a name of the user's.

    Args:
        path: the name; becomes a symbolic link to the device.

    Raises:
        ConfigError: the name is taken, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # both sides stay open here, so that a program may close its device and open it again
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._waiting = bytearray()
        self._other = self
        try:
            path.symlink_to(os.ttyname(self._slave))
        except OSError as error:
            os.close(self._master)
            os.close(self._slave)
            raise ConfigError(f"null-modem: {path}: {error.strerror}, expected a name that is free") from None

    def join(self, other: "_End") -> None:
        """Plug the cable in."""
        self._other, other._other = other, self
        for end in (self, other):
            asyncio.get_running_loop().add_reader(end._master, end._read)

    def close(self) -> None:
        """Take the cable away, and the name."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._master)
        loop.remove_writer(self._master)
        os.close(self._master)
        os.close(self._slave)
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        other = self._other
        other._waiting += os.read(self._master, PIECE_BYTES)
        asyncio.get_running_loop().add_writer(other._master, other._write)
        if len(other._waiting) >= WAITING_BYTES_MAX:
            asyncio.get_running_loop().remove_reader(self._master)

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        del self._waiting[: os.write(self._master, self._waiting)]
        if not self._waiting:
            loop.remove_writer(self._master)
        if len(self._waiting) < WAITING_BYTES_MAX:
            loop.add_reader(self._other._master, self._other._read)
