"""A node of another implementation on the bench: it speaks LTP over UDP, the bench puts its segments on our links.

Its segments come in datagrams, are coded as the interface's coding says, and go through the impaired links of the relay
like any other frame. Frames that arrive for it are decoded; those that do not decode are dropped and counted, as its
radio would do, and the segments of the others go to it in datagrams. So the foreign node needs no code of ours, and
everything between the two radios is the bench's.
"""

from dataclasses import dataclass

from flightsw.errors import ConfigError, FrameError, WireError
from flightsw.link.status import LinkStatus
from flightsw.link.udp import Address, UdpLink, UdpPort
from flightsw.ports import Frame
from flightsw.wire.framing import Coding, received
from hil.channel.relay import Relay


@dataclass(slots=True)
class ExternalCounts:
    """What passed between the relay and a foreign node."""

    sent_count: int = 0
    """Segments of the node that were put on a link."""
    refused_count: int = 0
    """Segments of the node that no frame can hold."""
    delivered_count: int = 0
    """Frames for the node that decoded; their segments were sent to it."""
    corrected_count: int = 0
    """Those among them that arrived with errors, all of which the coding corrected."""
    rejected_count: int = 0
    """Frames for the node that did not decode."""


class ExternalNode:
    """A foreign node on the relay.

    Args:
        relay: the bench's; the node's interfaces must be connected.
        node_id: node and LTP engine number of the foreign node.
        ports: by interface, where the bench listens for the node's segments, and where the node listens.
        codings: by interface, the coding of its link.

    Raises:
        ConfigError: an interface has no coding.
    """

    def __init__(
        self, relay: Relay, node_id: int, ports: dict[int, tuple[Address, Address]], codings: dict[int, Coding]
    ) -> None:
        for interface in ports:
            if interface not in codings:
                raise ConfigError(f"external node {node_id}: interface {interface}: coding missing, expected one")
        self.counts = ExternalCounts()
        self._relay = relay
        self._node_id = node_id
        self._codings = codings
        self._link = UdpLink({interface: UdpPort(local, remote) for interface, (local, remote) in ports.items()})
        self._link.set_receiver(self._from_node)

    async def open(self) -> None:
        """Bind the sockets and plug the node in.

        Raises:
            LinkBroken: an address cannot be bound.
        """
        await self._link.open()
        self._relay.attach(self._node_id, self._to_node)

    async def close(self) -> None:
        """Unplug the node and close the sockets."""
        self._relay.detach(self._node_id)
        await self._link.close()

    def local_address(self, interface: int) -> Address:
        """Where the bench listens for the segments of an interface."""
        return self._link.local_address(interface)

    def status(self) -> LinkStatus:
        """State and counts of the sockets."""
        return self._link.status()

    def _from_node(self, interface: int, segment: Frame) -> None:
        try:
            frame = self._codings[interface].frame(bytes(segment))
        except FrameError:
            self.counts.refused_count += 1
            return
        self.counts.sent_count += 1
        self._relay.send(self._node_id, interface, frame)

    def _to_node(self, interface: int, frame: Frame) -> None:
        try:
            segment, wrong_bytes = received(self._codings[interface], frame)
        except WireError:
            self.counts.rejected_count += 1
            return
        self.counts.delivered_count += 1
        self.counts.corrected_count += wrong_bytes > 0
        self._link.send(interface, segment)
