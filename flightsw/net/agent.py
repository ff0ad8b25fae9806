"""The bundle agent: takes bundles from services, carries them from node to node, and hands them to services.

It joins the layers: bundles (BPv7) wait in bounded queues by priority, go by contact-graph routing to a neighbour, travel as
LTP blocks (red when they are to be reliable, green otherwise), in frames of the interface's coding, and only inside planned
contacts, at the contact's rate. Custody goes hop by hop: a bundle leaves this node's books when the neighbour has claimed all
of its block.

No input or output happens here: `pump` gives the frames that the wire takes now, `next_deadline_ns` says when to call it next.
Calls may come in any order, and time is always an argument. Two kinds of time come in: `now_ns` is monotonic and rules all
waiting; `utc_ns` only stamps bundles, so that a jump of the mission clock expires nothing.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from flightsw.config import InterfaceConfig
from flightsw.errors import BundleError, ConfigError, SegmentError, WireError
from flightsw.net.agent_values import (
    PRIORITIES_COUNT,
    PRIORITY_DEFAULT,
    AgentCounters,
    AgentLimits,
    BundleId,
    Delivery,
)
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.ltp import BlockFailed, BlockReceived, BlockSent, CancelReason, Span
from flightsw.net.ltp_values import CLIENT_SERVICE_BUNDLE
from flightsw.net.queues import BundleQueue, QueuedBundle
from flightsw.net.routing import NEVER_NS, Router
from flightsw.net.terminals import SEGMENT_HEADER_BYTES_MAX, Neighbour, Terminal
from flightsw.wire.framing import Coding, coding
from flightsw.wire.segments import DataSegment, ReportAck, ReportSegment, Segment, decode_segment, encode_segment

__all__ = ["AgentCounters", "AgentLimits", "BundleAgent", "BundleId", "Delivery"]

NS_PER_MS: Final = 1_000_000
DTN_EPOCH_UTC_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z [ms since 1970]. Source: RFC 9171 §4.2.6."""
BUNDLE_HEADER_BYTES_MAX: Final = 256
"""Blocks around a payload [bytes]: primary, age, hop count, priority, CRCs; about 90 with short numbers."""
ROUTE_BYTES: Final = 1024
"""Length of bundle that routes are computed for [bytes]: one radio segment; a contact too short for it is no contact."""

_CONTACT, _TRANSMIT, _SPAN, _SUSPECT, _SWEEP = range(5)
"""Kinds of wake-up; at the same instant they are served in the order in which they were scheduled."""


