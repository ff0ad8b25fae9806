"""Contact-graph routing: the neighbour over which a bundle arrives first, from the predicted contacts alone.

Dijkstra over arrival times: from a node that the bundle reaches at t, each chain of contacts with one neighbour offers
its earliest contact that still fits the bundle. Waiting never makes an arrival earlier, so the first time that a node
is settled is final. Ties go to fewer hops, then to the lower number of the node before. As in CCSDS 734.3-B
(schedule-aware bundle routing), but without volume bookkeeping: contacts are not booked (see `docs/protocol.md`).

What a route costs is known only as long as the contacts around it stay as they are, so each answer carries the instant
until which it holds, and `Router` remembers it until then.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final
from weakref import WeakKeyDictionary

from flightsw.net.contacts import Contact, ContactPlan

NEVER_NS: Final = 2**63 - 1
"""Later than any contact [ns]."""

ROUTE_HOLD_NS: Final = 1_000_000_000
"""A route is kept at least this long while its first contact lasts [ns]: in a large plan some contact begins every few
milliseconds, and none of them changes much."""

Excluded = frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a destination."""

    first_contact: Contact
    arrival_ns: int
    """When the last bit arrives, if nothing is lost and no queue is in the way [ns]."""
    hops: int
    until_ns: int
    """The route holds for bundles that leave before this instant [ns]."""


class _Chain:
    """Contacts of one (source, interface, target), by time; they do not overlap."""

    __slots__ = ("contacts", "ends_ns", "target")

    def __init__(self, target: int) -> None:
        self.target = target
        self.contacts: list[Contact] = []
        self.ends_ns: list[int] = []


class ContactGraph:
    """A contact plan, indexed for routing: expired contacts cost a bisection, not a scan."""

    def __init__(self, plan: ContactPlan) -> None:
        chains: dict[tuple[int, int, int], _Chain] = {}
        for contact in plan.contacts:
            key = (contact.source, contact.target, contact.source_interface)
            chain = chains.get(key)
            if chain is None:
                chain = chains[key] = _Chain(contact.target)
            chain.contacts.append(contact)
            chain.ends_ns.append(contact.end_ns)
        self._chains: dict[int, list[_Chain]] = {}
        self._direct: dict[tuple[int, int], list[_Chain]] = {}
        for key in sorted(chains):
            self._chains.setdefault(key[0], []).append(chains[key])
            self._direct.setdefault(key[:2], []).append(chains[key])

    def direct(self, source: int, target: int, now_ns: int, size_bytes: int) -> tuple[Contact, int] | None:
        """A contact with the target that is open and long enough, and until when it is [ns]."""
        for chain in self._direct.get((source, target), ()):
            index = bisect_right(chain.ends_ns, now_ns)
            if index < len(chain.contacts):
                contact = chain.contacts[index]
                until_ns = contact.end_ns - _duration_ns(contact, size_bytes * 8_000_000_000)
                if contact.start_ns <= now_ns < until_ns:
                    return contact, until_ns
        return None

    def search(
        self, source: int, now_ns: int, size_bytes: int, excluded: Excluded, destination: int | None
    ) -> dict[int, Route]:
        """Routes to all nodes that can be reached, or only to `destination` (faster)."""
        size_bits_ns = size_bytes * 8_000_000_000
        best: dict[int, tuple[int, int, int]] = {source: (now_ns, 0, -1)}
        inbound: dict[int, Contact] = {}
        settled: dict[int, None] = {}
        frontier = [(now_ns, 0, -1, source)]
        change_ns = NEVER_NS
        while frontier:
            arrival_ns, hops, before, node = heappop(frontier)
            if node in settled:
                continue
            assert best[node] == (arrival_ns, hops, before)
            settled[node] = None
            if node == destination:
                break
            for chain in self._chains.get(node, ()):
                target = chain.target
                if target in settled or (excluded and (node, target) in excluded):
                    continue
                found = _earliest(chain, arrival_ns, size_bits_ns)
                if found is None:
                    continue
                reached_ns, contact = found
                if arrival_ns < contact.start_ns < change_ns:
                    change_ns = contact.start_ns
                label = (reached_ns, hops + 1, node)
                known = best.get(target)
                if known is None or label < known:
                    best[target] = label
                    inbound[target] = contact
                    heappush(frontier, (*label, target))
        targets: Iterable[int] = settled if destination is None else (destination,)
        return {
            node: _route(source, node, now_ns, size_bits_ns, best, inbound, change_ns)
            for node in targets
            if node in settled and node != source
        }


def arrivals(
    plan: ContactPlan,
    source: int,
    now_ns: int,
    size_bytes: int = 0,
    excluded: Excluded = frozenset(),
    destination: int | None = None,
) -> dict[int, Route]:
    """Earliest arrivals from a node.

    Args:
        plan: predicted contacts.
        source: where the bundle is.
        now_ns: when it is there, monotonic [ns].
        size_bytes: length of the bundle on the line [bytes]; it must fit in a contact.
        excluded: (source, target) neighbours not to be used, for example a link that is suspected to be dead.
        destination: stop when this node is reached; all nodes when None.

    Returns:
        Routes by destination, without the source itself and without what cannot be reached.
    """
    return graph_of(plan).search(source, now_ns, size_bytes, excluded, destination)


_graphs: WeakKeyDictionary[ContactPlan, ContactGraph] = WeakKeyDictionary()


def graph_of(plan: ContactPlan) -> ContactGraph:
    """The index of a plan; nodes that share a plan in one process share its index."""
    graph = _graphs.get(plan)
    if graph is None:
        graph = _graphs[plan] = ContactGraph(plan)
    return graph


class Router:
    """Routes from one node, remembered for as long as they hold.

    A neighbour that is in contact now is reached directly, without a search: a relay could only be faster by less than
    a light time, and the ground has thousands of neighbours to search.

    Args:
        plan: predicted contacts.
        source: the node.
        size_bytes: length of bundle that routes are computed for [bytes].
    """

    def __init__(self, plan: ContactPlan, source: int, size_bytes: int) -> None:
        self._graph = graph_of(plan)
        self._source = source
        self._size_bytes = size_bytes
        self._excluded: Excluded = frozenset()
        self._routes: dict[tuple[int, int, tuple[int, ...]], tuple[Contact | None, int]] = {}

    def exclude(self, neighbours: Iterable[int]) -> None:
        """Avoid these neighbours from now on, where there is another way; all others are used again."""
        excluded = frozenset((self._source, neighbour) for neighbour in neighbours)
        if excluded != self._excluded:
            self._excluded = excluded
            self._routes.clear()

    def first_contact(
        self, destination: int, previous: int, now_ns: int, avoided: tuple[int, ...] = ()
    ) -> Contact | None:
        """The contact over which a bundle leaves, None when there is no route.

        Args:
            destination: where it goes.
            previous: the neighbour that it came from, 0 when it was made here. It is used only when there is no other
                way: that neighbour has sent it here because its own way was worse or dead.
            now_ns: now, monotonic [ns].
            avoided: neighbours that it came back from; they are no way at all.
        """
        key = (destination, previous, avoided)
        known = self._routes.get(key)
        if known is not None and now_ns < known[1]:
            return known[0]
        source, excluded = self._source, self._excluded
        # The last resort is a neighbour that is to be avoided: a bad way is better than none.
        never = frozenset((source, neighbour) for neighbour in avoided)
        for without in (excluded | never | {(source, previous)}, excluded | never, never):
            if (source, destination) not in without:
                direct = self._graph.direct(source, destination, now_ns, self._size_bytes)
                if direct is not None:
                    self._routes[key] = direct
                    return direct[0]
            route = self._search(destination, now_ns, without)
            if route is not None:
                contact = route.first_contact
                self._routes[key] = (contact, max(route.until_ns, min(contact.end_ns, now_ns + ROUTE_HOLD_NS)))
                return contact
        # Later there are only fewer contacts left: what cannot be reached now never can.
        self._routes[key] = (None, NEVER_NS)
        return None

    def _search(self, destination: int, now_ns: int, excluded: Excluded) -> Route | None:
        return self._graph.search(self._source, now_ns, self._size_bytes, excluded, destination).get(destination)


def _earliest(chain: _Chain, ready_ns: int, size_bits_ns: int) -> tuple[int, Contact] | None:
    """(arrival, contact) of the earliest arrival over a chain; a later contact may be faster than an earlier one."""
    contacts = chain.contacts
    found: Contact | None = None
    reached_ns = NEVER_NS
    for index in range(bisect_right(chain.ends_ns, ready_ns), len(contacts)):
        contact = contacts[index]
        start_ns = contact.start_ns
        if start_ns >= reached_ns:
            break
        sent_ns = (start_ns if start_ns > ready_ns else ready_ns) + _duration_ns(contact, size_bits_ns)
        if sent_ns <= contact.end_ns and sent_ns + contact.light_time_ns < reached_ns:
            reached_ns = sent_ns + contact.light_time_ns
            found = contact
            if start_ns <= ready_ns and index + 1 < len(contacts) and contacts[index + 1].start_ns >= reached_ns:
                break
    return None if found is None else (reached_ns, found)


def _duration_ns(contact: Contact, size_bits_ns: int) -> int:
    """Time on the line [ns], rounded up."""
    return -int(-size_bits_ns // contact.rate_bps) if size_bits_ns else 0


def _route(
    source: int,
    node: int,
    now_ns: int,
    size_bits_ns: int,
    best: dict[int, tuple[int, int, int]],
    inbound: dict[int, Contact],
    change_ns: int,
) -> Route:
    """The route to a settled node, with the instant until which it holds.

    A route on which the bundle waits somewhere keeps its arrival, and stays the best, until the wait is used up. One
    without a wait gets later as time goes by; it stays the best until another contact begins among the nodes that were
    looked at, and possible until one of its own contacts is too short.
    """
    arrival_ns, hops, _ = best[node]
    contact = inbound[node]
    keeps_ns = arrival_ns  # latest arrival at `step` that does not change the end
    possible_ns = NEVER_NS  # latest arrival at `step` that makes the next contact
    step = node
    while step != source:
        contact = inbound[step]
        duration_ns = _duration_ns(contact, size_bits_ns)
        keeps_ns = min(keeps_ns - contact.light_time_ns, contact.end_ns) - duration_ns
        possible_ns = min(possible_ns - contact.light_time_ns, contact.end_ns) - duration_ns
        step = contact.source
    until_ns = keeps_ns if keeps_ns > now_ns else min(possible_ns, change_ns)
    return Route(contact, arrival_ns, hops, max(until_ns, now_ns + 1))
