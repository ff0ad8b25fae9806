"""Bundles that have arrived at their destination: which are taken, which came before, and who they are for."""

from collections import deque
from typing import Final

from flightsw.net.agent_values import AgentCounters, BundleId, Delivery
from flightsw.wire.bundles import BlockFlags, Bundle, BundleFlags

_REFUSED_FLAGS: Final = int(BundleFlags.FRAGMENT | BundleFlags.ADMINISTRATIVE_RECORD)
"""Of bundles for this node that are not taken: we neither put fragments together nor ask for status reports."""
_DELETE_BUNDLE: Final = int(BlockFlags.DELETE_BUNDLE_IF_UNPROCESSED)
_DISCARD_BLOCK: Final = int(BlockFlags.DISCARD_BLOCK_IF_UNPROCESSED)


def admit(bundle: Bundle, *, is_here: bool) -> bool:
    """Whether a bundle may be delivered or sent on.

    Obeys the flags of blocks that this node cannot process (RFC 9171 §5.6, step 4): one that asks for it is left out,
    and one that asks for it has the bundle refused.

    Args:
        bundle: just decoded; nobody else holds it yet.
        is_here: it is for this node.
    """
    for block in bundle.blocks:
        if block.flags & _DELETE_BUNDLE:
            return False
        if block.flags & _DISCARD_BLOCK:
            # In place, because a copy would lose the primary block's own bytes.
            bundle.blocks = tuple(one for one in bundle.blocks if not one.flags & _DISCARD_BLOCK)
    return not (is_here and bundle.flags & _REFUSED_FLAGS)


class Inbox:
    """Deliveries that wait to be taken, and a bounded memory of what was delivered.

    Args:
        seen_bundles_max: how many delivered bundles are remembered; the oldest is forgotten first.
        counters: of the agent.
    """

    def __init__(self, seen_bundles_max: int, counters: AgentCounters) -> None:
        self._seen_bundles_max = seen_bundles_max
        self._counters = counters
        self._seen: set[BundleId] = set()  # asked only whether a bundle is in it, never iterated
        self._seen_order: deque[BundleId] = deque()
        self._deliveries: list[Delivery] = []

    def deliver(self, bundle: Bundle, age_ms: int) -> None:
        """Take a bundle for this node, unless it came before: a block whose last report was lost is sent again."""
        source = bundle.source
        bundle_id = BundleId(source.node, source.service, *bundle.creation)
        if bundle_id in self._seen:
            self._counters.bundles_duplicate_count += 1
            return
        if len(self._seen) >= self._seen_bundles_max:
            self._seen.remove(self._seen_order.popleft())
        self._seen.add(bundle_id)
        self._seen_order.append(bundle_id)
        self.add(Delivery(bundle.destination.service, source.node, bundle.payload, age_ms, bundle.lifetime_ms))

    def add(self, delivery: Delivery) -> None:
        """Take a delivery that needs no memory."""
        self._counters.bundles_delivered_count += 1
        self._deliveries.append(delivery)

    def take(self) -> list[Delivery]:
        """Deliveries since the last call, in order of arrival."""
        deliveries = self._deliveries
        if deliveries:
            self._deliveries = []
        return deliveries
