"""Cuts the network interfaces of a board: nothing leaves them any more.

`tc ... netem loss 100%` where the kernel has it: addresses, routes and connections stay, as with a cable that has come
off behind a switch. Else `ip link set down`, which also takes the routes; those are put back when it ends.
"""

import json

from flightsw.errors import BoardError
from hil.on_board.tools import Tool


class NetworkCut:
    """One cut.

    Args:
        run: runs `ip` and `tc`.
    """

    def __init__(self, run: Tool) -> None:
        self._run = run
        self._shaped: dict[str, bool] = {}
        """Interface -> whether `tc` has said that it is done: not yet while it runs, nor where it was interrupted."""
        self._down: list[tuple[str, list[str]]] = []
        """Interface -> its routes, as arguments of `ip route replace`."""

    async def begin(self) -> str:
        """Cut all interfaces but the loopback; returns by what.

        Raises:
            BoardError: there is none, or a tool fails.
        """
        names = [one["ifname"] for one in json.loads(await self._run(["ip", "-json", "link", "show", "up"]))]
        cut = [name for name in names if name != "lo"]
        if not cut:
            raise BoardError("this board has no network interface that is up")
        for name in cut:
            self._shaped[name] = False
            try:
                await self._run(["tc", "qdisc", "add", "dev", name, "root", "netem", "loss", "100%"])
                self._shaped[name] = True
            except BoardError:  # no netem in this kernel, or no tc
                del self._shaped[name]
                routes = (await self._run(["ip", "route", "show", "dev", name])).splitlines()
                self._down.append((name, routes))
                await self._run(["ip", "link", "set", "dev", name, "down"])
        return ", ".join([f"{name}: netem" for name in self._shaped] + [f"{name}: down" for name, _ in self._down])

    async def end(self) -> None:
        """Join them again, each of them. Raises: BoardError, the first."""
        errors: list[BoardError] = []
        for name, is_done in self._shaped.items():
            try:
                await self._run(["tc", "qdisc", "del", "dev", name, "root"])
            except BoardError as error:
                if is_done:  # else there may be nothing to delete
                    errors.append(error)
        for name, routes in self._down:
            try:
                await self._up(name, routes)
            except BoardError as error:
                errors.append(error)
        self._shaped.clear()
        self._down.clear()
        if errors:
            raise errors[0]

    async def _up(self, name: str, routes: list[str]) -> None:
        await self._run(["ip", "link", "set", "dev", name, "up"])
        for route in sorted(routes, key=lambda route: route.startswith("default")):  # its gateway's route first
            words = [word for word in route.split() if word != "linkdown"]
            await self._run(["ip", "route", "replace", *words, "dev", name])
