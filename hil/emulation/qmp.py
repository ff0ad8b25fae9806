"""QEMU's machine protocol: one command at a time, events to a callback.

Our own eighty lines rather than a library: JSON lines over a Unix socket, of which six commands are used.
Source: QEMU 7.2, docs/interop/qmp-spec.txt.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flightsw.errors import BoardError

LINE_BYTES_MAX: Final = 1 << 20
"""Longest message [bytes]: the description of a disk with its snapshots is some kilobytes."""


class Qmp:
    """A connection to one QEMU."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._one_at_a_time = asyncio.Lock()
        self._answer: asyncio.Future[Any] | None = None
        self._task = asyncio.get_running_loop().create_task(self._read(), name="qmp")

    async def run(self, command: str, **arguments: Any) -> Any:
        """Run a command; returns what it returns.

        Raises:
            BoardError: QEMU refuses it, or has ended.
        """
        async with self._one_at_a_time:
            if self._task.done():
                raise BoardError(f"{command}: QEMU has ended")
            names = {name.replace("_", "-"): value for name, value in arguments.items()}
            self._answer = asyncio.get_running_loop().create_future()
            self._writer.write(json.dumps({"execute": command, "arguments": names}).encode() + b"\n")
            try:
                return await self._answer
            except BoardError as error:
                raise BoardError(f"{command}: {error}") from None
            finally:
                self._answer = None

    async def monitor(self, line: str) -> str:
        """Run a line of the human monitor, which alone has snapshots, drives and interrupts; returns what it prints."""
        text = await self.run("human-monitor-command", command_line=line)
        return str(text).replace("\r\n", "\n").strip()

    async def close(self) -> None:
        """End the connection."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError):
            return  # it was killed in the middle of a line
        finally:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(BoardError("QEMU has ended"))

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._on_event(message["event"], message.get("data", {}))
        elif self._answer is not None and not self._answer.done():
            if "error" in message:
                self._answer.set_exception(BoardError(message["error"]["desc"]))
            elif "return" in message:
                self._answer.set_result(message["return"])


async def connect(path: Path, on_event: Callable[[str, dict[str, Any]], None]) -> Qmp:
    """Connect to a QEMU that listens.

    Raises:
        OSError: nobody listens there.
    """
    reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_BYTES_MAX)
    await reader.readline()  # the greeting
    qmp = Qmp(reader, writer, on_event)
    await qmp.run("qmp_capabilities")
    return qmp
