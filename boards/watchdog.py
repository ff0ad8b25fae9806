"""The watchdog of a node that is a program: it ends the process when nobody strokes it, whatever hangs.

The kernel's interval timer sends SIGALRM; a handler in C writes the stack of what hangs into the file of last words,
and the process dies by the signal. So it works when the event loop hangs, when a C extension never returns and when
the program waits in a system call; no code of the program's own has to run. The supervisor that started the program
starts it again, and the next start finds the last words: its cause is WATCHDOG.

Under systemd with `WatchdogSec=` each stroke is passed on as `WATCHDOG=1` (sd_notify(3)), so that a process that cannot
even be killed by its own timer is ended from outside. `WatchdogSignal=SIGALRM` leaves the same last words.

The timer counts seconds of the machine. At a faster time scale, the timeout in mission time would pass in an instant of
a busy machine, so it is never shorter than `MACHINE_S_MIN`.
"""

import asyncio
import faulthandler
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

MACHINE_S_MIN: Final = 20.0
"""Shortest timeout [s of the machine]: a step of a job on a machine that others use too blocks the loop for seconds."""

WAITING_S: Final = 1.0
"""Time between two words to the service manager while the program waits [s of the machine]."""

WORDS_BYTES_MAX: Final = 65_536
"""What is read of last words [bytes]: a stack of the deepest recursion that Python allows is cut by faulthandler."""

NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG_USEC: Final = "WATCHDOG_USEC"
"""Set by systemd. Source: sd_notify(3), sd_watchdog_enabled(3)."""


class LastWords:
    """The file in which the end of one process tells the next start why.

    Args:
        path: of the file; it is opened, and made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.found = path.read_bytes()[-WORDS_BYTES_MAX:].decode(errors="replace") if path.exists() else ""
        """What the process before has left; empty when it ended in order, or without a word."""
        self._file = path.open("wb", buffering=0)

    @property
    def file(self) -> int:
        """Its descriptor, for a handler in C."""
        return self._file.fileno()

    def write(self, text: str) -> None:
        """Leave these words."""
        self._file.write(text.encode())

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class ProgramWatchdog:
    """Implements `flightsw.ports.Watchdog` for this process. One process has one.

    Args:
        words: where the stack of what hangs is written.
        time_scale: mission seconds in a second of the machine.
    """

    def __init__(self, words: LastWords, time_scale: float) -> None:
        self._time_scale = time_scale
        self._manager = ServiceManager()
        # the handler in C writes, then passes the signal on to the default action, which ends the process
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=words.file, all_threads=False, chain=True)

    def stroke(self, timeout_s: float) -> None:
        """End the process unless the next stroke comes within this time [s]."""
        signal.setitimer(signal.ITIMER_REAL, max(timeout_s / self._time_scale, MACHINE_S_MIN))
        self._manager.stroke()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Tell the service manager that the process is well while it waits for something, as long as its event loop
        turns; the timer is not armed."""
        task = asyncio.create_task(self._keep_well(), name="watchdog")
        try:
            yield
        finally:
            task.cancel()

    async def _keep_well(self) -> None:
        while True:
            self._manager.stroke()
            await asyncio.sleep(WAITING_S * self._time_scale)

    def stop(self) -> None:
        """Sleep: the program ends in order."""
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        faulthandler.unregister(signal.SIGALRM)
        self._manager.close()


class ServiceManager:
    """systemd, or whoever watches this process in its way; nobody when nobody does."""

    def __init__(self) -> None:
        self._socket = _notify_socket()

    def stroke(self) -> None:
        """Say that the process is well."""
        if self._socket is not None:
            try:
                self._socket.send(b"WATCHDOG=1")
            except OSError:  # it has gone, and so has who would have counted the strokes
                self.close()

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _notify_socket() -> socket.socket | None:
    """The socket of the service manager, when it watches this process."""
    address = os.environ.get(NOTIFY_SOCKET, "")
    if not address or WATCHDOG_USEC not in os.environ:
        return None
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        link.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        link.close()
        return None
    return link
