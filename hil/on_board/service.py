"""The node as a service of the board: started, stopped, limited by systemd."""

import os
from typing import Final

from hil.on_board.tools import Tool

UNIT: Final = "flatrack.service"
PERCENT: Final = 100
RUNNING: Final = ("active", "activating", "reloading")
"""States of a unit that runs, or is started again by systemd after it has failed. Source: systemctl(1)."""


class NodeService:
    """The node's service.

    Args:
        run: runs `systemctl`.
        unit: its unit.
    """

    def __init__(self, run: Tool, unit: str = UNIT) -> None:
        self._run = run
        self._unit = unit

    async def start(self) -> None:
        """Start it, also after it has failed too often. Raises: BoardError."""
        await self._run(["systemctl", "reset-failed", self._unit])
        await self._run(["systemctl", "start", self._unit])

    async def stop(self) -> None:
        """Stop it. Raises: BoardError."""
        await self._run(["systemctl", "stop", self._unit])

    async def runs(self) -> bool:
        """Whether it runs, or is about to. Raises: BoardError."""
        state = await self._run(["systemctl", "show", "--property=ActiveState", "--value", self._unit])
        return state.strip() in RUNNING

    async def limit(self, share: float | None) -> None:
        """Give it this share of all processors, or all again. Raises: BoardError."""
        quota = "" if share is None else f"{max(1, round(share * PERCENT * (os.cpu_count() or 1)))}%"
        await self._run(["systemctl", "set-property", "--runtime", self._unit, f"CPUQuota={quota}"])

    async def log(self, lines: int) -> str:
        """Its newest lines in the journal. Raises: BoardError."""
        return await self._run(["journalctl", "--no-pager", "--output=cat", f"--unit={self._unit}", f"--lines={lines}"])
