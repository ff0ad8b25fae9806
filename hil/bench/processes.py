"""Programs of a bench: how one is started, and ended in order; what it writes goes to files in its folder, and the last
words are part of a crash report."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError, SimulationError
from flightsw.link.pacing import lab_s
from hil.child import Child

STDOUT_FILE: Final = "stdout.log"
STDERR_FILE: Final = "stderr.log"
LAST_WORDS_BYTES_MAX: Final = 4096
"""How much of standard error a crash report takes [bytes]: a long traceback."""
STOP_S_MAX: Final = 10.0
"""How long a program may take to end in order [s of the machine]: it closes databases. Then it is killed."""

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
        self._child = Child(on_end)

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._child.pid

    def start(self, *more: str) -> None:
        """Start it, with further arguments.

        Raises:
            ConfigError: the machine does not start it.
        """
        command = [sys.executable, *self._arguments, *more]
        try:
            with (self.folder / STDOUT_FILE).open("ab") as out, (self.folder / STDERR_FILE).open("ab") as err:
                self._child.start(command, out=out, err=err, folder=self.folder, environment=_environment())
        except OSError as error:
            raise ConfigError(f"{self.name}: cannot be started in {self.folder}: {error.strerror}") from None
        self.starts_count += 1

    def kill(self) -> None:
        """Power cut: SIGKILL. No effect when it does not run."""
        self._child.signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end in order. No effect when it does not run."""
        self._child.signal(signal.SIGTERM)

    async def stop(self) -> None:
        """End it in order, by force when it takes too long; returns when it is gone."""
        self.terminate()
        try:
            async with asyncio.timeout(lab_s(STOP_S_MAX)):
                await self._child.ended()
        except TimeoutError:
            self.kill()
            await self._child.ended()

    def abandon(self) -> None:
        """Kill it and wait for its end without the loop: the last resort when the loop is about to go."""
        self._child.abandon()

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


def _environment() -> dict[str, str]:
    """That of the bench, with our packages on the path wherever the program runs."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": root if not path else f"{root}{os.pathsep}{path}",
    }
