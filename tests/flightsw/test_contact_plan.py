"""The contact plan: half-open contacts, found by interface and instant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.net.contacts import Contact, ContactPlan


def contact(start_ns: int, end_ns: int, source: int = 1, interface: int = 0, target: int = 2) -> Contact:
    return Contact(start_ns, end_ns, source, interface, target, 0, 1e6, 5)


def test_a_contact_is_half_open() -> None:
    plan = ContactPlan([contact(10, 20)])
    assert plan.at(1, 0, 9) is None
    assert plan.at(1, 0, 10) == contact(10, 20)
    assert plan.at(1, 0, 19) == contact(10, 20)
    assert plan.at(1, 0, 20) is None


def test_back_to_back_contacts_hand_over_without_a_gap() -> None:
    plan = ContactPlan([contact(20, 30, target=3), contact(10, 20, target=2)])
    assert [found.target for at in (19, 20) if (found := plan.at(1, 0, at))] == [2, 3]


def test_contacts_of_other_nodes_and_interfaces_are_not_found() -> None:
    plan = ContactPlan([contact(10, 20)])
    assert plan.at(2, 0, 15) is None
    assert plan.at(1, 1, 15) is None
    assert plan.next_on(1, 1, 0) is None
    assert plan.from_node(2) == []


def test_the_next_contact_starts_after_the_instant() -> None:
    plan = ContactPlan([contact(30, 40), contact(10, 20)])
    assert plan.next_on(1, 0, 9) == contact(10, 20)
    assert plan.next_on(1, 0, 10) == contact(30, 40)
    assert plan.next_on(1, 0, 30) is None


def test_an_empty_contact_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="empty contact"):
        ContactPlan([contact(10, 10)])


@given(st.lists(st.integers(0, 40), unique=True, min_size=2, max_size=20), st.integers(0, 45))
def test_lookups_agree_with_a_scan(edges: list[int], now_ns: int) -> None:
    ordered = sorted(edges)
    contacts = [contact(start, end) for start, end in zip(ordered[::2], ordered[1::2], strict=False)]
    plan = ContactPlan(reversed(contacts))
    assert plan.at(1, 0, now_ns) == next((c for c in contacts if c.start_ns <= now_ns < c.end_ns), None)
    assert plan.next_on(1, 0, now_ns) == next((c for c in contacts if c.start_ns > now_ns), None)
    assert plan.from_node(1) == contacts
