"""The bundle agent: takes bundles from services, carries them from node to node, and hands them to services.

It joins the layers: bundles (BPv7) wait in bounded queues by priority, go by contact-graph routing to a neighbour,
travel as LTP blocks (red when they are to be reliable, green otherwise), in frames of the interface's coding, and only
inside planned contacts, at the contact's rate. Custody goes hop by hop: a bundle leaves this node's books when the
neighbour has claimed all of its block.

No input or output happens here: `pump` gives the frames that the wire takes now, `next_deadline_ns` says when to call
it next. Calls may come in any order, and time is always an argument. Two kinds of time come in: `now_ns` is monotonic
and rules all waiting; `utc_ns` only stamps bundles, so that a jump of the mission clock expires nothing.
"""

from itertools import count
from typing import Final

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, FrameError, SegmentError, WireError
from flightsw.net.agent_values import (
    PRIORITIES_COUNT,
    PRIORITY_DEFAULT,
    AgentCounters,
    AgentLimits,
    BundleId,
    Delivery,
)
from flightsw.net.arrivals import Arrivals
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.forwarding import Forwarder
from flightsw.net.inbox import Inbox
from flightsw.net.ltp import BlockReceived, BlockSent, CancelReason, Span
from flightsw.net.ltp_values import CLIENT_SERVICE_BUNDLE
from flightsw.net.padding import PADDING_BYTES_MAX, padding_blocks
from flightsw.net.queues import PRIORITY_BLOCKS, BundleQueue, QueuedBundle, priority_of
from flightsw.net.reports import StatusReporter
from flightsw.net.responses import MissionTime, Response
from flightsw.net.routing import Router
from flightsw.net.security import BundleSecurity, Refusal
from flightsw.net.session_numbers import session_numbers
from flightsw.net.terminals import SEGMENT_HEADER_BYTES_MAX, Neighbour, Terminal
from flightsw.net.wakes import Cause, Wakes
from flightsw.ports import Frame
from flightsw.wire.bundles import Bundle
from flightsw.wire.datagrams import interface_coding
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import received
from flightsw.wire.segments import DataSegment, ReportAck, ReportSegment, decode_segment, encode_segment

__all__ = ["AgentCounters", "AgentLimits", "BundleAgent", "BundleId", "Delivery"]

BUNDLE_HEADER_BYTES_MAX: Final = 384
"""Blocks around a payload [bytes]: primary, age, hop count, priority, CRCs, about 80 with short numbers; a tag 64; what
encrypts payload and tag 57 each."""

ROUTE_BYTES: Final = 1024
"""Length of bundle that routes are computed for [bytes]: one radio segment; a shorter contact is no contact."""

WATCHED_MAX: Final = 1024
"""Bundles whose departure is waited for; of more the oldest are forgotten. A ground has some dozen open commands."""


