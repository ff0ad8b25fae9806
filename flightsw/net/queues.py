"""Bundles that wait: bounded queues by priority."""

from collections import OrderedDict

from flightsw.net.agent_values import PRIORITIES_COUNT
from flightsw.wire.bundles import Bundle


class QueuedBundle:
    """A bundle on this node, with what only this node knows of it."""

    __slots__ = ("arrived_ns", "bundle", "deadline_ns", "failures_count", "order", "previous", "priority", "reliable")

    def __init__(
        self,
        bundle: Bundle,
        order: int,
        *,
        priority: int,
        reliable: bool,
        previous: int,
        arrived_ns: int,
        deadline_ns: int,
    ) -> None:
        self.bundle = bundle
        self.order = order
        """Rises with each bundle of this node: first in, first out within a priority."""
        self.priority = priority
        self.reliable = reliable
        self.previous = previous
        """The neighbour that it came from, 0 when it was made here."""
        self.arrived_ns = arrived_ns
        self.deadline_ns = deadline_ns
        """When its lifetime ends, by age, in monotonic time [ns]."""
        self.failures_count = 0


class BundleQueue:
    """First in, first out within a priority; the urgent first.

    Args:
        bundles_max: when this many wait, the oldest of the least urgent gives way, or the new one if it is the least urgent.
    """

    __slots__ = ("_bundles_max", "_count", "_levels")

    def __init__(self, bundles_max: int) -> None:
        self._bundles_max = bundles_max
        self._levels: tuple[OrderedDict[int, QueuedBundle], ...] = tuple(OrderedDict() for _ in range(PRIORITIES_COUNT))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, queued: QueuedBundle) -> QueuedBundle | None:
        """Let a bundle wait; returns the bundle that gives way for it, if one must."""
        evicted = None
        if self._count >= self._bundles_max:
            for priority in range(PRIORITIES_COUNT - 1, queued.priority - 1, -1):
                if self._levels[priority]:
                    _, evicted = self._levels[priority].popitem(last=False)
                    break
            else:
                return queued
            self._count -= 1
        self._levels[queued.priority][queued.order] = queued
        self._count += 1
        return evicted

    def push_front(self, queued: QueuedBundle) -> None:
        """Put a bundle back that was just popped."""
        level = self._levels[queued.priority]
        level[queued.order] = queued
        level.move_to_end(queued.order, last=False)
        self._count += 1

    def pop(self) -> QueuedBundle | None:
        """The most urgent, None when nobody waits."""
        if self._count:
            for level in self._levels:
                if level:
                    self._count -= 1
                    return level.popitem(last=False)[1]
        return None

    def take_all(self) -> list[QueuedBundle]:
        """All, the most urgent first; the queue is empty afterwards."""
        taken = [queued for level in self._levels for queued in level.values()]
        for level in self._levels:
            level.clear()
        self._count = 0
        return taken

    def take_expired(self, now_ns: int) -> list[QueuedBundle]:
        """Those whose lifetime is over."""
        expired = [queued for level in self._levels for queued in level.values() if queued.deadline_ns <= now_ns]
        for queued in expired:
            del self._levels[queued.priority][queued.order]
        self._count -= len(expired)
        return expired

    def first_deadline_ns(self) -> int | None:
        """When the first lifetime ends [ns]; looks at all."""
        return min((queued.deadline_ns for level in self._levels for queued in level.values()), default=None)
