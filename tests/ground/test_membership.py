import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.wire.messages import Beacon, Mode
from ground.membership import OVERDUE_BEACONS, SILENT_BEACONS, DictionaryMismatch, Membership, NodeReset, Presence

S = 1_000_000_000
OURS, OTHER = b"ours" * 2, b"them" * 2
PERIOD_S = 10


def beacon(node=2, boot=1, uptime_s=100, mode=Mode.NOMINAL, dictionary=OURS):
    return Beacon(node, boot, uptime_s, 0, mode, 1, 900, 200, 500, 50, 0, 0, 0, 0, 0, 0, 0, 10**9, dictionary)


@pytest.fixture
def membership():
    one = Membership((2, 3), OURS, float(PERIOD_S))
    one.judge(0, lambda _: True)
    return one


def wait(membership, seconds, *, has_route=True, since_s=0):
    for at_s in range(since_s + 5, since_s + seconds + 1, 5):
        membership.judge(at_s * S, lambda _: has_route)


def test_a_node_that_was_never_heard_is_unknown_and_may_be_tried(membership):
    assert membership.presence(2) is Presence.UNKNOWN
    assert membership.is_usable(2)


def test_a_heard_node_is_alive(membership):
    assert membership.on_beacon(beacon(), 0) == []
    assert membership.presence(2) is Presence.ALIVE
    assert membership.presence(3) is Presence.UNKNOWN


@pytest.mark.parametrize(
    ("beacons", "presence"),
    [
        (OVERDUE_BEACONS - 1, Presence.ALIVE),
        (OVERDUE_BEACONS, Presence.OVERDUE),
        (SILENT_BEACONS - 1, Presence.OVERDUE),
        (SILENT_BEACONS, Presence.SILENT),
    ],
)
def test_silence_with_a_route_makes_a_node_overdue_and_then_silent(membership, beacons, presence):
    membership.on_beacon(beacon(), 0)
    # the first gap holds the beacon itself and does not count
    wait(membership, beacons * PERIOD_S + 5)
    assert membership.presence(2) is presence
    assert membership.is_usable(2) is (presence is not Presence.SILENT)


def test_silence_without_a_route_counts_nothing(membership):
    membership.on_beacon(beacon(), 0)
    wait(membership, 10 * SILENT_BEACONS * PERIOD_S, has_route=False)
    assert membership.presence(2) is Presence.ALIVE


def test_silence_is_counted_only_for_the_nodes_that_had_a_route(membership):
    membership.on_beacon(beacon(2), 0)
    membership.on_beacon(beacon(3), 0)
    for at_s in range(5, 400, 5):
        membership.judge(at_s * S, lambda node: node == 3)
    assert (membership.presence(2), membership.presence(3)) == (Presence.ALIVE, Presence.SILENT)


def test_a_node_that_was_never_heard_becomes_silent_too(membership):
    wait(membership, SILENT_BEACONS * PERIOD_S + 5)
    assert membership.presence(2) is Presence.SILENT


def test_one_beacon_ends_silence(membership):
    membership.on_beacon(beacon(), 0)
    wait(membership, 400)
    membership.on_beacon(beacon(uptime_s=500), 401 * S)
    assert membership.presence(2) is Presence.ALIVE


def test_a_reset_is_told_once(membership):
    membership.on_beacon(beacon(boot=1, uptime_s=100), 0)
    assert membership.on_beacon(beacon(boot=2, uptime_s=1), S) == [NodeReset(2, 2)]
    assert membership.on_beacon(beacon(boot=2, uptime_s=11), 2 * S) == []


def test_a_first_beacon_of_a_later_boot_tells_of_resets_that_nobody_saw(membership):
    assert membership.on_beacon(beacon(boot=3, uptime_s=1), 0) == [NodeReset(2, 3)]


@pytest.mark.parametrize("old", [beacon(boot=1, uptime_s=900), beacon(boot=2, uptime_s=49)])
def test_an_old_beacon_that_overtook_is_ignored(membership, old):
    newest = beacon(boot=2, uptime_s=50)
    membership.on_beacon(newest, S)
    assert membership.on_beacon(old, 2 * S) == []
    assert (membership.members[2].beacon, membership.members[2].heard_ns) == (newest, S)


@given(st.permutations([(1, 10), (1, 20), (2, 5), (2, 15), (3, 1)]))
def test_in_any_order_of_arrival_the_newest_beacon_stands_and_each_reset_is_told_at_most_once(order):
    membership = Membership((2,), OURS, 10.0)
    events = [
        e for at, (boot, up) in enumerate(order) for e in membership.on_beacon(beacon(boot=boot, uptime_s=up), at)
    ]
    held = membership.members[2].beacon
    assert (held.boot_count, held.uptime_s) == (3, 1)
    boots = [event.boot_count for event in events]
    assert boots == sorted(set(boots))
    assert boots[-1] == 3


def test_another_dictionary_refuses_the_node_and_is_told_once(membership):
    assert membership.on_beacon(beacon(dictionary=OTHER), 0) == [DictionaryMismatch(2, OTHER)]
    assert membership.on_beacon(beacon(dictionary=OTHER, uptime_s=110), S) == []
    assert membership.presence(2) is Presence.REFUSED
    assert not membership.is_usable(2)


def test_a_node_that_comes_back_with_our_dictionary_is_taken_again(membership):
    membership.on_beacon(beacon(dictionary=OTHER), 0)
    membership.on_beacon(beacon(boot=2, uptime_s=1), S)
    assert membership.is_usable(2)


@pytest.mark.parametrize(
    ("mode", "presence"),
    [
        (Mode.NOMINAL, Presence.ALIVE),
        (Mode.ECLIPSE, Presence.ALIVE),
        (Mode.LOW_POWER, Presence.ALIVE),
        (Mode.SAFE, Presence.SAFE),
    ],
)
def test_a_node_in_safe_mode_is_not_used(membership, mode, presence):
    membership.on_beacon(beacon(mode=mode), 0)
    assert membership.presence(2) is presence
    assert membership.is_usable(2) is (presence is Presence.ALIVE)


def test_a_stranger_is_no_member(membership):
    assert membership.on_beacon(beacon(node=9), 0) == []
    assert sorted(membership.members) == [2, 3]