class BundleAgent:
    """The bundle protocol agent of one node.

    Args:
        node: node number; also the LTP engine number.
        plan: predicted contacts.
        interfaces: our terminals; every contact of the plan that leaves this node names one of them.
        session_base: first of the numbers that this boot uses for sessions and bundles. No number may come again after a reset:
            put the boot count into the high bits, for example `boot_count << 32`.
        limits: bounds of queues and timers.

    Raises:
        ConfigError: a contact of the plan leaves from an interface that is not configured, or a coding is unknown.
    """

    def __init__(
        self,
        node: int,
        plan: ContactPlan,
        interfaces: tuple[InterfaceConfig, ...],
        session_base: int,
        limits: AgentLimits | None = None,
    ) -> None:
        self.node = node
        self.counters = AgentCounters()
        self._plan = plan
        self._limits = AgentLimits() if limits is None else limits
        self._numbers = count(session_base + 1)
        self._orders = count()
        self._router = Router(plan, node, ROUTE_BYTES)
        self._terminals = {config.index: _terminal(config) for config in interfaces}
        self._neighbours: dict[int, Neighbour] = {}
        self._waiting: dict[int, Neighbour] = {}
        """Neighbours whose queue is not empty while there is no contact with them."""
        self._limbo = BundleQueue(self._limits.limbo_bundles_max)
        self._suspects: dict[int, Neighbour] = {}
        self._sessions: dict[int, Neighbour] = {}
        """Who the blocks under way were sent to, by session number."""
        self._seen: dict[BundleId, None] = {}
        self._deliveries: list[Delivery] = []
        self._ready: dict[int, Terminal] = {}
        """Terminals that may have something to send now."""
        self._wakes: list[tuple[int, int, int, int]] = []
        """(when [ns], order, kind, index); a heap."""
        self._sweep_ns = NEVER_NS
        for index, terminal in self._terminals.items():
            self.counters.interfaces[index] = terminal.counters
            self._wake(0, _CONTACT, index)
        for contact in plan.from_node(node):
            if contact.source_interface not in self._terminals:
                raise ConfigError(f"node {node}: contact plan: interface {contact.source_interface} is not configured")
            if contact.target not in self._neighbours:
                self._neighbours[contact.target] = self._neighbour(contact)

    # -- services

    def send(
        self,
        destination_node: int,
        service: int,
        payload: bytes,
        *,
        now_ns: int,
        utc_ns: int,
        lifetime_ms: int,
        priority: int = PRIORITY_DEFAULT,
        reliable: bool = True,
        source_service: int = 0,
    ) -> BundleId:
        """Take a payload for a service of a node; it leaves with a later `pump`.

        Args:
            destination_node: where it goes; this node is allowed.
            service: service number there.
            payload: at most one LTP block with its bundle's headers.
            now_ns: monotonic time [ns].
            utc_ns: mission time, for the creation timestamp only [ns].
            lifetime_ms: how long it is worth carrying, by age [ms].
            priority: 0 (urgent) to 7.
            reliable: red LTP blocks on every hop, or green ones.
            source_service: service number that it comes from.

        Raises:
            ConfigError: the payload is too long, or the priority is out of range.
        """
        payload_bytes_max = self._limits.ltp.block_bytes_max - BUNDLE_HEADER_BYTES_MAX
        if len(payload) > payload_bytes_max:
            raise ConfigError(f"bundle payload: {len(payload)} bytes, expected at most {payload_bytes_max}")
        if not 0 <= priority < PRIORITIES_COUNT:
            raise ConfigError(f"bundle priority: {priority}, expected 0 to {PRIORITIES_COUNT - 1}")
        created_ms = max(0, utc_ns // NS_PER_MS - DTN_EPOCH_UTC_MS)
        bundle_id = BundleId(self.node, source_service, created_ms, next(self._numbers))
        self.counters.bundles_sourced_count += 1
        if destination_node == self.node:
            self.counters.bundles_delivered_count += 1
            self._deliveries.append(Delivery(service, self.node, payload, 0, lifetime_ms))
            return bundle_id
        bundle = Bundle(
            destination=Eid(destination_node, service),
            source=Eid(self.node, source_service),
            created_ms=created_ms,
            sequence=bundle_id.sequence,
            lifetime_ms=lifetime_ms,
            payload=payload,
            hop_limit=self._limits.hops_max,
        )
        self._enqueue(
            QueuedBundle(
                bundle,
                next(self._orders),
                priority=priority,
                reliable=reliable,
                previous=0,
                arrived_ns=now_ns,
                deadline_ns=now_ns + lifetime_ms * NS_PER_MS,
            ),
            now_ns,
        )
        return bundle_id

    def take_deliveries(self) -> list[Delivery]:
        """Bundles for services of this node since the last call, in order of arrival."""
        deliveries = self._deliveries
        if deliveries:
            self._deliveries = []
        return deliveries

    # -- the wire

    def receive_frame(self, interface: int, coded: bytes, now_ns: int) -> None:
        """Take a coded frame that arrived on an interface. Noise is counted, never raised."""
        terminal = self._terminals.get(interface)
        if terminal is None:
            return
        try:
            segment = decode_segment(terminal.coding.decode(coded))
        except SegmentError:
            terminal.counters.segments_rejected_count += 1
            return
        except WireError:
            terminal.counters.frames_rejected_count += 1
            return
        originator, number = segment.session
        if type(segment) is DataSegment and not segment.red and segment.end_of_block and segment.offset == 0:
            # A whole green block in one segment: nothing to put together, nothing to remember.
            terminal.counters.frames_accepted_count += 1
            self.counters.ltp.segments_received_count += 1
            self.counters.ltp.blocks_received_count += 1
            self._receive_block(segment.data, originator, False, now_ns, _light_time_ns(terminal))
            return
        if originator != self.node:
            neighbour = self._neighbours.get(originator)
        else:
            neighbour = self._sessions.get(number, terminal.neighbour)
        if neighbour is None:
            terminal.counters.segments_rejected_count += 1
            return
        terminal.counters.frames_accepted_count += 1
        if neighbour.suspect_until_ns and isinstance(segment, ReportSegment | ReportAck):
            self._trust(neighbour, now_ns)
        neighbour.span.receive(segment, now_ns)
        self._serve_span(neighbour, now_ns, _light_time_ns(terminal))

    def pump(self, now_ns: int) -> list[tuple[int, bytes]]:
        """Do what is due, and give the (interface, coded frame) pairs that the wire takes now."""
        wakes = self._wakes
        while wakes and wakes[0][0] <= now_ns:
            when_ns, _, kind, index = heappop(wakes)
            if kind == _TRANSMIT:
                terminal = self._terminals[index]
                if terminal.wake_ns == when_ns:
                    terminal.wake_ns = None
                    self._ready[index] = terminal
            elif kind == _SPAN:
                self._tick_span(self._neighbours[index], when_ns, now_ns)
            elif kind == _CONTACT:
                self._change_contact(self._terminals[index], now_ns)
            elif kind == _SUSPECT:
                neighbour = self._neighbours[index]
                if 0 < neighbour.suspect_until_ns <= now_ns:
                    self._trust(neighbour, now_ns)
            elif when_ns == self._sweep_ns:
                self._sweep(now_ns)
        frames: list[tuple[int, bytes]] = []
        while self._ready:
            ready, self._ready = self._ready, {}
            for terminal in ready.values():
                self._transmit(terminal, now_ns, frames)
        return frames

    def next_deadline_ns(self) -> int | None:
        """When `pump` has something to do even if nothing is sent or received before [ns]."""
        return self._wakes[0][0] if self._wakes else None

    # -- sending

    def _transmit(self, terminal: Terminal, now_ns: int, frames: list[tuple[int, bytes]]) -> None:
        """Fill the transmitter up to its window, inside the contact."""
        contact, neighbour = terminal.contact, terminal.neighbour
        if contact is None or neighbour is None:
            return
        span = neighbour.span
        busy_ns = max(terminal.busy_until_ns, now_ns)
        last_start_ns = contact.end_ns - terminal.frame_ns_max
        is_timed = False
        while busy_ns <= last_start_ns:
            has_work = span.has_work
            if not has_work and not len(neighbour.queue):
                break
            if busy_ns > now_ns + terminal.window_ns:
                self._wake_terminal(terminal, busy_ns - terminal.window_ns // 2)
                break
            segment = span.next_segment(busy_ns) if has_work else None
            if segment is None:
                segment = self._next_bundle(terminal, neighbour, contact, busy_ns)
                if segment is None:
                    if span.has_work:
                        continue
                    break
            else:
                is_timed = True
            frame = terminal.coding.encode(segment)
            busy_ns += int(len(frame) * terminal.ns_per_byte) + 1
            terminal.busy_until_ns = busy_ns
            terminal.counters.frames_sent_count += 1
            frames.append((terminal.index, frame))
        if is_timed:
            self._serve_span(neighbour, now_ns, 0)

    def _next_bundle(self, terminal: Terminal, neighbour: Neighbour, contact: Contact, at_ns: int) -> bytes | None:
        """The next bundle of a neighbour: as the only segment of a green block, or handed to LTP (None)."""
        span = neighbour.span
        while span.wants_block:
            queued = neighbour.queue.pop()
            if queued is None:
                return None
            if queued.deadline_ns <= at_ns:
                self.counters.bundles_expired_count += 1
                continue
            block = _encode(queued, at_ns)
            segments_count = -(-len(block) // span.segment_bytes)
            if not queued.reliable:
                if segments_count == 1:
                    self._count_sent(queued)
                    return self._green_segment(block)
                if at_ns + segments_count * terminal.frame_ns_max > contact.end_ns:
                    # It would be cut off, and what is green is not continued: another contact may be long enough.
                    self._push(self._limbo, queued)
                    continue
            number = span.send(block, queued.reliable, at_ns)
            neighbour.in_flight[number] = queued
            self._sessions[number] = neighbour
            return None
        return None

    def _green_segment(self, block: bytes) -> bytes:
        ltp = self.counters.ltp
        ltp.segments_sent_count += 1
        ltp.blocks_sent_count += 1
        return encode_segment(
            DataSegment(
                session=(self.node, next(self._numbers)),
                red=False,
                checkpoint=False,
                end_of_red=False,
                end_of_block=True,
                client_service=CLIENT_SERVICE_BUNDLE,
                offset=0,
                data=block,
                checkpoint_serial=0,
                report_serial=0,
            )
        )

    def _count_sent(self, queued: QueuedBundle) -> None:
        if queued.previous:
            self.counters.bundles_forwarded_count += 1

    # -- LTP

    def _tick_span(self, neighbour: Neighbour, when_ns: int, now_ns: int) -> None:
        if neighbour.scheduled_ns == when_ns:
            neighbour.scheduled_ns = None
            neighbour.span.tick(now_ns)
            self._serve_span(neighbour, now_ns, 0)

    def _serve_span(self, neighbour: Neighbour, now_ns: int, light_time_ns: int) -> None:
        """Take what a span has to say, and see to it that it is served again in time."""
        span = neighbour.span
        for event in span.take_events():
            if isinstance(event, BlockReceived):
                transit_ns = now_ns - event.first_ns + light_time_ns
                self._receive_block(event.block, neighbour.node, event.red, now_ns, transit_ns)
                continue
            self._sessions.pop(event.session, None)
            queued = neighbour.in_flight.pop(event.session, None)
            if queued is None:
                continue
            if isinstance(event, BlockSent):
                self._count_sent(queued)
            else:
                self._block_failed(event, queued, neighbour, now_ns)
        deadline_ns = span.next_deadline_ns()
        if deadline_ns is not None and (neighbour.scheduled_ns is None or deadline_ns < neighbour.scheduled_ns):
            neighbour.scheduled_ns = deadline_ns
            self._wake(deadline_ns, _SPAN, neighbour.node)
        if span.has_work or len(neighbour.queue):
            self._make_ready(neighbour)

    def _block_failed(self, event: BlockFailed, queued: QueuedBundle, neighbour: Neighbour, now_ns: int) -> None:
        if event.reason == CancelReason.RETRANSMISSION_LIMIT:
            self._suspect(neighbour, now_ns)
        queued.failures_count += 1
        if queued.failures_count > self._limits.failures_max:
            self.counters.bundles_dropped_count += 1
            return
        if self._enqueue(queued, now_ns) is not neighbour:
            self.counters.bundles_rerouted_count += 1

    def _suspect(self, neighbour: Neighbour, now_ns: int) -> None:
        """Route around a neighbour that does not answer, for a while."""
        self.counters.suspicions_count += 1
        neighbour.suspect_until_ns = now_ns + self._limits.suspect_ns
        self._wake(neighbour.suspect_until_ns, _SUSPECT, neighbour.node)
        self._suspects[neighbour.node] = neighbour
        self._router.exclude(self._suspects)
        self._reroute(neighbour, now_ns)

    def _trust(self, neighbour: Neighbour, now_ns: int) -> None:
        """The suspicion is over: it has answered, or the time is up."""
        neighbour.suspect_until_ns = 0
        del self._suspects[neighbour.node]
        self._router.exclude(self._suspects)
        self._reroute_waiting(now_ns)

    # -- bundles

    def _receive_block(self, block: bytes, previous: int, reliable: bool, now_ns: int, transit_ns: int) -> None:
        """A block from a neighbour; `transit_ns` is the time on the way that the sender could not count."""
        try:
            bundle = decode_bundle(block)
        except BundleError:
            self.counters.bundles_rejected_count += 1
            return
        age_ms = bundle.age_ms - (-transit_ns // NS_PER_MS)
        if age_ms >= bundle.lifetime_ms:
            self.counters.bundles_expired_count += 1
            return
        if bundle.destination.node == self.node:
            self._deliver(bundle, age_ms)
            return
        if bundle.hop_count >= bundle.hop_limit:
            self.counters.bundles_dropped_count += 1
            return
        queued = QueuedBundle(
            bundle,
            next(self._orders),
            priority=bundle.priority,
            reliable=reliable,
            previous=previous,
            arrived_ns=now_ns - transit_ns,
            deadline_ns=now_ns + (bundle.lifetime_ms - age_ms) * NS_PER_MS,
        )
        self._enqueue(queued, now_ns)

    def _deliver(self, bundle: Bundle, age_ms: int) -> None:
        source = bundle.source
        bundle_id = BundleId(source.node, source.service, bundle.created_ms, bundle.sequence)
        if bundle_id in self._seen:
            self.counters.bundles_duplicate_count += 1
            return
        if len(self._seen) >= self._limits.seen_bundles_max:
            del self._seen[next(iter(self._seen))]
        self._seen[bundle_id] = None
        self.counters.bundles_delivered_count += 1
        self._deliveries.append(
            Delivery(bundle.destination.service, source.node, bundle.payload, age_ms, bundle.lifetime_ms)
        )

    # -- queues

    def _enqueue(self, queued: QueuedBundle, now_ns: int) -> Neighbour | None:
        """Let a bundle wait for the neighbour on its route, or in limbo when there is none (None)."""
        contact = self._router.first_contact(queued.bundle.destination.node, queued.previous, now_ns)
        if contact is None:
            self._push(self._limbo, queued)
            return None
        neighbour = self._neighbours[contact.target]
        self._push(neighbour.queue, queued)
        if neighbour.terminals:
            self._make_ready(neighbour)
        else:
            self._waiting[neighbour.node] = neighbour
        return neighbour

    def _push(self, queue: BundleQueue, queued: QueuedBundle) -> None:
        if queue.push(queued) is not None:
            self.counters.bundles_dropped_count += 1
        if queued.deadline_ns < self._sweep_ns:
            self._sweep_ns = queued.deadline_ns
            self._wake(self._sweep_ns, _SWEEP, 0)

    def _reroute(self, neighbour: Neighbour, now_ns: int) -> None:
        """Look for other ways for all that waits for a neighbour."""
        for queued in neighbour.queue.take_all():
            if self._enqueue(queued, now_ns) is not neighbour:
                self.counters.bundles_rerouted_count += 1

    def _reroute_waiting(self, now_ns: int) -> None:
        """Contacts or suspicions have changed: look again for what has no route, or waits for a contact."""
        for queued in self._limbo.take_all():
            self._enqueue(queued, now_ns)
        waiting, self._waiting = self._waiting, {}
        for node in sorted(waiting):
            self._reroute(waiting[node], now_ns)

    def _sweep(self, now_ns: int) -> None:
        """Drop what has expired while it waited."""
        first_ns = NEVER_NS
        queues = [self._limbo, *(neighbour.queue for neighbour in self._neighbours.values())]
        for queue in queues:
            if len(queue):
                self.counters.bundles_expired_count += len(queue.take_expired(now_ns))
                first_ns = min(first_ns, queue.first_deadline_ns() or NEVER_NS)
        self._sweep_ns = first_ns
        if first_ns < NEVER_NS:
            self._sweep_ns = max(first_ns, now_ns + self._limits.sweep_ns)
            self._wake(self._sweep_ns, _SWEEP, 0)

    # -- contacts

    def _change_contact(self, terminal: Terminal, now_ns: int) -> None:
        """A contact of a terminal begins or ends."""
        contact = self._plan.at(self.node, terminal.index, now_ns)
        if contact is not terminal.contact:
            self._end_contact(terminal, now_ns)
            if contact is not None:
                self._begin_contact(terminal, contact, now_ns)
        if contact is not None:
            self._wake(contact.end_ns, _CONTACT, terminal.index)
        else:
            following = self._plan.next_on(self.node, terminal.index, now_ns)
            if following is not None:
                self._wake(following.start_ns, _CONTACT, terminal.index)

    def _begin_contact(self, terminal: Terminal, contact: Contact, now_ns: int) -> None:
        neighbour = self._neighbours[contact.target]
        terminal.open(contact, neighbour, self._limits.window_ns)
        neighbour.terminals.append(terminal)
        self._waiting.pop(neighbour.node, None)
        span = neighbour.span
        span.segment_bytes = min(one.config.segment_bytes for one in neighbour.terminals)
        # Beside the light time, an answer waits behind what both transmitters have taken on already.
        span.set_light_time_ns(contact.light_time_ns + terminal.window_ns + terminal.frame_ns_max)
        span.resume(now_ns)
        for number, queued in list(neighbour.in_flight.items()):
            if queued.deadline_ns <= now_ns:
                # It was cut off by the end of the last contact and is worth nothing now: take it back from LTP, so that
                # the neighbour never completes it.
                span.cancel(number, now_ns)
                del neighbour.in_flight[number], self._sessions[number]
                self.counters.bundles_expired_count += 1
        self._serve_span(neighbour, now_ns, 0)
        self._reroute_waiting(now_ns)

    def _end_contact(self, terminal: Terminal, now_ns: int) -> None:
        neighbour = terminal.neighbour
        if neighbour is None:
            return
        terminal.close()
        neighbour.terminals.remove(terminal)
        if not neighbour.terminals:
            neighbour.span.suspend(now_ns)
            self._serve_span(neighbour, now_ns, 0)
            self._reroute(neighbour, now_ns)

    # -- wake-ups

    def _make_ready(self, neighbour: Neighbour) -> None:
        for terminal in neighbour.terminals:
            if terminal.wake_ns is None:
                self._ready[terminal.index] = terminal

    def _wake(self, when_ns: int, kind: int, index: int) -> None:
        heappush(self._wakes, (when_ns, next(self._orders), kind, index))

    def _wake_terminal(self, terminal: Terminal, when_ns: int) -> None:
        if terminal.wake_ns is None:
            terminal.wake_ns = when_ns
            self._wake(when_ns, _TRANSMIT, terminal.index)

    def _neighbour(self, contact: Contact) -> Neighbour:
        limits = self._limits
        span = Span(self.node, contact.target, limits.ltp, self._numbers.__next__, self.counters.ltp)
        queue_bundles_max = self._terminals[contact.source_interface].config.queue_bundles_max
        return Neighbour(contact.target, span, BundleQueue(queue_bundles_max))


def _terminal(config: InterfaceConfig) -> Terminal:
    code = coding(config.coding)
    return Terminal(config, code, len(code.encode(bytes(config.segment_bytes + SEGMENT_HEADER_BYTES_MAX))))


def _light_time_ns(terminal: Terminal) -> int:
    return 0 if terminal.contact is None else terminal.contact.light_time_ns


def _encode(queued: QueuedBundle, at_ns: int) -> bytes:
    """The bundle as it leaves, with the age that it has then."""
    age_ms = queued.bundle.age_ms - (-(at_ns - queued.arrived_ns) // NS_PER_MS)
    raise NotImplementedError
