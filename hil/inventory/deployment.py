"""`flatrack board deploy`: software, settings and keys onto a board over ssh, kept only when the node then speaks.

The steps, of which each does nothing where nothing is to be done:

1. look at the board: its machine, its Python, what is there;
2. wheels for it; send those that it has not got;
3. make the environment and the release beside those that run;
4. flip to it and restart the service: the trial;
5. wait for the node's beacon on the link;
6. confirm, or flip back and restart again.

Until step 6 the board itself leaves the release again when nobody comes back (`board_side`).
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flightsw.errors import BoardError, ConfigError, LinkTimeout
from flightsw.ports import ResetCause
from flightsw.wire.messages import Beacon
from hil.inventory.boards import Inventory
from hil.inventory.listening import GroundListener, Listener
from hil.inventory.ports import find_uart
from hil.inventory.releases import UNIT, Release, packed_settings, release_of
from hil.inventory.remote import Remote
from hil.inventory.wheelhouse import Wheel, wheels_for, wheels_in

WAIT_S: Final = 90.0
"""How long the first beacon may take [s]: a Raspberry Pi 3 needs 10 s to import, a beacon comes each ten."""
CONFIRM_S: Final = 60.0
"""How much longer than that the board waits to be told that it came [s]."""
SERVICE_S: Final = 20.0
"""Without a link: how long the service must have run [s]: two beacons long."""
LOG_LINES: Final = 15

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user asks of a deployment."""

    wheelhouse: Path | None = None
    """Folder of the board's wheels; else pip is asked."""
    control: Path | None = None
    """Socket of a ground that hears the node; else we listen on the board's UART."""
    is_bench: bool = False
    """Whether the on-board fault agent may run there."""
    is_without_link: bool = False
    """Whether it is enough that the service runs and its node has not ended."""
    wait_s: float = WAIT_S
    confirm_s: float = CONFIRM_S


