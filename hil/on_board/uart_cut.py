"""Cuts the UART of a node where its two sides meet, in the kernel's terminal layer.

While it is cut, output is stopped (tcflow(3), TCOOFF) and what gathers is thrown away, and the driver is told to
discard what arrives (CREAD off, termios(3)); what it hands over all the same is thrown away too. The node keeps its
open device and notices nothing, as with a cable that has come off. Wrong baud rates would do on a wire, but an emulated
UART has no rate; taking the driver away would hang the node's device up, which no cable does.

A pseudo-terminal knows no CREAD: a byte that arrives may be read by the node before it is thrown away.
"""

import asyncio
import errno
import os
import termios
import tomllib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flightsw.errors import BoardError

FLUSH_S: Final = 0.01
"""Time between two looks [s]: at 115200 bit/s 115 bytes, fewer than a driver's buffer and than a frame."""
CFLAG: Final = 2
"""Place of the control modes in `termios.tcgetattr`."""


def uart_of(settings: Path) -> Path:
    """The device of the node's lab wire, by its settings.

    Raises:
        BoardError: there are no settings, or the wire is no serial line.
    """
    try:
        url = str(tomllib.loads(settings.read_text(encoding="utf-8"))["link"]["url"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BoardError(f"{settings}: names no lab wire: {error!r}") from None
    parts = urlsplit(url)
    if parts.scheme != "serial":
        raise BoardError(f"{settings}: link.url is {url!r}, expected serial:///dev/...: no UART to cut")
    return Path(parts.path)


class UartCut:
    """One cut, from its making to `end`.

    Args:
        device: of the UART.

    Raises:
        BoardError: it cannot be opened, or is no terminal.
    """

    def __init__(self, device: Path) -> None:
        try:
            self._file = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BoardError(f"{device}: {error.strerror}") from None
        try:
            self._listen(False)
            termios.tcflow(self._file, termios.TCOOFF)
        except termios.error as error:
            os.close(self._file)
            raise BoardError(f"{device}: no UART: {error.args[-1]}") from None
        self._timer = asyncio.get_running_loop().call_soon(self._flush)

    def end(self) -> None:
        """Join the two sides again; what gathered meanwhile is lost."""
        self._timer.cancel()
        try:
            termios.tcflush(self._file, termios.TCIOFLUSH)
            self._listen(True)
            termios.tcflow(self._file, termios.TCOON)
        except termios.error:  # the device has gone meanwhile: nothing is joined
            return
        finally:
            os.close(self._file)

    def _flush(self) -> None:
        try:
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except termios.error:
            return
        self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _listen(self, is_on: bool) -> None:
        modes = termios.tcgetattr(self._file)
        modes[CFLAG] = modes[CFLAG] | termios.CREAD if is_on else modes[CFLAG] & ~termios.CREAD
        try:
            termios.tcsetattr(self._file, termios.TCSANOW, modes)
        except termios.error as error:
            if error.args[0] != errno.EINVAL:  # that is a terminal which always listens
                raise
