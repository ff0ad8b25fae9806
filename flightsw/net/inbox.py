"""Bundles that have arrived at their destination: which are taken, which came before, and who they are for."""

from collections import deque
from typing import Final

from flightsw.net.agent_values import AgentCounters, BundleId, Delivery
from flightsw.net.reports import StatusReporter
from flightsw.net.security import BundleSecurity
from flightsw.wire.bundles import BlockFlags, Bundle

_DELETE_BUNDLE: Final = int(BlockFlags.DELETE_BUNDLE_IF_UNPROCESSED)
_DISCARD_BLOCK: Final = int(BlockFlags.DISCARD_BLOCK_IF_UNPROCESSED)


def admit(bundle: Bundle, reporter: StatusReporter, now_ns: int) -> bool:
    """Whether a bundle may be delivered or sent on.

    Obeys the flags of blocks that this node cannot process (RFC 9171 §5.6, step 4): one that asks for it is reported,
    or left out, or has the bundle refused.

    Args:
        bundle: just decoded; nobody else holds it yet.
        reporter: of this node.
        now_ns: monotonic time [ns].
    """
    for block in bundle.blocks:
        reporter.unsupported(bundle, block.flags, now_ns)
        if block.flags & _DELETE_BUNDLE:
            return False
        if block.flags & _DISCARD_BLOCK:
            # In place, because a copy would lose the primary block's own bytes.
            bundle.blocks = tuple(one for one in bundle.blocks if not one.flags & _DISCARD_BLOCK)
    return True


class Inbox:
    """Deliveries that wait to be taken, and a bounded memory of what was delivered.

    Args:
        seen_bundles_max: how many delivered bundles are remembered; the oldest is forgotten first.
        counters: of the agent.
        security: judges each bundle before it is delivered; without it all are, and none is authenticated.
    """

    def __init__(self, seen_bundles_max: int, counters: AgentCounters, security: BundleSecurity | None = None) -> None:
        self._seen_bundles_max = seen_bundles_max
        self._counters = counters
        self._security = security
        self._seen: set[BundleId] = set()  # asked only whether a bundle is in it, never iterated
        self._seen_order: deque[BundleId] = deque()
        self._deliveries: list[Delivery] = []

    def knows(self, bundle: Bundle) -> bool:
        """Whether a bundle was taken before; of a fragment, its whole."""
        return BundleId(bundle.source.node, bundle.source.service, *bundle.creation) in self._seen

    def judged(self, bundle: Bundle, age_ms: int, now_ns: int) -> Delivery | None:
        """The delivery that a bundle for this node makes; None when security refuses it, or when it came before.

        A block whose last report was lost is sent again.
        """
        source = bundle.source
        bundle_id = BundleId(source.node, source.service, *bundle.creation)
        if bundle_id in self._seen:
            self._counters.bundles_duplicate_count += 1
            return None
        payload, authenticated, confidential = bundle.payload, False, False
        if self._security is not None:
            # Before it is remembered: a forged bundle must not keep out the true one that it imitates.
            refusal, authenticated, confidential, payload = self._security.accept(bundle, now_ns)
            if refusal is not None:
                return None
        if len(self._seen) >= self._seen_bundles_max:
            self._seen.remove(self._seen_order.popleft())
        self._seen.add(bundle_id)
        self._seen_order.append(bundle_id)
        service, lifetime_ms = bundle.destination.service, bundle.lifetime_ms
        return Delivery(service, source.node, payload, age_ms, lifetime_ms, authenticated, confidential, source.service)

    def add(self, delivery: Delivery) -> None:
        """Let a delivery wait until it is taken."""
        self._counters.bundles_delivered_count += 1
        self._deliveries.append(delivery)

    def take(self) -> list[Delivery]:
        """Deliveries since the last call, in order of arrival."""
        deliveries = self._deliveries
        if deliveries:
            self._deliveries = []
        return deliveries
