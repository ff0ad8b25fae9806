"""The relay: takes each interface's frames to the peer in view, through that link's channel.

A node has one lab wire, which carries (interface, coded frame). The relay is at the other end of all lab wires. It
knows which links each interface has; of those, the one whose window is open gets the frame. Where windows of one
interface overlap, the one that began first keeps the interface until it ends, as an antenna that tracks does; then the
next has it. What a window, an outage or an acquisition does to the bits is the channel's business
(`hil.channel.direction`).

Frames that arrive at the same instant, on whatever links, share one callback of the loop, in the order of sending.

Laws that a bench can check at any instant, over all nodes:

- channel deliveries == relay deliveries + arrivals at nodes without power + frames in flight;
- what a node accepted == what was delivered clean to it; what it rejected == what was delivered flipped.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final, NamedTuple

from flightsw.errors import ConfigError
from flightsw.ports import Frame, FrameReceiver
from hil.channel.direction import ChannelCounts, Direction
from hil.channel.light_time import ALWAYS_NS
from hil.channel.link import Link, LinkState, LinkStatus

Endpoint = tuple[int, int]
"""(node, interface)"""


class Way(NamedTuple):
    """One direction of a link, as an observer is told."""

    link: str
    """Name of the link."""
    is_forward: bool
    """From the link's first end to its second."""
    source: Endpoint
    target: Endpoint


@unique
class Fate(StrEnum):
    """What became of a frame that was sent on a link."""

    DELIVERED = "delivered"
    VANISHED = "vanished"
    NO_CONTACT = "no contact"
    OUTAGE = "outage"
    ACQUIRING = "acquiring"
    QUEUE_FULL = "transmit queue full"
    SENDER_OFF = "sender lost power"
    RECEIVER_OFF = "receiver off"


_LOSSES: Final = {
    "lost": Fate.VANISHED,
    "blocked_no_contact": Fate.NO_CONTACT,
    "blocked_outage": Fate.OUTAGE,
    "blocked_acquiring": Fate.ACQUIRING,
    "queue_dropped": Fate.QUEUE_FULL,
    "flushed": Fate.SENDER_OFF,
}
"""Counts of a channel that rise when it takes a frame."""

Observer = Callable[[int, Way, Frame, Frame, Fate], None]
"""Called with (now_ns, way, frame as sent, frame as received, fate) where a frame's way on a link ends, before the
receiver gets it. What is received is the very object that was sent unless bits were flipped, and for lost frames."""


@dataclass(slots=True, eq=False)
class _Port:
    """One interface of one node, as the relay sees it."""

    node: "_Node"
    interface: int
    routes: list["_Route"] = field(default_factory=list)
    route: "_Route | None" = None
    """The route in view until `route_until_ns`."""
    route_until_ns: int = ALWAYS_NS[0]
    plan: list[tuple[int, int, int]] | None = None
    """Windows of all routes (start_ns, end_ns, index of the route), sorted; None when it must be made anew."""
    plan_index: int = 0
    delivered_clean: int = 0
    delivered_flipped: int = 0
    dropped_no_peer: int = 0
    dropped_off: int = 0
    dropped_sender_off: int = 0

    def forget_plan(self) -> None:
        """A window was added: look again before the next frame."""
        self.plan = None
        self.route_until_ns = ALWAYS_NS[0]

    def look(self, now_ns: int) -> None:
        """Find the route in view, and how long that holds. Instants never go back."""
        if self.plan is None:
            self.plan = sorted(
                (start_ns, end_ns, index)
                for index, route in enumerate(self.routes)
                for start_ns, end_ns in route.direction.visibility.windows()
            )
            self.plan_index = 0
        plan, index = self.plan, self.plan_index
        while index < len(plan) and plan[index][1] <= now_ns:
            index += 1
        self.plan_index = index
        if index == len(plan):
            self.route, self.route_until_ns = None, ALWAYS_NS[1]
        elif plan[index][0] > now_ns:
            self.route, self.route_until_ns = None, plan[index][0]
        else:
            self.route, self.route_until_ns = self.routes[plan[index][2]], plan[index][1]


@dataclass(slots=True, eq=False)
class _Node:
    node_id: int
    ports: dict[int, _Port] = field(default_factory=dict)
    deliver: FrameReceiver | None = None
    """None while the node is off."""
    dropped_unknown_interface: int = 0


@dataclass(slots=True, eq=False)
class _Route:
    direction: Direction
    target: _Port
    way: Way


