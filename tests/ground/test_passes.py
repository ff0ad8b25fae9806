import pytest

from flightsw.net.contacts import Contact, ContactPlan
from ground.passes import Pass, contact_s, next_pass, passes, time_to_aos_s

S = 1_000_000_000


def contact(start_s, end_s, source, source_interface, target):
    return Contact(start_s * S, end_s * S, source, source_interface, target, 0, 1e6, 10**6)


PLAN = ContactPlan(
    [
        contact(100, 400, 1, 0, 2),
        contact(100, 400, 2, 0, 1),
        contact(300, 700, 1, 1, 3),
        contact(300, 700, 3, 0, 1),
        contact(6000, 6450, 1, 0, 2),
        contact(50, 9000, 2, 1, 3),
    ]
)


def test_passes_are_the_contacts_of_our_antennas_by_aos():
    assert passes(PLAN, 1, 0, 10_000 * S) == [
        Pass(2, 0, 100 * S, 400 * S),
        Pass(3, 1, 300 * S, 700 * S),
        Pass(2, 0, 6000 * S, 6450 * S),
    ]


@pytest.mark.parametrize(
    ("start_s", "end_s", "nodes"),
    [(0, 100, []), (0, 101, [2]), (399, 400, [2, 3]), (400, 401, [3]), (700, 6000, []), (350, 6001, [2, 3, 2])],
)
def test_a_pass_counts_when_it_overlaps_and_not_when_it_only_touches(start_s, end_s, nodes):
    assert [one.node for one in passes(PLAN, 1, start_s * S, end_s * S)] == nodes


@pytest.mark.parametrize(
    ("node", "now_s", "aos_s"), [(2, 0, 100), (2, 399, 100), (2, 400, 6000), (2, 6450, None), (3, 0, 300), (4, 0, None)]
)
def test_the_next_pass_is_the_one_under_way_or_the_one_to_come(node, now_s, aos_s):
    found = next_pass(PLAN, 1, node, now_s * S)
    assert (None if found is None else found.aos_ns // S) == aos_s


@pytest.mark.parametrize(
    ("now_s", "seconds"), [(0, 100.0), (99, 1.0), (100, 0.0), (250, 0.0), (400, 5600.0), (6450, None)]
)
def test_time_to_aos_is_0_in_contact_and_none_without_a_pass(now_s, seconds):
    assert time_to_aos_s(PLAN, 1, 2, now_s * S) == seconds


def test_contact_time_is_summed_for_each_satellite_by_number():
    assert list(contact_s(PLAN, 1).items()) == [(2, 750.0), (3, 400.0)]
    assert contact_s(PLAN, 9) == {}


def test_a_pass_knows_its_length():
    assert passes(PLAN, 1, 0, 200 * S)[0].duration_s == 300.0
