"""A process that never outlives the bench, and whose end the loop is told.

- It runs in a session of its own: Ctrl-C at a terminal reaches the bench alone.
- The kernel kills it when the bench ends, however the bench ends (`PR_SET_PDEATHSIG`).
- Its end is told by the kernel (a pidfd in the running loop): no thread, no polling, no wait.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from io import BufferedWriter
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
"""Source: prctl(2), linux/prctl.h."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Child:
    """A process that may be started several times, but runs at most once at a time. Needs a running loop.

    Args:
        on_end: told the exit code when it has ended, whoever ended it; -9 is a kill. It may be started again then.
    """

    def __init__(self, on_end: Callable[[int], None]) -> None:
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None else self._process.pid

    def start(
        self,
        command: Sequence[str],
        *,
        out: BufferedWriter,
        err: BufferedWriter,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        """Start it.

        Args:
            command: program and arguments.
            out, err: take what it writes.
            folder: it works in; None for the bench's.
            environment: of it; None for the bench's.
            fds: descriptors that it inherits.

        Raises:
            OSError: the machine does not start it.
        """
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            pass_fds=fds,
            preexec_fn=_die_with(os.getpid()),
        )
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:  # no descriptors are left: what nobody can watch does not run
            self._process.kill()
            self._process.wait()
            self._process = None
            raise
        self._ended.clear()
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal. No effect when it does not run."""
        if self._process is not None:
            self._process.send_signal(number)

    async def ended(self) -> None:
        """Return when it does not run, and has been told."""
        await self._ended.wait()

    def abandon(self) -> None:
        """Kill it and wait for its end without the loop, telling nobody: the last resort when the loop is about to go.
        No effect when it does not run."""
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            self._process.kill()
            self._process.wait()
            self._forget()

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
    """What the child does first: ask to be killed with the bench, and see that it has not gone already."""

    def ask() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask
