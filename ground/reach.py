"""Which nodes the plan leads to at about this time: what silence is judged by."""

from typing import Final

from flightsw.net.contacts import ContactPlan
from flightsw.net.routing import arrivals

ROUTE_STALE_NS: Final = 60_000_000_000
"""How old a table of routes may be when silence is judged [ns]."""


class Reach:
    """A table of routes that is made anew when it is old.

    Args:
        plan: predicted contacts.
        node: where the routes begin.
    """

    def __init__(self, plan: ContactPlan, node: int) -> None:
        self._plan = plan
        self._node = node
        self._looked_ns: int | None = None
        self._reached: frozenset[int] = frozenset()

    def refresh(self, now_ns: int) -> None:
        """Look at the plan again when the last look is old."""
        if self._looked_ns is None or now_ns - self._looked_ns >= ROUTE_STALE_NS:
            self._looked_ns = now_ns
            routes = arrivals(self._plan, self._node, now_ns)
            self._reached = frozenset(
                node for node, route in routes.items() if route.arrival_ns - now_ns < ROUTE_STALE_NS
            )

    def has(self, node: int) -> bool:
        """Whether the plan has a way to the node at about this time; links are symmetrical, so also from it."""
        return node in self._reached