_InFlight = tuple[_Route, int, int, int, Frame, Frame]
"""(route, version of its visibility, first bit left [ns], last bit left [ns], frame as received, as sent)"""


class Relay:
    """Routes frames between the lab wires of all nodes.

    Args:
        call_at_ns: calls a function with arguments at an instant [ns]; equal instants in the order of the calls.
        now_ns: the present instant [ns].
    """

    def __init__(self, call_at_ns: Callable[..., object], now_ns: Callable[[], int]) -> None:
        self._call_at_ns = call_at_ns
        self._now_ns = now_ns
        self._nodes: dict[int, _Node] = {}
        self._links: dict[str, tuple[Link, _Port, _Port]] = {}
        self._due: dict[int, list[_InFlight]] = {}
        self.observer: Observer | None = None
        """Is told of every frame that is sent on a link, such as a capture."""

    def attach(self, node_id: int, deliver: FrameReceiver) -> None:
        """Plug in a node's lab wire, or power the node on again.

        Args:
            node_id: the node.
            deliver: called with (interface, frame) for each arrival.
        """
        node = self._node(node_id)
        assert node.deliver is None, f"node {node_id} is attached already"
        node.deliver = deliver

    def detach(self, node_id: int) -> None:
        """Power a node off: its transmit queues are lost, and what arrives for it is dropped and counted."""
        node = self._node(node_id)
        node.deliver = None
        now_ns = self._now_ns()
        for port in node.ports.values():
            for route in port.routes:
                route.direction.flush(now_ns)

    def connect(self, a: Endpoint, b: Endpoint, link: Link) -> None:
        """Join two interfaces by a link; `link.forward` leads from a to b.

        An interface may have many links. A link without windows is always in view, so an interface should have no other
        link next to it.

        Raises:
            ConfigError: the name of the link is taken, or it would lead back to its own node.
        """
        if link.name in self._links:
            raise ConfigError(f"link {link.name}: there is one of this name already, expected a unique name")
        if a[0] == b[0]:
            raise ConfigError(f"link {link.name}: node {a[0]} is at both ends, expected two nodes")
        near, far = self._port(a), self._port(b)
        near.routes.append(_Route(link.forward, far, Way(link.name, True, a, b)))
        far.routes.append(_Route(link.backward, near, Way(link.name, False, b, a)))
        self._links[link.name] = (link, near, far)
        for port in (near, far):
            port.forget_plan()
            link.visibility.watch(port.forget_plan)

    def send(self, node_id: int, interface: int, frame: Frame) -> None:
        """Take one coded frame from a node's lab wire."""
        node = self._nodes[node_id]
        port = node.ports.get(interface)
        if port is None:
            node.dropped_unknown_interface += 1
            return
        if node.deliver is None:
            port.dropped_sender_off += 1
            return
        now_ns = self._now_ns()
        if now_ns >= port.route_until_ns:
            port.look(now_ns)
        route = port.route
        if route is None:
            port.dropped_no_peer += 1
            return
        direction = route.direction
        before = None if self.observer is None else direction.counts.copy()
        arrivals = direction.transmit(frame, now_ns)
        if before is not None and not arrivals:
            self._tell_loss(now_ns, route, frame, before)
        for received, arrival_ns in arrivals:
            arrival = (
                route,
                direction.visibility.version,
                direction.begin_ns,
                direction.busy_until_ns,
                received,
                frame,
            )
            batch = self._due.get(arrival_ns)
            if batch is None:
                self._due[arrival_ns] = [arrival]
                self._call_at_ns(arrival_ns, self._deliver_due, arrival_ns)
            else:
                batch.append(arrival)

    def link(self, name: str) -> Link:
        """The link of a name.

        Raises:
            ConfigError: there is none.
        """
        return self._entry(name)[0]

    def link_names(self) -> list[str]:
        """Names of all links, sorted."""
        return sorted(self._links)

    def link_state(self, name: str, now_ns: int) -> LinkStatus:
        """State of a link at an instant, with the reason and the predicted AOS.

        Raises:
            ConfigError: there is no link of this name.
        """
        link, *ports = self._entry(name)
        status = link.status(now_ns)
        if status.state is LinkState.OK:
            for port in ports:
                if port.node.deliver is None:
                    return LinkStatus(name, LinkState.UNAVAIL, f"node {port.node.node_id} is off")
        return status

    def counts(self) -> dict[str, dict[str, ChannelCounts]]:
        """Counts by name of link, then of direction (`isl-03-04/forward`), sorted; copies."""
        directions = {name: (self._links[name][0].forward, self._links[name][0].backward) for name in self.link_names()}
        return {
            name: {direction.name: direction.counts.copy() for direction in sorted(pair, key=lambda one: one.name)}
            for name, pair in directions.items()
        }

    def total(self) -> ChannelCounts:
        """Counts over all links and directions."""
        total = ChannelCounts()
        for link, _, _ in self._links.values():
            total = total + link.forward.counts + link.backward.counts
        return total

    def in_flight_count(self) -> int:
        """Frames between a transmitter and their arrival, those in transmit queues included."""
        return sum(len(batch) for batch in self._due.values())

    @property
    def delivered_clean(self) -> dict[Endpoint, int]:
        """Frames handed to each (node, interface) as they were sent."""
        return {(port.node.node_id, port.interface): port.delivered_clean for port in self._ports()}

    @property
    def delivered_flipped(self) -> dict[Endpoint, int]:
        """Frames handed to each (node, interface) with at least one flipped bit."""
        return {(port.node.node_id, port.interface): port.delivered_flipped for port in self._ports()}

    @property
    def dropped_no_peer(self) -> dict[Endpoint, int]:
        """Frames that each (node, interface) sent with no peer in view."""
        return {(port.node.node_id, port.interface): port.dropped_no_peer for port in self._ports()}

    @property
    def dropped_off(self) -> dict[Endpoint, int]:
        """Frames that arrived for each (node, interface) while its node was off."""
        return {(port.node.node_id, port.interface): port.dropped_off for port in self._ports()}

    @property
    def dropped_sender_off(self) -> dict[Endpoint, int]:
        """Frames left on the lab wire of each (node, interface) when its node went off."""
        return {(port.node.node_id, port.interface): port.dropped_sender_off for port in self._ports()}

    @property
    def dropped_unknown_interface(self) -> dict[int, int]:
        """Frames that each node sent on an interface that has no link."""
        return {node_id: self._nodes[node_id].dropped_unknown_interface for node_id in sorted(self._nodes)}

    def _deliver_due(self, arrival_ns: int) -> None:
        observer = self.observer
        for route, version, begin_ns, done_ns, frame, sent in self._due.pop(arrival_ns):
            direction, port = route.direction, route.target
            was_flipped = frame is not sent
            if direction.visibility.version != version:
                before = None if observer is None else direction.counts.copy()
                if direction.recall(version, begin_ns, done_ns, len(frame), was_flipped):
                    if before is not None:
                        self._tell_loss(arrival_ns, route, sent, before)
                    continue
            deliver = port.node.deliver
            if deliver is None:
                port.dropped_off += 1
                if observer is not None:
                    observer(arrival_ns, route.way, sent, sent, Fate.RECEIVER_OFF)
                continue
            if observer is not None:
                observer(arrival_ns, route.way, sent, frame, Fate.DELIVERED)
            if was_flipped:
                port.delivered_flipped += 1
            else:
                port.delivered_clean += 1
            deliver(port.interface, frame)

    def _tell_loss(self, now_ns: int, route: _Route, sent: Frame, before: ChannelCounts) -> None:
        """Tell the observer of a frame that the channel took; which of its counts has risen says why."""
        assert self.observer is not None, "only called with an observer"
        after = route.direction.counts
        fates = [fate for name, fate in _LOSSES.items() if getattr(after, name) > getattr(before, name)]
        assert len(fates) == 1, f"one frame was lost for {len(fates)} reasons"
        self.observer(now_ns, route.way, sent, sent, fates[0])

    def _node(self, node_id: int) -> _Node:
        return self._nodes.setdefault(node_id, _Node(node_id))

    def _port(self, endpoint: Endpoint) -> _Port:
        node = self._node(endpoint[0])
        return node.ports.setdefault(endpoint[1], _Port(node, endpoint[1]))

    def _ports(self) -> list[_Port]:
        return [port for node_id in sorted(self._nodes) for _, port in sorted(self._nodes[node_id].ports.items())]

    def _entry(self, name: str) -> tuple[Link, _Port, _Port]:
        entry = self._links.get(name)
        if entry is None:
            raise ConfigError(f"link {name}: there is none of this name; the links are {', '.join(self.link_names())}")
        return entry