class BundleAgent:
    """The bundle protocol agent of one node.

    Args:
        node: node number; also the LTP engine number.
        plan: predicted contacts.
        interfaces: our terminals; every contact of the plan that leaves this node names one of them.
        session_base: first of the numbers that this boot uses for sessions and bundles. No number may come again after
            a reset: put the boot count into the high bits, for example `boot_count << 24` (short numbers are short on
            the wire).
        limits: bounds of queues and timers.
        security: signs what services send and judges what arrives for them; None for neither.

    Raises:
        ConfigError: a contact of the plan leaves from an interface that is not configured, a coding is unknown, or an
            interface's segments are too long for its coding.
    """

    def __init__(
        self,
        node: int,
        plan: ContactPlan,
        interfaces: tuple[InterfaceConfig, ...],
        session_base: int,
        limits: AgentLimits | None = None,
        security: BundleSecurity | None = None,
    ) -> None:
        self.node = node
        self.counters = AgentCounters()
        self._plan = plan
        self._limits = AgentLimits() if limits is None else limits
        self._numbers = count(session_base + 1)
        self._session_numbers = session_numbers(session_base)
        self._orders = count()
        self._wakes = Wakes()
        self._terminals: dict[int, Terminal] = {}
        for config in interfaces:
            code = interface_coding(config.coding)
            try:
                frame_bytes_max = len(code.encode(bytes(config.segment_bytes + SEGMENT_HEADER_BYTES_MAX)))
            except FrameError as error:
                raise ConfigError(f"interface {config.name!r}: segment_bytes: {error}") from None
            terminal = self._terminals[config.index] = Terminal(config, code, frame_bytes_max)
            self.counters.interfaces[config.index] = terminal.counters
            self._wakes.add(0, Cause.CONTACT, config.index)
        self._neighbours: dict[int, Neighbour] = {}
        for contact in plan.from_node(node):
            if contact.source_interface not in self._terminals:
                raise ConfigError(f"node {node}: contact plan: interface {contact.source_interface} is not configured")
            if contact.target not in self._neighbours:
                self._neighbours[contact.target] = self._neighbour(contact)
        router = Router(plan, node, ROUTE_BYTES)
        self._time = MissionTime()
        self._reporter = StatusReporter(self._limits.status_reports, self._time, self.counters)
        self._forwarder = Forwarder(router, self._neighbours, self._limits, self.counters, self._wakes, self._reporter)
        self._sessions: dict[int, Neighbour] = {}
        """Who the blocks under way were sent to, by session number."""
        self._security = security
        self.refusals: list[Refusal] = [] if security is None else security.refusals
        """Bundles that security refused and that are to be reported, few of many; the owner takes them out."""
        if security is not None:
            self.counters.security_refused = security.refused_counts
        self._watched: dict[tuple[int, int], int] = {}
        self.departed: list[int] = []
        """Watched bundles that have begun to leave; the owner takes them out."""
        self._inbox = Inbox(self._limits.seen_bundles_max, self.counters, security)
        self._arrivals = Arrivals(node, self._inbox, self._reporter, self.counters, self._forward)

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
        confidential: bool = False,
        padding_bytes: int = 0,
        watch: int | None = None,
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
            confidential: encrypt it for its destination.
            padding_bytes: link time on every hop of data that do not move [bytes]; of reliable bundles only.
            watch: a number that comes up in `departed` when the bundle begins to leave.

        Raises:
            ConfigError: payload or padding is too long, the priority out of range, or there is no key to encrypt with.
        """
        payload_bytes_max = self._limits.ltp.block_bytes_max - BUNDLE_HEADER_BYTES_MAX
        if len(payload) > payload_bytes_max:
            raise ConfigError(f"bundle payload: {len(payload)} bytes, expected at most {payload_bytes_max}")
        if not 0 <= padding_bytes <= (PADDING_BYTES_MAX if reliable else 0):
            raise ConfigError(f"bundle padding: {padding_bytes} bytes; expected 0 to {PADDING_BYTES_MAX}, reliable")
        if not 0 <= priority < PRIORITIES_COUNT:
            raise ConfigError(f"bundle priority: {priority}, expected 0 to {PRIORITIES_COUNT - 1}")
        created_ms = self._time.told(now_ns, utc_ns)
        sequence = next(self._numbers)
        self.counters.bundles_sourced_count += 1
        if destination_node == self.node:
            own = Delivery(service, self.node, payload, 0, lifetime_ms, True, confidential, source_service)
            self._arrivals.add_own(own)
        else:
            bundle = Bundle(
                Eid(destination_node, service),
                Eid(self.node, source_service),
                DTN_NONE,
                (created_ms, sequence),
                lifetime_ms,
                payload,
                age_ms=0,
                hop_count=(self._limits.hops_max, 0),
                blocks=PRIORITY_BLOCKS[priority] + padding_blocks(padding_bytes),
            )
            if self._security is not None:
                bundle = self._security.protect(bundle, confidential=confidential)
            elif confidential:
                raise ConfigError(f"a confidential message to node {destination_node}: this agent has no security")
            if watch is not None:
                self._watched[bundle.creation] = watch
                if len(self._watched) > WATCHED_MAX:
                    del self._watched[next(iter(self._watched))]
            queued = QueuedBundle(bundle, next(self._orders), priority, reliable, 0, now_ns, 0)
            self._forwarder.enqueue(queued, now_ns)
        return BundleId(self.node, source_service, created_ms, sequence)

    def queues(self) -> list[BundleQueue]:
        """Where bundles wait."""
        return self._forwarder.queues()

    def has_way(self, destination: int, now_ns: int, within_ns: int = 0) -> bool:
        """Whether a bundle for a node would leave within a time, over a neighbour that is not suspected to be dead.

        Args:
            destination: node number.
            now_ns: monotonic time [ns].
            within_ns: how long it may wait here for a contact [ns].
        """
        return self._forwarder.has_way(destination, now_ns, within_ns)

    def take_deliveries(self) -> list[Delivery]:
        """Bundles for services of this node since the last call, in order of arrival."""
        return self._inbox.take()

    # -- the wire

    def receive_frame(self, interface: int, coded: Frame, now_ns: int) -> None:
        """Take a coded frame that arrived on an interface. Noise is counted, never raised."""
        terminal = self._terminals.get(interface)
        if terminal is None:
            self.counters.frames_stray_count += 1
            return
        counters = terminal.counters
        try:
            payload, wrong_bytes = received(terminal.coding, coded)
            counters.frames_corrected_count += wrong_bytes > 0
            segment = decode_segment(payload)
        except SegmentError:
            counters.segments_rejected_count += 1
            return
        except WireError:
            counters.frames_rejected_count += 1
            return
        transit_ns = terminal.transit_ns(len(coded))
        originator, number = segment.session
        if (
            type(segment) is DataSegment
            and not segment.red
            and segment.end_of_block
            and segment.offset == 0
            and segment.client_service == CLIENT_SERVICE_BUNDLE
        ):
            # A whole green block in one segment: nothing to put together, nothing to answer, nothing to remember.
            counters.frames_accepted_count += 1
            self.counters.ltp.segments_received_count += 1
            self.counters.ltp.blocks_received_count += 1
            self._arrivals.receive(segment.data, originator, False, now_ns, transit_ns)
            return
        neighbour = self._neighbours.get(originator)
        if originator == self.node:
            neighbour = self._sessions.get(number, terminal.neighbour)
        if neighbour is None:
            counters.segments_rejected_count += 1
            return
        counters.frames_accepted_count += 1
        if neighbour.suspect_until_ns and isinstance(segment, ReportSegment | ReportAck):
            self._forwarder.trust(neighbour, now_ns)
        neighbour.span.receive(segment, now_ns)
        self._serve_span(neighbour, now_ns, transit_ns)

    def pump(self, now_ns: int) -> list[tuple[int, Frame]]:
        """Do what is due, and give the (interface, coded frame) pairs that the wire takes now."""
        forwarder = self._forwarder
        while (wake := self._wakes.pop_due(now_ns)) is not None:
            when_ns, cause, index = wake
            if cause is Cause.TRANSMIT:
                terminal = self._terminals[index]
                if terminal.wake_ns == when_ns:
                    terminal.wake_ns = None
                    forwarder.ready[index] = terminal
            elif cause is Cause.SPAN:
                neighbour = self._neighbours[index]
                if neighbour.scheduled_ns == when_ns:
                    neighbour.scheduled_ns = None
                    neighbour.span.tick(now_ns)
                    self._serve_span(neighbour, now_ns)
            elif cause is Cause.CONTACT:
                self._change_contact(self._terminals[index], now_ns)
            elif cause is Cause.SUSPICION:
                forwarder.suspicion_due(self._neighbours[index], now_ns)
            elif cause is Cause.RETURN:
                forwarder.reroute_waiting(now_ns)
            else:
                forwarder.sweep(when_ns, now_ns)
        frames: list[tuple[int, Frame]] = []
        while True:
            if self._arrivals.responses or self._reporter.pending:
                for response in (*self._arrivals.take_responses(), *self._reporter.take()):
                    self._respond(response, now_ns)
            if not forwarder.ready:
                return frames
            ready, forwarder.ready = forwarder.ready, {}
            for terminal in ready.values():
                self._transmit(terminal, now_ns, frames)

    def next_deadline_ns(self) -> int | None:
        """When `pump` has something to do even if nothing is sent or received before [ns]."""
        return self._wakes.first_ns()

    # -- sending

    def _transmit(self, terminal: Terminal, now_ns: int, frames: list[tuple[int, Frame]]) -> None:
        """Fill the transmitter up to its window, inside the contact."""
        contact, neighbour = terminal.contact, terminal.neighbour
        if contact is None or neighbour is None:
            return
        span, queue = neighbour.span, neighbour.queue
        busy_ns = max(terminal.busy_until_ns, now_ns)
        last_start_ns = contact.end_ns - terminal.frame_ns_max
        is_span_touched = False
        while busy_ns <= last_start_ns and (span.has_work or len(queue)):
            if busy_ns > now_ns + terminal.window_ns:
                terminal.wake_ns = busy_ns - terminal.window_ns // 2
                self._wakes.add(terminal.wake_ns, Cause.TRANSMIT, terminal.index)
                break
            segment = span.next_segment(busy_ns)
            if segment is not None:
                is_span_touched = True
            else:
                segment = self._next_bundle(terminal, neighbour, contact, busy_ns)
                if segment is None:
                    if span.has_work:
                        continue
                    break
            frame = terminal.frame(segment)
            busy_ns += int(len(frame) * terminal.ns_per_byte) + 1
            terminal.busy_until_ns = busy_ns
            terminal.counters.frames_sent_count += 1
            frames.append((terminal.index, frame))
        if is_span_touched:
            self._serve_span(neighbour, now_ns)

    def _next_bundle(self, terminal: Terminal, neighbour: Neighbour, contact: Contact, at_ns: int) -> bytes | None:
        """The next bundle of a neighbour: the only segment of a green block, or None when it was handed to LTP."""
        span = neighbour.span
        while (queued := terminal.next_bundle(at_ns)) is not None:
            if queued.deadline_ns <= at_ns:
                self._forwarder.expired(queued, at_ns)
                continue
            block = queued.encoded(at_ns, self.node)
            if not queued.reliable:
                if len(block) <= span.segment_bytes:
                    if queued.previous:
                        self._forwarder.went_on(queued, neighbour, at_ns)
                    return self._green_segment(block)
                segments_count = -(-len(block) // span.segment_bytes)
                if at_ns + segments_count * terminal.frame_ns_max > contact.end_ns:
                    # It would be cut off, and what is green is not continued: another contact may be long enough.
                    self._forwarder.hold(queued, at_ns)
                    continue
            if self._watched and not queued.previous:
                watch = self._watched.pop(queued.bundle.creation, None)
                if watch is not None:
                    self.departed.append(watch)
            number = span.send(block, queued.reliable, at_ns)
            neighbour.in_flight[number] = queued
            self._sessions[number] = neighbour
            return None
        return None

    def _green_segment(self, block: bytes) -> bytes:
        self.counters.ltp.segments_sent_count += 1
        self.counters.ltp.blocks_sent_count += 1
        session = (self.node, next(self._session_numbers))
        return encode_segment(DataSegment(session, False, False, False, True, CLIENT_SERVICE_BUNDLE, 0, block))

    # -- LTP

    def _serve_span(self, neighbour: Neighbour, now_ns: int, transit_ns: int = 0) -> None:
        """Take what a span has to say, and see to it that it is served again in time."""
        span = neighbour.span
        for event in span.take_events():
            if isinstance(event, BlockReceived):
                since_ns = now_ns - event.first_ns + transit_ns
                self._arrivals.receive(event.block, neighbour.node, event.red, now_ns, since_ns)
                continue
            self._sessions.pop(event.session, None)
            queued = neighbour.in_flight.pop(event.session)
            if isinstance(event, BlockSent):
                if queued.previous:
                    self._forwarder.went_on(queued, neighbour, now_ns)
                continue
            if event.reason == CancelReason.RLEXC and not event.by_peer:
                self._forwarder.suspect(neighbour, now_ns)
            else:
                queued.failures_count += 1
            self._forwarder.block_failed(queued, neighbour, now_ns)
        deadline_ns = span.next_deadline_ns()
        if deadline_ns is not None and (neighbour.scheduled_ns is None or deadline_ns < neighbour.scheduled_ns):
            neighbour.scheduled_ns = deadline_ns
            self._wakes.add(deadline_ns, Cause.SPAN, neighbour.node)
        if span.has_work or len(neighbour.queue):
            self._forwarder.make_ready(neighbour)

    # -- bundles

    def _forward(self, bundle: Bundle, previous: int, reliable: bool, age_ms: int, now_ns: int) -> None:
        """A bundle for another node came from a neighbour."""
        order, priority = next(self._orders), priority_of(bundle)
        queued = QueuedBundle(bundle, order, priority, reliable, previous, now_ns, age_ms)
        self._forwarder.forward(queued, bundle.source.node == self.node, now_ns)

    def _respond(self, response: Response, now_ns: int) -> None:
        """Make a bundle of an answer and let it wait for its way."""
        destination = response.destination
        self.counters.bundles_sourced_count += 1
        if destination.node == self.node:
            own = Delivery(destination.service, self.node, response.payload, 0, response.lifetime_ms, True)
            self._arrivals.add_own(own)
            return
        bundle = Bundle(
            destination,
            Eid(self.node, response.source_service),
            DTN_NONE,
            (self._time.dtn_ms(now_ns), next(self._numbers)),
            response.lifetime_ms,
            response.payload,
            response.flags,
            age_ms=0,
            hop_count=(self._limits.hops_max, 0),
            blocks=PRIORITY_BLOCKS[response.priority],
        )
        queued = QueuedBundle(bundle, next(self._orders), response.priority, response.reliable, 0, now_ns, 0)
        self._forwarder.enqueue(queued, now_ns)

    # -- contacts

    def _change_contact(self, terminal: Terminal, now_ns: int) -> None:
        """A contact of a terminal begins or ends."""
        contact = self._plan.at(self.node, terminal.index, now_ns)
        if contact is not terminal.contact:
            self._end_contact(terminal, now_ns)
            if contact is not None:
                self._begin_contact(terminal, contact, now_ns)
        if contact is not None:
            self._wakes.add(contact.end_ns, Cause.CONTACT, terminal.index)
        else:
            following = self._plan.next_on(self.node, terminal.index, now_ns)
            if following is not None:
                self._wakes.add(following.start_ns, Cause.CONTACT, terminal.index)

    def _begin_contact(self, terminal: Terminal, contact: Contact, now_ns: int) -> None:
        neighbour = self._neighbours[contact.target]
        terminal.open(contact, neighbour, self._limits.window_ns)
        neighbour.terminals.append(terminal)
        span = neighbour.span
        span.segment_bytes = min(one.config.segment_bytes for one in neighbour.terminals)
        span.resume(now_ns)
        for number, queued in list(neighbour.in_flight.items()):
            if queued.deadline_ns <= now_ns:
                # It was cut off by the end of the last contact and is worth nothing now: take it back from LTP, so that
                # the neighbour never completes it.
                span.cancel(number, now_ns)
                del neighbour.in_flight[number], self._sessions[number]
                self._forwarder.expired(queued, now_ns)
        self._serve_span(neighbour, now_ns)
        self._forwarder.contact_began(neighbour, now_ns)

    def _end_contact(self, terminal: Terminal, now_ns: int) -> None:
        neighbour = terminal.neighbour
        if neighbour is None:
            return
        terminal.close()
        neighbour.terminals.remove(terminal)
        if not neighbour.terminals:
            neighbour.span.suspend(now_ns)
            self._serve_span(neighbour, now_ns)
            self._forwarder.reroute(neighbour, now_ns)

    def _neighbour(self, contact: Contact) -> Neighbour:
        span = Span(self.node, contact.target, self._limits.ltp, self._session_numbers.__next__, self.counters.ltp)
        queue_bundles_max = self._terminals[contact.source_interface].config.queue_bundles_max
        return Neighbour(contact.target, span, BundleQueue(queue_bundles_max))
