"""One worker process: started confined, greeted, watched, and killed with all that it has started."""

import asyncio
import json
import os
import signal
import socket
import struct
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from boards.worker import program
from boards.worker.channel import Channel, Hello
from boards.worker.interpreter import Interpreter
from boards.worker.isolation.isolator import Isolator, Limits
from boards.worker.isolation.proof import PROGRAM
from boards.worker.memory import ModelMemory
from flightsw.errors import BoardError, ConfigError

START_S: Final = 180.0
"""How long a start may take [s of the machine]: a GPU's runtime loads for most of a minute on a small board."""
WORDS_CHARACTERS_MAX: Final = 4096
"""What is kept of a worker's standard error."""
LAST_CHARACTERS: Final = 300
LISTEN_S: Final = 1.0
"""How long last words may take [s of the machine]: what a worker has started may hold pipe or socket open."""

_CREDENTIALS: Final = struct.Struct("3i")
"""pid, uid, gid. Source: unix(7), struct ucred."""


class WorkerProcess:
    """A worker from its start to its end.

    Args:
        isolator: confines it.
        limits: what it may take.
        interpreter: runs it.
        provider: what it is to compute with.
        memory: where models lie.
        time_scale: seconds of the loop in a second of the machine.
        on_hello: called with what it says first.
        on_end: called once with the reason when it has ended, but not when it was told to.
        after: life of its predecessor, which ends first: they share a unit, or a group.
    """

    def __init__(
        self,
        *,
        isolator: Isolator,
        limits: Limits,
        interpreter: Interpreter,
        provider: str,
        memory: ModelMemory,
        time_scale: float,
        on_hello: Callable[[Hello], None],
        on_end: Callable[[str], None],
        after: "asyncio.Task[None] | None",
    ) -> None:
        self._isolator = isolator
        self._limits = limits
        self._interpreter = interpreter
        self._provider = provider
        self._memory = memory
        self._time_scale = time_scale
        self._on_hello = on_hello
        self._on_end = on_end
        self._child: Process | None = None
        self._pidfd = -1
        self._words = ""
        self._is_told = False
        self._why = ""
        self.pid = 0
        """Of the process that computes, as this machine counts; 0 before it has greeted."""
        self.channel = Channel(self._nonsense)
        self.channel.hello.add_done_callback(self._greeted)
        self.life = asyncio.create_task(self._live(after), name="worker")
        """Ends when the process is gone and nothing of it is left."""

    async def hello(self) -> Hello:
        """Wait until it has started.

        Raises:
            ConfigError: it cannot compute, and no other would.
            BoardError: it has died.
        """
        hello = await asyncio.shield(self.channel.hello)
        if hello.error:
            raise ConfigError(f"the worker cannot compute: {hello.error}")
        if not hello.provider:
            reasons = "; ".join(f"{name}: {why}" for name, why in hello.refusals.items())
            raise ConfigError(f"worker.provider = {self._provider!r}: {reasons}")
        return hello

    def kill(self) -> None:
        """End it now, with all that it has started; whoever waits for an answer waits on."""
        self._is_told = True
        self._signal()

    async def _live(self, after: "asyncio.Task[None] | None") -> None:
        if after is not None:
            await asyncio.wait([after])
        if self._is_told:
            return
        ours, theirs = socket.socketpair()
        # not a pipe of asyncio's: its `wait` waits for pipes too, which what the worker has started may hold open
        words, saying = os.pipe()
        try:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            await self._start(theirs, saying)
        except (OSError, BoardError) as error:
            ours.close()
            os.close(words)
            self._ended(f"it does not start: {error}")
            return
        finally:
            theirs.close()
            os.close(saying)
        assert self._child is not None, "it has started"
        loop = asyncio.get_running_loop()
        listening, meeting = loop.create_task(self._listen(words)), loop.create_task(self._meet(ours))
        alarm = loop.call_later(START_S * self._time_scale, self._late)
        try:
            try:
                code = await self._child.wait()
            finally:  # also when the loop ends: nothing may be left behind
                self._signal()
                self._child = None  # its number may soon be another's
            await asyncio.wait([listening, meeting], timeout=LISTEN_S * self._time_scale)
        finally:
            alarm.cancel()
            listening.cancel()
            meeting.cancel()
            await asyncio.wait([listening, meeting])
            self.channel.close()
            ours.close()
            os.close(words)
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
            self._isolator.clear()
        for task in (listening, meeting):
            if not task.cancelled():
                task.result()  # an error in them is ours
        self._ended(self._reason(code))

    async def _start(self, theirs: socket.socket, saying: int) -> None:
        self._isolator.prepare(self._limits)
        setup = {**self._isolator.setup(self._limits), "paths": self._interpreter.search, "provider": self._provider}
        argv = (*self._interpreter.command, str(PROGRAM), json.dumps(setup))
        memory = self._memory.open_for_reading()
        try:
            self._child = await asyncio.create_subprocess_exec(
                *self._isolator.command(argv, self._limits, self._interpreter.readable),
                stdin=theirs.fileno(),
                stdout=memory,
                stderr=saying,
                env={},
                start_new_session=True,
            )
        finally:
            os.close(memory)
        if self._is_told:  # meanwhile
            self._signal()

    async def _meet(self, ours: socket.socket) -> None:
        """Take the greeting, which the kernel signs with the number of the process, and then begin to talk."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(ours, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(ours)
        try:
            greeting, extra, _, _ = ours.recvmsg(len(program.GREETING), socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError:
            return  # it has ended
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
        if greeting != program.GREETING:
            if greeting:
                self._nonsense(f"it greets with {greeting!r}")
            return
        with suppress(OSError):  # it has ended already
            self._pidfd = os.pidfd_open(self.pid)
        await loop.create_connection(lambda: self.channel, sock=ours)
        await self.channel.closed.wait()

    async def _listen(self, words: int) -> None:
        """Keep the end of what it says."""
        loop = asyncio.get_running_loop()
        is_silent = asyncio.Event()

        def hear() -> None:
            piece = os.read(words, WORDS_CHARACTERS_MAX)
            self._words = (self._words + piece.decode(errors="replace"))[-WORDS_CHARACTERS_MAX:]
            if not piece:
                is_silent.set()

        loop.add_reader(words, hear)
        try:
            await is_silent.wait()
        finally:
            loop.remove_reader(words)

    def _greeted(self, hello: "asyncio.Future[Hello]") -> None:
        if hello.exception() is None:
            self._on_hello(hello.result())

    def _late(self) -> None:
        if not self.channel.hello.done():
            self._why = f"it was not ready within {START_S:.0f} s"
            self._signal()

    def _nonsense(self, what: str) -> None:
        self._why = f"it sent nonsense: {what}"
        self._signal()

    def _signal(self) -> None:
        """Kill the process that computes, and the group of the command that started it."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError, PermissionError):  # it has ended, or is its unit's to end
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self._child is not None:  # it may have ended, and what it has started live on
            with suppress(ProcessLookupError, PermissionError):  # as above: all of it has ended
                os.killpg(self._child.pid, signal.SIGKILL)

    def _reason(self, code: int) -> str:
        if self._why:
            return self._why
        number = -code if code < 0 else code - 128 if code > 128 else 0
        how = f"killed by {signal.Signals(number).name}" if number in _SIGNALS else f"exit code {code}"
        by = self._isolator.reason(self._words)
        last = (self._words.strip().splitlines() or [""])[-1][-LAST_CHARACTERS:]
        return how + (f" ({by})" if by else "") + (f": {last}" if last else "")

    def _ended(self, why: str) -> None:
        if self._is_told:
            return
        self.channel.fail(BoardError(f"the worker ended: {why}"))
        self._on_end(why)


_SIGNALS: Final = frozenset(int(number) for number in signal.Signals)
