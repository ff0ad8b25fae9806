"""Bundles that wait on this node: what only this node knows of them, and bounded queues by priority."""

from collections import OrderedDict
from typing import Final

from flightsw.net.agent_values import PRIORITIES_COUNT, PRIORITY_DEFAULT
from flightsw.wire.bundles import CRC_NONE, Bundle, CanonicalBlock, departing, forwarded
from flightsw.wire.eids import Eid

NS_PER_MS: Final = 1_000_000

BLOCK_PRIORITY: Final = 192
"""Our extension block: the priority as one CBOR unsigned integer below 24. 192 to 255 are for private use, RFC 9171
§9.1. A bundle of the default priority goes without."""

PRIORITY_BLOCKS: Final[tuple[tuple[CanonicalBlock, ...], ...]] = tuple(
    () if priority == PRIORITY_DEFAULT else (CanonicalBlock(BLOCK_PRIORITY, 5, 1, CRC_NONE, bytes((priority,))),)
    for priority in range(PRIORITIES_COUNT)
)
"""Extension blocks of a bundle made here, by priority. Number 5 follows previous node, age and hop count."""


def priority_of(bundle: Bundle) -> int:
    """The priority that a bundle says, the default when it says none or nonsense."""
    for block in bundle.blocks:
        if block.type == BLOCK_PRIORITY and len(block.data) == 1 and block.data[0] < PRIORITIES_COUNT:
            return block.data[0]
    return PRIORITY_DEFAULT


class QueuedBundle:
    """A bundle on this node.

    Args:
        bundle: what came, or what a service of this node made.
        order: rises with each bundle of this node: first in, first out within a priority.
        priority: 0 (urgent) to 7.
        reliable: red LTP blocks, or green ones.
        previous: the neighbour that it came from, 0 when it was made here.
        arrived_ns: since when its age counts here, monotonic [ns].
        age_ms: its age then [ms].
    """

    __slots__ = (
        "age_ms",
        "arrived_ns",
        "avoid_until_ns",
        "avoided",
        "bundle",
        "deadline_ns",
        "failures_count",
        "order",
        "previous",
        "priority",
        "reliable",
    )

    def __init__(
        self, bundle: Bundle, order: int, priority: int, reliable: bool, previous: int, arrived_ns: int, age_ms: int
    ) -> None:
        self.bundle = bundle
        self.order = order
        self.priority = priority
        self.reliable = reliable
        self.previous = previous
        self.arrived_ns = arrived_ns
        self.age_ms = age_ms
        self.deadline_ns = arrived_ns + (bundle.lifetime_ms - age_ms) * NS_PER_MS
        """When its lifetime ends, by age, monotonic [ns]."""
        self.avoided: tuple[int, ...] = ()
        """Neighbours that it came back from, rising."""
        self.avoid_until_ns = 0
        """They are avoided until then, monotonic [ns]."""
        self.failures_count = 0
        """Times that a neighbour refused it, or contact ended amid a green block; silence does not count."""

    def encoded(self, at_ns: int, node: int) -> bytes:
        """The bundle as it leaves the node, with the age that it has then, rounded up."""
        age_ms = self.age_ms - (self.arrived_ns - at_ns) // NS_PER_MS
        if self.previous:
            return forwarded(self.bundle, Eid(node, 0), age_ms)
        return departing(self.bundle, age_ms)


class BundleQueue:
    """First in, first out within a priority; the urgent first.

    Args:
        bundles_max: when this many wait, the oldest of the least urgent gives way, or the new one if it is less urgent.
    """

    __slots__ = ("_count", "_green_count", "_levels", "bundles_max", "displaced_count", "pushed_count", "taken_count")

    def __init__(self, bundles_max: int) -> None:
        self.bundles_max = bundles_max
        self.pushed_count = 0
        self.taken_count = 0
        """Left to be sent, re-routed, or because they expired."""
        self.displaced_count = 0
        """Turned away, or given way to a more urgent one. Always pushed == taken + displaced + held."""
        self._levels: tuple[OrderedDict[int, QueuedBundle], ...] = tuple(OrderedDict() for _ in range(PRIORITIES_COUNT))
        self._count = 0
        self._green_count = 0
        """Bundles among them that go in green blocks."""

    def __len__(self) -> int:
        return self._count

    def held_count(self) -> int:
        """Bundles that wait, counted one by one."""
        return sum(len(level) for level in self._levels)

    def push(self, queued: QueuedBundle) -> QueuedBundle | None:
        """Let a bundle wait; returns the bundle that gives way for it, if one must."""
        evicted = None
        self.pushed_count += 1
        if self._count >= self.bundles_max:
            self.displaced_count += 1
            for priority in range(PRIORITIES_COUNT - 1, queued.priority - 1, -1):
                if self._levels[priority]:
                    _, evicted = self._levels[priority].popitem(last=False)
                    self._green_count -= not evicted.reliable
                    break
            else:
                return queued
            self._count -= 1
        self._levels[queued.priority][queued.order] = queued
        self._count += 1
        self._green_count += not queued.reliable
        return evicted

    def pop(self) -> QueuedBundle | None:
        """The most urgent, None when nobody waits."""
        if self._count:
            for level in self._levels:
                if level:
                    queued = level.popitem(last=False)[1]
                    self._count -= 1
                    self._green_count -= not queued.reliable
                    self.taken_count += 1
                    return queued
        return None

    def put_back(self, queued: QueuedBundle) -> None:
        """Undo the `pop` that gave this bundle: it is the first of its priority again."""
        level = self._levels[queued.priority]
        level[queued.order] = queued
        level.move_to_end(queued.order, last=False)
        self._count += 1
        self._green_count += not queued.reliable
        self.taken_count -= 1

    def pop_green(self) -> QueuedBundle | None:
        """The most urgent of those that go in green blocks, None when there is none; looks past all others."""
        if self._green_count:
            for level in self._levels:
                for queued in level.values():
                    if not queued.reliable:
                        del level[queued.order]
                        self._count -= 1
                        self._green_count -= 1
                        self.taken_count += 1
                        return queued
        return None

    def take_all(self) -> list[QueuedBundle]:
        """All, the most urgent first; the queue is empty afterwards."""
        taken = [queued for level in self._levels for queued in level.values()]
        for level in self._levels:
            level.clear()
        self._count = self._green_count = 0
        self.taken_count += len(taken)
        return taken

    def take_expired(self, now_ns: int) -> list[QueuedBundle]:
        """Those whose lifetime is over."""
        expired = [queued for level in self._levels for queued in level.values() if queued.deadline_ns <= now_ns]
        for queued in expired:
            del self._levels[queued.priority][queued.order]
            self._green_count -= not queued.reliable
        self._count -= len(expired)
        self.taken_count += len(expired)
        return expired

    def first_deadline_ns(self) -> int | None:
        """When the first lifetime ends [ns]; looks at all."""
        return min((queued.deadline_ns for level in self._levels for queued in level.values()), default=None)
