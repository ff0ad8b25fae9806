"""Programs of a bench: how one is started, watched and ended, so that none is ever left behind.

- Each runs in a session of its own: Ctrl-C at a terminal reaches the bench alone, which judges first.
- The kernel kills it when the bench ends, however the bench ends (`PR_SET_PDEATHSIG`).
- Its end is told by the kernel (a pidfd in the running loop): no thread, no polling, no wait.
- What it writes goes to files in its folder; the last words are part of a crash report.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError, SimulationError
from flightsw.link.pacing import lab_s

STDOUT_FILE: Final = "stdout.log"
STDERR_FILE: Final = "stderr.log"
LAST_WORDS_BYTES_MAX: Final = 4096
"""How much of standard error a crash report takes [bytes]: a long traceback."""
STOP_S_MAX: Final = 10.0
"""How long a program may take to end in order [s of the machine]: it closes databases. Then it is killed."""

_PR_SET_PDEATHSIG: Final = 1
"""Source: prctl(2), linux/prctl.h."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""A program computes on one thread, as its modelled board would: a dozen of them share the machine."""


class ProgramDied(SimulationError):
    """A program of the bench ended without being asked to."""


class Program:
    """One program that may be started several times, but runs at most once at a time. Needs a running loop.

    Args:
        name: for reports.
        arguments: of the interpreter: `-m`, module and options.
        folder: working folder; standard output and error of all starts are kept there.
        on_end: told the exit code when it has ended, whoever ended it; -9 is a kill.
    """

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, on_end: Callable[[int], None]) -> None:
        self.name = name
        self.folder = folder
        self.starts_count = 0
        self._arguments = list(arguments)
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: asyncio.Event = asyncio.Event()
        self._ended.set()
        self._pidfd = -1

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None else self._process.pid

    def start(self, *more: str) -> None:
        """Start it, with further arguments.

        Raises:
            ConfigError: the machine does not start it.
        """
        assert self._process is None, f"{self.name} runs already"
        command = [sys.executable, *self._arguments, *more]
        try:
            with (self.folder / STDOUT_FILE).open("ab") as out, (self.folder / STDERR_FILE).open("ab") as err:
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                    preexec_fn=_die_with(os.getpid()),
                )
        except OSError as error:
            raise ConfigError(f"{self.name}: cannot be started in {self.folder}: {error.strerror}") from None
        self.starts_count += 1
        self._ended.clear()
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def kill(self) -> None:
        """Power cut: SIGKILL. No effect when it does not run."""
        if self._process is not None:
            self._process.kill()

    def terminate(self) -> None:
        """Ask it to end in order. No effect when it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    async def stop(self) -> None:
        """End it in order, by force when it takes too long; returns when it is gone."""
        self.terminate()
        try:
            async with asyncio.timeout(lab_s(STOP_S_MAX)):
                await self._ended.wait()
        except TimeoutError:
            self.kill()
            await self._ended.wait()

    def abandon(self) -> None:
        """Kill it and wait for its end without the loop: the last resort when the loop is about to go."""
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            self._process.kill()
            self._process.wait()
            self._forget()

    def last_words(self) -> str:
        """The end of its standard error."""
        try:
            data = (self.folder / STDERR_FILE).read_bytes()
        except OSError as error:
            return f"(standard error cannot be read: {error.strerror})"
        return data[-LAST_WORDS_BYTES_MAX:].decode(errors="replace").strip()

    def death(self, code: int) -> ProgramDied:
        """What to report about an end that nobody asked for."""
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = self.last_words() or "(nothing on standard error)"
        return ProgramDied(f"{self.name} {how}; its standard error ends with:\n{words}")

    def _reap(self) -> None:
        assert self._process is not None, "watched while it runs"
        code = self._process.poll()
        if code is None:
            return  # woken early: the pidfd stays readable
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._forget()
        self._on_end(code)

    def _forget(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1
        self._process = None
        self._ended.set()


def _die_with(parent_pid: int) -> Callable[[], None]:
    """What the child does first: ask to be killed with its parent, and see that it has not gone already."""

    def ask() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask


def _environment() -> dict[str, str]:
    """That of the bench, with our packages on the path wherever the program runs."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": root if not path else f"{root}{os.pathsep}{path}",
    }
