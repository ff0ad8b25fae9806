"""Waiting for a node to speak: its beacon on the board's own UART, or as a running ground has heard it.

The listener on the UART takes part in nothing: it sends no byte, and acknowledges none. It proves that the release
lives on the link, not who speaks: signatures are the ground's business.
"""

import asyncio
import math
from pathlib import Path
from typing import Any, Final

from flightsw.config import InterfaceConfig
from flightsw.errors import BundleError, CodingError, ConfigError, FrameError, LinkTimeout, MessageError, SegmentError
from flightsw.host.control import connect
from flightsw.link.urls import open_link
from flightsw.ports import Frame
from flightsw.wire.bundles import decode_bundle
from flightsw.wire.framing import coding, received
from flightsw.wire.messages import Beacon, Event, decode_message
from flightsw.wire.segments import decode_segment
from hil.capture.blocks import Blocks, bundles_in

NS_PER_S: Final = 1_000_000_000
LOOK_S: Final = 0.5
"""How often a ground is asked [s]: beacons come each ten."""
SLACK_S: Final = 2.0
"""What an uptime may be ahead of the time since the restart [s]: it is a whole number, and clocks differ."""


class Ear:
    """Finds what one node says of itself in the frames of its lab wire: beacons and events. Sans-IO.

    Args:
        node: its number.
        interfaces: its own, for their codings.
    """

    def __init__(self, node: int, interfaces: tuple[InterfaceConfig, ...]) -> None:
        self._node = node
        self._codings = {one.index: coding(one.coding) for one in interfaces}
        self._blocks = Blocks()
        self.frames_count = 0
        """Frames that came, whole or not: what tells a silent line from a wrong one."""

    def take(self, interface: int, frame: Frame) -> list[Beacon | Event]:
        """The messages that a frame completes; what cannot be read is none."""
        self.frames_count += 1
        code = self._codings.get(interface)
        if code is None:
            return []
        try:
            segment = decode_segment(received(code, frame)[0])
            block = self._blocks.add(segment, str(interface), "")
            return [] if block is None else [one for data in bundles_in(block) for one in self._messages(data)]
        except (FrameError, CodingError, SegmentError):
            return []

    def _messages(self, data: bytes) -> list[Beacon | Event]:
        try:
            message = decode_message(decode_bundle(data).payload)
        except (BundleError, MessageError):
            return []
        return [message] if isinstance(message, Beacon | Event) and message.node == self._node else []


class Listener:
    """Listens on a link until a node speaks after a restart. Use as an asynchronous context manager.

    Args:
        url: of the lab wire: serial:///dev/...?baud=...
        node: number of the node.
        interfaces: its own.
        time_scale: mission seconds in a second.
    """

    def __init__(self, url: str, node: int, interfaces: tuple[InterfaceConfig, ...], time_scale: float = 1.0) -> None:
        self._url = url
        self._ear = Ear(node, interfaces)
        self._time_scale = time_scale
        self._begun_s = math.inf
        self._heard: asyncio.Future[Beacon] | None = None

    async def __aenter__(self) -> "Listener":
        self._link = await open_link(self._url, node=0)
        self._link.set_receiver(self._take)
        if error := self._link.status().error:
            await self._link.close()
            raise ConfigError(f"{error}: is another program using the port? Then give its ground: --control SOCKET")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.close()

    async def restarts(self) -> None:
        """The node is about to be stopped: a boot that counts is no older than this."""
        self._begun_s = asyncio.get_running_loop().time()

    async def stopped(self) -> None:
        """The node was stopped: what speaks from now on is a new boot."""
        self._heard = asyncio.get_running_loop().create_future()
        self._ear.frames_count = 0

    async def wait(self, wait_s: float) -> Beacon:
        """The first beacon after the restart.

        Raises:
            LinkTimeout: none came; says what did.
        """
        assert self._heard is not None, "the node was stopped before"
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(self._heard)  # who waits again finds it whole
        except TimeoutError:
            frames = f"{self._ear.frames_count} frames came" if self._ear.frames_count else "the line is silent"
            raise LinkTimeout(f"no beacon within {wait_s:g} s on {self._url}: {frames}") from None

    def _take(self, interface: int, frame: Frame) -> None:
        for beacon in self._ear.take(interface, frame):
            if not isinstance(beacon, Beacon):
                continue
            elapsed_s = asyncio.get_running_loop().time() - self._begun_s
            is_new = beacon.uptime_s <= (elapsed_s + SLACK_S) * self._time_scale
            if is_new and self._heard is not None and not self._heard.done():
                self._heard.set_result(beacon)


class GroundListener:
    """Asks a running ground until it has heard a node after a restart. Use as an asynchronous context manager.

    Args:
        control: socket of the ground.
        node: name of the node.
    """

    def __init__(self, control: Path, node: str) -> None:
        self._control = control
        self._name = node
        self._begun_ns = 0
        self._stopped_ns = 0

    async def __aenter__(self) -> "GroundListener":
        self._peer = await connect(self._control, {})
        if await self._row() is None:
            self._peer.close()
            raise ConfigError(f"--control {self._control}: the ground has no node {self._name!r} in its fleet")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._peer.close()

    async def restarts(self) -> None:
        """The node is about to be stopped: a boot that counts is no older than this."""
        self._begun_ns = await self._now_ns()

    async def stopped(self) -> None:
        """The node was stopped: what is heard from now on is a new boot."""
        self._stopped_ns = await self._now_ns()

    async def wait(self, wait_s: float) -> None:
        """Return when the ground has heard a boot that began after the restart.

        Raises:
            LinkTimeout: it has not.
        """
        try:
            async with asyncio.timeout(wait_s):
                while not self._is_new(await self._row() or {}):
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise LinkTimeout(f"the ground has not heard {self._name} anew within {wait_s:g} s") from None

    async def _now_ns(self) -> int:
        """The ground's mission time [ns since T+0]."""
        return int((await self._peer.call("status"))["t_ns"])

    async def _row(self) -> dict[str, Any] | None:
        rows: list[dict[str, Any]] = await self._peer.call("nodes")
        return next((row for row in rows if row["name"] == self._name), None)

    def _is_new(self, row: dict[str, Any]) -> bool:
        """Whether it was heard since the stop, and in a boot that is no older than the restart."""
        if row.get("heard_ns", 0) <= self._stopped_ns:
            return False
        return bool(row["heard_ns"] - row["uptime_s"] * NS_PER_S > self._begun_ns - SLACK_S * NS_PER_S)
