"""What happens to a bundle that a neighbour has brought (RFC 9171 §5.6): for this node, for another, or for nobody.

Bundles for this node are put together from fragments, judged by security, and go to a service; the echo service answers
them here, and administrative records are read. Bundles for other nodes are handed on.
"""

from collections.abc import Callable
from typing import Final

from flightsw.errors import BundleError
from flightsw.net.agent_values import AgentCounters, Delivery
from flightsw.net.echo import ECHO_SERVICES, Echo
from flightsw.net.inbox import Inbox, admit
from flightsw.net.queues import NS_PER_MS
from flightsw.net.reassembly import Reassembler
from flightsw.net.reports import StatusReporter
from flightsw.net.responses import Response
from flightsw.wire.admin import Reason, Status, decode_status_report
from flightsw.wire.aggregates import split_bundles
from flightsw.wire.bundles import Bundle, BundleFlags, decode_bundle

_FRAGMENT: Final = int(BundleFlags.FRAGMENT)
_ADMINISTRATIVE: Final = int(BundleFlags.ADMINISTRATIVE_RECORD)

Forward = Callable[[Bundle, int, bool, int, int], None]
"""Called with (bundle, previous node, whether it came in red blocks, age [ms], now [ns]) for one that is to go on."""


class Arrivals:
    """Takes blocks from neighbours, and says what becomes of the bundles in them.

    Args:
        node: this node.
        inbox: where deliveries go.
        reporter: told of everything that a bundle may ask a report for.
        counters: of the agent.
        forward: takes what is for other nodes.
    """

    def __init__(
        self, node: int, inbox: Inbox, reporter: StatusReporter, counters: AgentCounters, forward: Forward
    ) -> None:
        self.responses: list[Response] = []
        """Echoes that wait to be sent."""
        self._node = node
        self._inbox = inbox
        self._reporter = reporter
        self._counters = counters
        self._forward = forward
        self._echo = Echo(counters)
        self._reassembler = Reassembler(counters)

    def receive(self, block: bytes, previous: int, reliable: bool, now_ns: int, transit_ns: int) -> None:
        """A block from a neighbour.

        Args:
            block: one bundle, or several that another implementation has put together.
            previous: the neighbour's node number.
            reliable: it came red.
            now_ns: monotonic time [ns].
            transit_ns: time on the way that the sender could not count [ns].
        """
        try:
            bundle = decode_bundle(block)
        except BundleError:
            self._receive_aggregate(block, previous, reliable, now_ns, transit_ns)
            return
        self._arrive(bundle, previous, reliable, now_ns, transit_ns)

    def add_own(self, delivery: Delivery) -> None:
        """A bundle of this node for itself; an echo comes back at once."""
        if delivery.service in ECHO_SERVICES:
            delivery = delivery._replace(service=delivery.source_service, source_service=delivery.service)
        self._inbox.add(delivery)

    def take_responses(self) -> list[Response]:
        """What is to be sent as an answer since the last call."""
        responses = self.responses
        if responses:
            self.responses = []
        return responses

    def _receive_aggregate(self, block: bytes, previous: int, reliable: bool, now_ns: int, transit_ns: int) -> None:
        try:
            parts = split_bundles(block)
        except BundleError:
            parts = [block]
        if len(parts) == 1:
            self._counters.bundles_rejected_count += 1
            return
        for part in parts:
            try:
                bundle = decode_bundle(part)
            except BundleError:
                self._counters.bundles_rejected_count += 1
            else:
                self._arrive(bundle, previous, reliable, now_ns, transit_ns)

    def _arrive(self, bundle: Bundle, previous: int, reliable: bool, now_ns: int, transit_ns: int) -> None:
        counters, reporter = self._counters, self._reporter
        # A bundle without an age block gets none, and lives its lifetime on each node anew: mission time rules nothing.
        age_ms = (bundle.age_ms or 0) - (-transit_ns // NS_PER_MS)
        if reporter.is_enabled:
            reporter.note(bundle, Status.RECEIVED, now_ns)
        if age_ms >= bundle.lifetime_ms:
            counters.bundles_expired_count += 1
            reporter.deleted(bundle, now_ns, Reason.LIFETIME_EXPIRED)
        elif bundle.blocks and not admit(bundle, reporter, now_ns):
            counters.bundles_rejected_count += 1
            reporter.deleted(bundle, now_ns, Reason.BLOCK_UNSUPPORTED)
        elif bundle.destination.node == self._node:
            self._take(bundle, age_ms, reliable, now_ns)
        elif bundle.hop_count is not None and bundle.hop_count[1] >= bundle.hop_count[0]:
            counters.bundles_dropped_count += 1
            reporter.deleted(bundle, now_ns, Reason.HOP_LIMIT_EXCEEDED)
        else:
            self._forward(bundle, previous, reliable, age_ms, now_ns)

    def _take(self, bundle: Bundle, age_ms: int, reliable: bool, now_ns: int) -> None:
        """A bundle for this node (RFC 9171 §5.7)."""
        if bundle.flags & _FRAGMENT:
            if self._inbox.knows(bundle):
                self._counters.bundles_duplicate_count += 1
                return
            whole = self._reassembler.add(bundle, age_ms, now_ns)
            if whole is None:
                return
            bundle, age_ms = whole
        delivery = self._inbox.judged(bundle, age_ms, now_ns)
        if delivery is None:
            return
        if bundle.flags & _ADMINISTRATIVE:
            self._take_record(delivery)
        elif delivery.service in ECHO_SERVICES:
            response = self._echo.answer(bundle, delivery, reliable=reliable, now_ns=now_ns)
            if response is not None:
                self.responses.append(response)
        else:
            self._inbox.add(delivery)
        self._reporter.note(bundle, Status.DELIVERED, now_ns)

    def _take_record(self, delivery: Delivery) -> None:
        """An administrative record for this node (RFC 9171 §6)."""
        try:
            report = decode_status_report(delivery.payload)
        except BundleError:
            self._counters.bundles_rejected_count += 1
            return
        self._counters.status_reports_received_count += 1
        self._inbox.add(delivery._replace(record=report))
