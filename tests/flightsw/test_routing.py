"""Contact-graph routing: earliest arrival, deterministic ties, exclusions, and how long a route holds."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.routing import Route, Router, arrivals

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


def contact(
    start_s: float,
    end_s: float,
    source: int,
    target: int,
    *,
    rate_bps: float = 1e6,
    light_ms: int = 5,
    interface: int = 0,
) -> Contact:
    return Contact(
        int(start_s * SECOND_NS),
        int(end_s * SECOND_NS),
        source,
        interface or target,
        target,
        source,
        rate_bps,
        light_ms * MS_NS,
    )


def ring(nodes: list[int], end_s: float = 10_000) -> list[Contact]:
    """Links both ways between neighbours, always up."""
    pairs = list(zip(nodes, nodes[1:] + nodes[:1], strict=True))
    return [contact(0, end_s, a, b) for a, b in pairs] + [contact(0, end_s, b, a) for a, b in pairs]


def reference(contacts: list[Contact], source: int, now_ns: int, size_bytes: int) -> dict[int, int]:
    """Earliest arrivals by relaxing all contacts until nothing changes."""
    best = {source: now_ns}
    changed = True
    while changed:
        changed = False
        for one in contacts:
            if one.source not in best:
                continue
            ready_ns = max(best[one.source], one.start_ns)
            sent_ns = ready_ns - int(-size_bytes * 8_000_000_000 // one.rate_bps)
            if ready_ns < one.end_ns and sent_ns <= one.end_ns:
                arrival_ns = sent_ns + one.light_time_ns
                if arrival_ns < best.get(one.target, 2**63):
                    best[one.target] = arrival_ns
                    changed = True
    del best[source]
    return best


def test_a_bundle_waits_for_the_contact_and_takes_time_on_the_line_and_on_the_way() -> None:
    plan = ContactPlan([contact(10, 20, 1, 2, rate_bps=8000)])
    route = arrivals(plan, 1, 0, size_bytes=1000)[2]
    assert route.arrival_ns == 11 * SECOND_NS + 5 * MS_NS
    assert route.hops == 1


def test_a_bundle_that_does_not_fit_the_contact_takes_the_next() -> None:
    short, long = contact(10, 10.5, 1, 2, rate_bps=8000), contact(20, 30, 1, 2, rate_bps=8000)
    plan = ContactPlan([short, long])
    assert arrivals(plan, 1, 0, size_bytes=1000)[2].first_contact == long
    assert arrivals(plan, 1, 0, size_bytes=100)[2].first_contact == short


def test_a_later_contact_over_the_same_terminal_may_arrive_earlier() -> None:
    far, near = contact(0, 1, 1, 2, light_ms=10_000), contact(2, 3, 1, 2, light_ms=1)
    assert arrivals(ContactPlan([far, near]), 1, 0)[2].first_contact == near


def test_a_route_that_waits_holds_until_the_wait_is_used_up() -> None:
    plan = ContactPlan([contact(0, 100, 1, 2, light_ms=1000), contact(50, 100, 2, 9), contact(20, 30, 1, 3)])
    assert arrivals(plan, 1, 0)[9].until_ns == 49 * SECOND_NS


def test_a_route_without_a_wait_holds_until_another_contact_begins() -> None:
    plan = ContactPlan([contact(0, 100, 1, 2), contact(0, 100, 2, 9), contact(50, 100, 1, 9, interface=7)])
    route = arrivals(plan, 1, 0)[9]
    assert route.until_ns == 50 * SECOND_NS
    assert arrivals(plan, 1, route.until_ns)[9].hops == 1


def test_a_route_holds_no_longer_than_its_shortest_contact() -> None:
    plan = ContactPlan([contact(0, 100, 1, 2, light_ms=1000), contact(0, 40, 2, 9)])
    assert arrivals(plan, 1, 0)[9].until_ns == 39 * SECOND_NS


def test_what_cannot_be_reached_has_no_route() -> None:
    plan = ContactPlan([contact(0, 10, 1, 2), contact(20, 30, 3, 2)])
    assert list(arrivals(plan, 1, 0)) == [2]
    assert arrivals(plan, 1, 10 * SECOND_NS) == {}, "the contact is over at its end"


def test_a_relay_with_an_earlier_contact_wins_over_a_late_direct_one() -> None:
    plan = ContactPlan([contact(0, 100, 1, 2), contact(50, 100, 2, 9), contact(80, 100, 1, 9, interface=7)])
    route = arrivals(plan, 1, 0)[9]
    assert route.first_contact.target == 2
    assert route.hops == 2
    assert route.arrival_ns == 50 * SECOND_NS + 5 * MS_NS


def test_equal_arrivals_go_to_fewer_hops_then_to_the_lower_node() -> None:
    late = [contact(50, 100, relay, 9) for relay in (3, 2, 4)]
    plan = ContactPlan([contact(0, 100, 1, 3), contact(0, 100, 1, 2), contact(0, 100, 2, 4), *late])
    assert arrivals(plan, 1, 0)[9].first_contact.target == 2
    assert arrivals(plan, 1, 0)[9].hops == 2
    without_two = arrivals(plan, 1, 0, excluded=frozenset({(1, 2)}))[9]
    assert without_two.first_contact.target == 3


def test_an_excluded_neighbour_is_routed_around() -> None:
    plan = ContactPlan(ring([1, 2, 3, 4]))
    assert arrivals(plan, 1, 0)[2].hops == 1
    around = arrivals(plan, 1, 0, excluded=frozenset({(1, 2)}))[2]
    assert around.hops == 3
    assert around.first_contact.target == 4


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),
            st.integers(1, 5),
            st.integers(0, 50),
            st.integers(1, 30),
            st.integers(1, 4),
            st.integers(0, 9),
        ),
        max_size=25,
    ),
    st.integers(0, 60),
    st.integers(0, 2000),
)
def test_arrivals_agree_with_exhaustive_relaxation(
    draws: list[tuple[int, int, int, int, int, int]], now_s: int, size_bytes: int
) -> None:
    contacts = []
    for index, (source, target, start_s, length_s, rate, light_s) in enumerate(draws):
        if source != target:
            # Each contact has an interface of its own, so that none of one interface overlap.
            contacts.append(
                contact(
                    start_s,
                    start_s + length_s,
                    source,
                    target,
                    rate_bps=1000.0 * rate,
                    light_ms=light_s * 1000,
                    interface=index + 1,
                )
            )
    now_ns = now_s * SECOND_NS
    found = arrivals(ContactPlan(contacts), 1, now_ns, size_bytes)
    assert {node: route.arrival_ns for node, route in found.items()} == reference(contacts, 1, now_ns, size_bytes)
    for node in found:
        only = arrivals(ContactPlan(contacts), 1, now_ns, size_bytes, destination=node)[node]
        # A search that stops early looks at less, so that its route may hold longer.
        assert dataclasses.replace(only, until_ns=found[node].until_ns) == found[node]
        assert only.until_ns >= found[node].until_ns


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 50), st.integers(2, 30)), max_size=16),
    st.integers(0, 40),
    st.floats(0, 1, exclude_max=True),
)
def test_a_route_stays_the_best_until_it_says(draws: list[tuple[int, int, int, int]], now_s: int, share: float) -> None:
    contacts = [
        contact(start_s, start_s + length_s, source, target, interface=index + 1)
        for index, (source, target, start_s, length_s) in enumerate(draws)
        if source != target
    ]
    plan = ContactPlan(contacts)
    now_ns = now_s * SECOND_NS
    for node, route in arrivals(plan, 1, now_ns, 100).items():
        later_ns = now_ns + int((min(route.until_ns, 100 * SECOND_NS) - now_ns) * share)
        later = arrivals(plan, 1, later_ns, 100)[node]
        # What remains of the light times near the change is not worth a search (see `ContactGraph.search`).
        tolerance_ns = 4 * (5 * MS_NS + 800_000)
        via = _arrival_over(contacts, route, node, later_ns)
        assert via - later.arrival_ns <= tolerance_ns


def _arrival_over(contacts: list[Contact], route: Route, node: int, now_ns: int) -> int:
    """Arrival when the bundle must leave over the first contact of the route."""
    first = route.first_contact
    sent_ns = max(now_ns, first.start_ns) + 800_000
    assert sent_ns <= first.end_ns
    arrival_ns = sent_ns + first.light_time_ns
    if first.target == node:
        return arrival_ns
    return reference(contacts, first.target, arrival_ns, 100)[node]


def test_the_router_keeps_a_neighbour_in_contact_until_the_contact_ends() -> None:
    plan = ContactPlan([contact(0, 100, 1, 2), contact(100, 200, 1, 2)])
    router = Router(plan, 1, 1000)
    first = router.first_contact(2, 0, 0)
    assert first is plan.contacts[0]
    assert router.first_contact(2, 0, 99 * SECOND_NS) is first
    assert router.first_contact(2, 0, 100 * SECOND_NS) is plan.contacts[1]
    assert router.first_contact(2, 0, 200 * SECOND_NS) is None


def test_the_router_leaves_a_suspect_neighbour_out_until_it_is_trusted_again() -> None:
    router = Router(ContactPlan(ring([1, 2, 3])), 1, 1000)
    direct = router.first_contact(2, 0, 0)
    router.exclude([2])
    around = router.first_contact(2, 0, 0)
    router.exclude([])
    again = router.first_contact(2, 0, 0)
    assert direct is not None
    assert around is not None
    assert (direct.target, around.target) == (2, 3)
    assert again is direct


def test_a_bundle_does_not_go_back_where_it_came_from_unless_there_is_no_other_way() -> None:
    router = Router(ContactPlan(ring([1, 2, 3, 4, 5])), 1, 1000)
    onward = router.first_contact(3, 2, 0)
    assert onward is not None
    assert onward.target == 5
    router.exclude([5])
    back = router.first_contact(3, 2, 0)
    assert back is not None
    assert back.target == 2


def test_a_neighbour_to_be_avoided_is_the_last_resort() -> None:
    router = Router(ContactPlan([contact(0, 100, 1, 2)]), 1, 1000)
    router.exclude([2])
    resort = router.first_contact(2, 0, 0)
    assert resort is not None
    assert resort.target == 2


def test_a_ring_changes_its_route_to_the_ground_only_when_a_ground_contact_begins_or_ends() -> None:
    ground = 1
    nodes = [2, 3, 4, 5, 6]
    passes = [contact(100 * index, 100 * index + 90, node, ground) for index, node in enumerate(nodes)]
    router = Router(ContactPlan([*ring(nodes), *passes]), 2, 1000)
    targets = [c.target for t in range(0, 490, 10) if (c := router.first_contact(ground, 0, t * SECOND_NS))]
    changes = [index for index in range(1, len(targets)) if targets[index] != targets[index - 1]]
    assert targets[0] == ground
    assert len(targets) == 49
    assert all(10 * index % 100 in (0, 90) for index in changes), changes
