"""Where bundles wait, and for whom: routes, the queue of each neighbour, limbo, suspicion and expiry."""

from flightsw.net.agent_values import AgentCounters, AgentLimits
from flightsw.net.queues import BundleQueue, QueuedBundle
from flightsw.net.reports import StatusReporter
from flightsw.net.routing import NEVER_NS, Router
from flightsw.net.terminals import Neighbour, Terminal
from flightsw.net.trails import Trails
from flightsw.net.wakes import Cause, Wakes
from flightsw.wire.admin import Reason, Status


class Forwarder:
    """Puts each bundle where it is to wait, and looks again when contacts or neighbours change.

    Args:
        router: routes from this node.
        neighbours: by node number, rising.
        limits: bounds.
        counters: of the agent.
        wakes: of the agent.
        reporter: told of bundles that are given up.
    """

    def __init__(
        self,
        router: Router,
        neighbours: dict[int, Neighbour],
        limits: AgentLimits,
        counters: AgentCounters,
        wakes: Wakes,
        reporter: StatusReporter,
    ) -> None:
        self.ready: dict[int, Terminal] = {}
        """Terminals that may have something to send now, by interface."""
        self._router = router
        self._neighbours = neighbours
        self._limits = limits
        self._counters = counters
        self._wakes = wakes
        self._reporter = reporter
        self._trails = Trails(limits.trail_bundles_max, limits.suspect_ns)
        self._limbo = BundleQueue(limits.limbo_bundles_max)
        self._waiting: dict[int, Neighbour] = {}
        """Neighbours without contact for which bundles may wait."""
        self._suspects: dict[int, Neighbour] = {}
        self._sweep_ns = NEVER_NS

    def queues(self) -> list[BundleQueue]:
        """Where bundles may wait: limbo, then the queue of each neighbour."""
        return [self._limbo, *(neighbour.queue for neighbour in self._neighbours.values())]

    def forward(self, queued: QueuedBundle, is_own: bool, now_ns: int) -> None:
        """Take a bundle from a neighbour that is for another node; one that was here before goes another way.

        Args:
            queued: the bundle.
            is_own: it was made here.
            now_ns: monotonic time [ns].
        """
        avoided = self._trails.avoided(queued.bundle, now_ns)
        if is_own and not avoided:  # it left without a note, by the way that is still the best
            first = self._router.first_contact(queued.bundle.destination.node, 0, now_ns)
            avoided = () if first is None else (first.target,)
        if avoided:
            self._counters.bundles_returned_count += 1
            queued.avoided, queued.avoid_until_ns = avoided, now_ns + self._limits.suspect_ns
            self._wakes.add(queued.avoid_until_ns, Cause.RETURN, 0)
        self.enqueue(queued, now_ns)

    def went_on(self, queued: QueuedBundle, neighbour: Neighbour, now_ns: int) -> None:
        """The next node has a bundle of another node, or it was sent to it without asking."""
        self._counters.bundles_forwarded_count += 1
        self._trails.note(queued.bundle, neighbour.node, now_ns)
        self._reporter.note(queued.bundle, Status.FORWARDED, now_ns)

    def enqueue(self, queued: QueuedBundle, now_ns: int) -> Neighbour | None:
        """Let a bundle wait for the neighbour on its route, or in limbo when there is no route (None)."""
        avoided = queued.avoided if now_ns < queued.avoid_until_ns else ()
        contact = self._router.first_contact(queued.bundle.destination.node, queued.previous, now_ns, avoided)
        if contact is None:
            self.hold(queued, now_ns)
            return None
        neighbour = self._neighbours[contact.target]
        self._push(neighbour.queue, queued, now_ns)
        if neighbour.terminals:
            self.make_ready(neighbour)
        else:
            self._waiting[neighbour.node] = neighbour
        return neighbour

    def has_way(self, destination: int, now_ns: int, within_ns: int) -> bool:
        """Whether a bundle would leave for a node within a time, over a neighbour that answers."""
        contact = self._router.first_contact(destination, 0, now_ns)
        if contact is None or contact.start_ns > now_ns + within_ns:
            return False
        return not self._neighbours[contact.target].suspect_until_ns

    def hold(self, queued: QueuedBundle, now_ns: int) -> None:
        """Let a bundle wait until contacts or suspicions change."""
        self._push(self._limbo, queued, now_ns)

    def expired(self, queued: QueuedBundle, now_ns: int) -> None:
        """The lifetime of a bundle is over (RFC 9171 §5.5)."""
        self._counters.bundles_expired_count += 1
        self._reporter.deleted(queued.bundle, now_ns, Reason.LIFETIME_EXPIRED)

    def make_ready(self, neighbour: Neighbour) -> None:
        """There is something to send to a neighbour; transmitters that are full are woken anyway."""
        for terminal in neighbour.terminals:
            if terminal.wake_ns is None:
                self.ready[terminal.index] = terminal

    def contact_began(self, neighbour: Neighbour, now_ns: int) -> None:
        """A new contact may be a better way for what waits elsewhere."""
        self._waiting.pop(neighbour.node, None)
        if len(neighbour.queue):
            self.make_ready(neighbour)
        self.reroute_waiting(now_ns)

    def reroute(self, neighbour: Neighbour, now_ns: int) -> None:
        """Look for other ways for all that waits for a neighbour."""
        for queued in neighbour.queue.take_all():
            if self.enqueue(queued, now_ns) is not neighbour:
                self._counters.bundles_rerouted_count += 1

    def block_failed(self, queued: QueuedBundle, neighbour: Neighbour, now_ns: int) -> None:
        """LTP did not get a bundle to a neighbour: try again, there or elsewhere."""
        if queued.failures_count > self._limits.failures_max:
            self._counters.bundles_dropped_count += 1
            self._reporter.deleted(queued.bundle, now_ns, Reason.NO_TIMELY_CONTACT)
        elif self.enqueue(queued, now_ns) is not neighbour:
            self._counters.bundles_rerouted_count += 1

    def suspect(self, neighbour: Neighbour, now_ns: int) -> None:
        """Route around a neighbour that does not answer, for a while."""
        if neighbour.node in self._suspects:
            return
        self._counters.suspicions_count += 1
        neighbour.suspect_until_ns = now_ns + self._limits.suspect_ns
        self._wakes.add(neighbour.suspect_until_ns, Cause.SUSPICION, neighbour.node)
        self._suspects[neighbour.node] = neighbour
        self._router.exclude(self._suspects)
        self.reroute(neighbour, now_ns)

    def trust(self, neighbour: Neighbour, now_ns: int) -> None:
        """The suspicion is over: the neighbour has answered, or the time is up."""
        neighbour.suspect_until_ns = 0
        del self._suspects[neighbour.node]
        self._router.exclude(self._suspects)
        self.reroute_waiting(now_ns)

    def suspicion_due(self, neighbour: Neighbour, now_ns: int) -> None:
        """A wake-up that a suspicion asked for; a later suspicion may have taken its place."""
        if 0 < neighbour.suspect_until_ns <= now_ns:
            self.trust(neighbour, now_ns)

    def sweep(self, when_ns: int, now_ns: int) -> None:
        """Drop what has expired while it waited."""
        if when_ns != self._sweep_ns:
            return
        first_ns = NEVER_NS
        for queue in self.queues():
            if len(queue):
                for queued in queue.take_expired(now_ns):
                    self.expired(queued, now_ns)
                first_ns = min(first_ns, queue.first_deadline_ns() or NEVER_NS)
        self._sweep_ns = first_ns
        if first_ns < NEVER_NS:
            self._sweep_ns = max(first_ns, now_ns + self._limits.sweep_ns)
            self._wakes.add(self._sweep_ns, Cause.SWEEP, 0)

    def reroute_waiting(self, now_ns: int) -> None:
        """Look again for what has no route, or waits for a contact."""
        for queued in self._limbo.take_all():
            self.enqueue(queued, now_ns)
        waiting, self._waiting = self._waiting, {}
        for node in sorted(waiting):
            self.reroute(waiting[node], now_ns)

    def _push(self, queue: BundleQueue, queued: QueuedBundle, now_ns: int) -> None:
        displaced = queue.push(queued)
        if displaced is not None:
            self._counters.bundles_dropped_count += 1
            self._reporter.deleted(displaced.bundle, now_ns, Reason.DEPLETED_STORAGE)
        if queued.deadline_ns < self._sweep_ns:
            self._sweep_ns = queued.deadline_ns
            self._wakes.add(queued.deadline_ns, Cause.SWEEP, 0)