class Deployment:
    """One deployment to one board.

    Args:
        inventory: where the board is.
        name: of it.
        options: what is asked.
        say: takes a line for each step.
    """

    def __init__(self, inventory: Inventory, name: str, options: Options, say: Say) -> None:
        self._inventory = inventory
        self._name = name
        self._board = inventory.board(name)
        self._options = options
        self._say = say

    async def run(self) -> bool:
        """Deploy; whether anything was changed.

        Raises:
            ConfigError: settings, wheels, or what there is to listen with are wrong or missing.
            BoardNotFound, LinkBroken: the board cannot be reached, or the connection was lost.
            BoardError: the board refuses, or the release was left again.
        """
        folder = self._inventory.settings_folder(self._name)
        packed_settings(folder)  # what is wrong there needs no connection
        async with AsyncExitStack() as resources:
            remote = await resources.enter_async_context(Remote(self._name, self._board))
            release = await self._release(remote, folder)
            asked: dict[str, Any] = {"release": release.digest, "environment": release.environment}
            found = await remote.ask("look", asked)
            if found["trial"] is not None:
                self._say("a release on trial was never confirmed: back to the one before")
                await remote.ask("revert", {})
                found = await remote.ask("look", asked)
            if found["is_lent"]:
                self._say("the settings of a run that never ended lie there, and are replaced")
            is_whole = found["has_release"] and found["has_environment"] and not found["is_lent"]
            if found["current"] == release.digest and is_whole and found["is_active"]:
                self._say(f"release {release.digest} (flatrack {release.version}) runs already: nothing is changed")
                return False
            listener = await self._listener(release, folder, resources)
            await self._install(remote, release, found, asked)
            await self._try(remote, release, asked, listener)
        return True

    async def _release(self, remote: Remote, folder: Path) -> Release:
        probe = await remote.probe()
        self._say(f"{self._name}: {probe.target}")
        if self._options.wheelhouse is not None:
            wheels = wheels_in(self._options.wheelhouse, probe.target)
        else:
            wheels = wheels_for(probe.target)
        return release_of(
            self._name,
            self._board.kind,
            folder=folder,
            wheels=wheels,
            python=probe.python,
            version=probe.target.python,
            prefix=probe.prefix,
            is_bench=self._options.is_bench,
        )

    async def _install(self, remote: Remote, release: Release, found: dict[str, Any], asked: dict[str, Any]) -> None:
        there = set(found["wheels"])
        missing = [] if found["has_environment"] else [one for one in release.wheels if one.sha256 not in there]
        if missing:
            size_bytes = sum(wheel.size_bytes for wheel in missing)
            self._say(f"{len(missing)} of {len(release.wheels)} wheels to send, {size_bytes / 1e6:.1f} MB")
            await self._push(remote, missing)
        files = sorted(release.files.items())
        request = asked | {
            "wheels": [wheel.sha256 for wheel in release.wheels],
            "files": [[name, mode, len(data)] for name, (mode, data) in files],
            "about": {"version": release.version, "node": release.node},
        }
        made = await remote.ask("install", request, [data for _, (_, data) in files])
        if made["is_new"]:
            self._say(f"release {release.digest}: flatrack {release.version}, {len(release.wheels)} wheels")

    async def _push(self, remote: Remote, wheels: list[Wheel]) -> None:
        request: dict[str, Any] = {"wheels": [[wheel.sha256, wheel.size_bytes] for wheel in wheels]}
        await remote.ask("push", request, [wheel.path for wheel in wheels])

    async def _try(
        self, remote: Remote, release: Release, asked: dict[str, Any], listener: Listener | GroundListener | None
    ) -> None:
        wait_s = SERVICE_S if listener is None else self._options.wait_s
        if listener is not None:
            await listener.restarts()
        tried = await remote.ask("activate", asked | {"confirm_s": wait_s + self._options.confirm_s})
        if listener is not None:
            await listener.stopped()
        before = tried["before"] or "none"
        self._say(f"on trial, before it {before}: waiting for {'the service' if listener is None else 'its beacon'}")
        try:
            if listener is None:
                await asyncio.sleep(wait_s)
                self._say(f"waited for {wait_s:g} s; nobody has listened")
            else:
                beacon = await listener.wait(wait_s)
                self._say("heard by the ground" if beacon is None else f"heard: {_told(beacon)}")
            await remote.ask("confirm", asked | {"listens": listener is not None})
        except (LinkTimeout, BoardError) as error:
            logs = await last_lines(remote, LOG_LINES)
            back = await remote.ask("revert", {})
            where = f"release {back['to']} runs again" if back["to"] else "no release runs: there was none before"
            raise BoardError(f"{error}; {where}. The board's last lines:\n{logs}") from None
        self._say(f"confirmed: {release.node} runs flatrack {release.version}, release {release.digest}")

    async def _listener(
        self, release: Release, folder: Path, resources: AsyncExitStack
    ) -> Listener | GroundListener | None:
        """What hears the node; opened before anything is changed."""
        options = self._options
        if options.is_without_link:
            return None
        if options.control is not None:
            return await resources.enter_async_context(GroundListener(options.control, release.node))
        if self._board.uart is None:
            raise ConfigError(
                f"board {self._name}: has no uart to listen on, expected one in the inventory, or --control SOCKET of "
                "a ground that hears it, or --without-link"
            )
        url = f"serial://{find_uart(self._board.uart)}?baud={self._board.uart.baud}"
        settings, _ = packed_settings(folder)
        listener = Listener(url, release.node_number, settings.node.interfaces, settings.clock.time_scale)
        return await resources.enter_async_context(listener)


async def last_lines(remote: Remote, count: int) -> str:
    """The last lines of the service's journal. Raises: as `Remote.run`."""
    probe = await remote.probe()
    words = ("journalctl", "--unit", UNIT, "--lines", str(count), "--no-pager", "--output", "cat")
    return (await remote.run(remote.as_root(words, probe), is_asked=True)).strip() or "(none)"


def _told(beacon: Beacon) -> str:
    cause = ResetCause(beacon.reset_cause).name
    return f"boot {beacon.boot_count} after {cause}, up for {beacon.uptime_s} s, in {beacon.mode.name}"
