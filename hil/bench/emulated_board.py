"""An emulated board as the bench handles it: restored where its program waits for settings, killed, booted anew."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from hil.on_board.remote import AgentPeer


class Emulator(Protocol):
    """What the bench needs of `hil.emulation.machine.Machine`."""

    @property
    def uart_path(self) -> Path:
        """Unix socket that is the other end of its UART, while it runs."""
        ...

    @property
    def agent_path(self) -> Path:
        """Unix socket that leads to its fault agent, while it runs."""
        ...

    async def start(self) -> None:
        """Power on: the first time where its program waits for settings, then from its disk. Raises: FlatrackError."""
        ...

    async def kill(self) -> None:
        """Power cut. No effect without power."""
        ...

    def abandon(self) -> None:
        """Power cut that does not wait for the loop. No effect without power."""
        ...

    def close(self) -> None:
        """Give all back."""
        ...

    def keep_words(self, folder: Path) -> None:
        """Copy what it has said into a folder."""
        ...

    def last_words(self) -> str:
        """The end of its console."""
        ...


class EmulatedBoard:
    """Implements `hil.bench.board_node.TableBoard`.

    Args:
        emulator: its machine.
        files: settings of the run, by their names on the board.
        utc_ns: the clock of this machine, to which the board's is set [ns since 1970].
        folder: of the node in the run folder, where its console is kept.
    """

    def __init__(self, emulator: Emulator, files: Mapping[str, bytes], utc_ns: Callable[[], int], folder: Path) -> None:
        self._emulator = emulator
        self._files = files
        self._utc_ns = utc_ns
        self._folder = folder
        self.can_switch: Final = True
        self._cut: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Restore it and tell it who it is. Raises: FlatrackError."""
        await self._emulator.start()
        agent = await AgentPeer.open(self._emulator.agent_path)
        try:
            await agent.configure(dict(self._files), self._utc_ns())
        finally:
            await agent.close()

    def cut(self) -> None:
        """Kill its machine."""
        self._cut = asyncio.get_running_loop().create_task(self._emulator.kill(), name="emulator/kill")

    async def boot(self) -> None:
        """Start its machine again, from its disk. Raises: FlatrackError."""
        await self._gone()
        await self._emulator.start()

    async def close(self) -> None:
        """Kill its machine for good."""
        try:
            await self._gone()
            await self._emulator.kill()
        finally:
            self._emulator.keep_words(self._folder)
            self._emulator.close()

    def abandon(self) -> None:
        """Kill its machine at once, if it runs still."""
        self._emulator.abandon()

    def last_words(self) -> str:
        """The end of its console."""
        return self._emulator.last_words()

    async def _gone(self) -> None:
        cut, self._cut = self._cut, None
        if cut is not None:
            await cut
