"""The bench's side of a fault agent: connects to it, and calls it by name."""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from flightsw.errors import ConfigError, LinkBroken, LinkError, LinkTimeout
from flightsw.host.control import ControlPeer, connect
from flightsw.link.pacing import lab_s

ANSWER_S: Final = 60.0
"""Longest wait for an answer [s of the machine]: an emulated board that is busy takes seconds, a service that stops
twenty."""
ATTEMPT_S: Final = 2.0
"""Longest wait for the answer to one greeting [s of the machine]."""
RETRY_S: Final = 0.05
RESTORE_S: Final = 120.0
"""Longest wait until a board is as it was before a run [s of the machine]: its service stops, and starts; systemctl has
40 s for each (`hil.on_board.tools`)."""
GOODBYE_S: Final = 5.0
"""How long ssh may take to end [s of the machine]."""
ENTROPY_BYTES: Final = 32
REMOTE: Final = (
    "sh",
    "-c",
    "for python in /opt/flatrack/current/environment/bin/python /opt/flatrack/factory/bin/python python3; do "
    'command -v "$python" > /dev/null && break; done; '
    'if [ "$(id -u)" = 0 ]; then exec "$python" -I -m hil.on_board --stdio; fi; '
    'exec sudo -n -- "$python" -I -m hil.on_board --stdio',
)
"""What starts an agent on a board, by ssh: with the Python of the deployed release, or of the image; as root."""


class AgentPeer:
    """A fault agent as a bench sees it.

    Args:
        peer: the connection.
        process: ssh, where it carries the connection.
    """

    def __init__(self, peer: ControlPeer, process: asyncio.subprocess.Process | None = None) -> None:
        self._peer = peer
        self._process = process

    @classmethod
    async def open(cls, path: Path, timeout_s: float = 30.0) -> "AgentPeer":
        """Connect to the Unix socket of an agent, or of the emulator's port that leads to one, and wait until it
        answers: a board that still boots does not.

        Raises:
            LinkTimeout: it does not answer in time [s of the machine].
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + lab_s(timeout_s)
        while True:
            try:
                agent = cls(await connect(path, {}))
                try:
                    async with asyncio.timeout(lab_s(ATTEMPT_S)):
                        await agent._peer.call("hello")
                    return agent
                except (TimeoutError, LinkError):
                    await agent.close()
            except ConfigError:  # nobody listens yet
                pass
            if loop.time() >= until_s:
                raise LinkTimeout(f"{path}: no fault agent has answered within {timeout_s:g} s")
            await asyncio.sleep(lab_s(RETRY_S))

    @classmethod
    async def over(cls, command: Sequence[str]) -> "AgentPeer":
        """Start a program, such as ssh, whose standard input and output lead to an agent.

        Raises:
            ConfigError: the program is not there.
            LinkBroken: it ended; it has said why on standard error.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True
            )
        except OSError as error:
            ours.close()
            raise ConfigError(f"{command[0]}: {error.strerror}") from None
        finally:
            theirs.close()
        _, peer = await asyncio.get_running_loop().create_unix_connection(lambda: ControlPeer({}), sock=ours)
        agent = cls(peer, process)
        try:
            await agent.hello()
        except LinkError as error:
            await agent.close()
            raise LinkBroken(f"no fault agent on this board: {error}; it has said why on standard error") from None
        return agent

    async def call(self, method: str, *arguments: Any, within_s: float = ANSWER_S) -> Any:
        """Call a method of `hil.on_board.agent.FaultAgent`.

        Raises:
            ControlError: the agent refused; says why.
            LinkBroken: the connection, or the board, has ended.
            LinkTimeout: no answer in time [s of the machine].
        """
        try:
            async with asyncio.timeout(lab_s(within_s)):
                return await self._peer.call(method, *arguments)
        except TimeoutError:
            raise LinkTimeout(f"fault agent: no answer to {method} within {within_s:g} s") from None

    async def hello(self) -> dict[str, Any]:
        """Which board this is. Raises: as `call`."""
        answer: dict[str, Any] = await self.call("hello")
        return answer

    async def configure(self, files: dict[str, bytes], utc_ns: int | None = None) -> None:
        """Set the clock and write settings under /etc/flatrack, node.toml last. Raises: as `call`."""
        await self.call("configure", files, utc_ns, os.urandom(ENTROPY_BYTES))

    async def restore(self) -> dict[str, Any]:
        """Put back what a board was before a run: `files`, the names of the settings, none when they were back already
        or it was not lent, whether its node `runs` again, and, where it ran and does not start, `trouble`, which says
        why. Raises: as `call`."""
        answer: dict[str, Any] = await self.call("restore", within_s=RESTORE_S)
        return answer

    async def file(self, path: str) -> bytes:
        """A file of the node. Raises: as `call`."""
        content: bytes = await self.call("file", path)
        return content

    async def close(self) -> None:
        """End the connection, and ssh with it."""
        self._peer.close()
        await asyncio.wait([self._peer.closed])
        if self._process is None:
            return
        try:
            async with asyncio.timeout(lab_s(GOODBYE_S)):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
