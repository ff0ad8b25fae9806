"""The books of a node that runs elsewhere, as its bench port tells them: of this boot, and summed over all before."""

import asyncio
from typing import Final

from flightsw.errors import LinkError
from flightsw.host.control import ControlPeer
from flightsw.link.pacing import lab_s
from hil.bench.accounts import NodeAccounts, NodeCounts, parse_node

ANSWER_S_MAX: Final = 20.0
"""How long a program may take to answer the bench [s of the machine]: it computes a step of a job meanwhile, on a
machine that others use too."""


class RemoteBooks:
    """What the bench hears of one node over its bench port.

    Args:
        name: of the node.
    """

    def __init__(self, name: str) -> None:
        self.heard: NodeAccounts | None = None
        """Of the present boot, when last asked."""
        self._name = name
        self._peer: ControlPeer | None = None
        self._past = NodeCounts()

    @property
    def is_open(self) -> bool:
        """Whether the node has reported to the bench and is there."""
        return self._peer is not None

    @property
    def totals(self) -> NodeCounts:
        """Counters of all boots, as last heard."""
        return self._past if self.heard is None else self._past + self.heard.accounts.counts

    def open(self, peer: ControlPeer) -> None:
        """A boot has reported."""
        self._peer = peer

    def close(self) -> bool:
        """The boot has ended: its counts are those that were last heard. Whether it had reported."""
        was_open = self.is_open
        self._past, self.heard, self._peer = self.totals, None, None
        return was_open

    def is_of(self, peer: ControlPeer) -> bool:
        """Whether this is the connection of the present boot."""
        return self._peer is peer

    async def refresh(self) -> None:
        """Ask for the books."""
        peer = self._peer
        if peer is None:
            return
        try:
            async with asyncio.timeout(lab_s(ANSWER_S_MAX)):
                raw = await peer.call("accounts")
        except (LinkError, TimeoutError):
            return  # it is going down, or hangs: its end, or its silence in the books, tells
        if peer is self._peer:
            self.heard = parse_node(raw, self._name)

    def strike(self, method: str, *params: object) -> asyncio.Future[bool]:
        """Let the node's program carry out a fault; whether it hit anything."""
        return asyncio.get_running_loop().create_task(self._hit(method, params), name=f"{self._name}/{method}")

    async def _hit(self, method: str, params: tuple[object, ...]) -> bool:
        if self._peer is None:
            return False
        try:
            async with asyncio.timeout(lab_s(ANSWER_S_MAX)):
                return bool(await self._peer.call(method, *params))
        except (LinkError, TimeoutError):
            return False  # it went down under the strike
