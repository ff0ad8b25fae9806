"""The bundle agent between two neighbours: custody, contacts, pacing, expiry and queues."""

import random  # noqa: TID251 - seeded
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from flightsw.net.agent import AgentLimits, BundleAgent, Delivery
from flightsw.net.contacts import Contact
from flightsw.net.queues import BundleQueue, QueuedBundle
from flightsw.wire.bundles import Bundle
from flightsw.wire.eids import DTN_NONE, Eid

SECOND_NS = 1_000_000_000
UTC_NS = 1_800_000_000 * SECOND_NS


@pytest.mark.parametrize("reliable", [True, False])
@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_bundle_arrives_with_its_payload_service_and_age(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]], reliable: bool, size: int
) -> None:
    world = make_world(pair())
    world.send(1, 2, bytes(size), reliable=reliable, source_service=9)
    world.run(10)
    (delivery,) = world.delivered[2]
    assert (delivery.service, delivery.source_node, delivery.payload) == (5, 1, bytes(size))
    assert 5 < delivery.age_ms < 200
    assert delivery.lifetime_ms == 600_000


def test_a_bundle_to_the_own_node_is_delivered_at_once(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair())
    world.send(1, 1, b"self")
    assert world.agents[1].take_deliveries() == [Delivery(5, 1, b"self", 0, 600_000, authenticated=True)]


def test_nothing_is_sent_outside_of_contact(make_world: Callable[..., Any], pair: Callable[..., list[Contact]]) -> None:
    world = make_world(pair(100, 110))
    world.send(1, 2, b"early")
    world.run(99.999)
    assert world.frames == []
    world.run(105)
    assert world.payloads(2) == [b"early"]
    world.run(110)
    count_before = len(world.frames)
    world.send(1, 2, b"late")
    world.run(1000)
    assert len(world.frames) == count_before


def test_a_transmitter_keeps_its_rate_and_its_window(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    """The wire checks each frame; here it has enough to do."""
    world = make_world(pair(0, 30, rate_bps=9600))
    for index in range(20):
        world.send(1, 2, bytes((index,)) * 2000)
    world.run(30)
    assert 8 <= len(world.payloads(2)) <= 17, "9600 bit/s carry 36 kB in 30 s"


def test_a_red_bundle_that_the_end_of_contact_cuts_off_goes_on_in_the_next_contact(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world([*pair(0, 10, rate_bps=9600), *pair(5000, 5020, rate_bps=9600)])
    world.send(1, 2, bytes(16_000), lifetime_s=10_000)
    world.run(4000)
    assert world.delivered[2] == []
    frames_before = len(world.frames)
    world.run(6000)
    (delivery,) = world.delivered[2]
    assert delivery.age_ms > 5_000_000, "the age counts the time between contacts"
    assert sum(node == 1 for _, node, _, _ in world.frames[frames_before:]) < 12, "what had arrived is not sent again"


def test_a_bundle_that_expires_between_contacts_is_not_completed_in_the_next(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world([*pair(0, 10, rate_bps=9600), *pair(5000, 5020, rate_bps=9600)])
    world.send(1, 2, bytes(16_000), lifetime_s=60)
    world.run(6000)
    assert world.delivered[2] == []
    assert world.agents[1].counters.bundles_expired_count == 1


def test_a_bundle_expires_by_age_while_it_waits(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair(100, 200))
    world.send(1, 2, b"short", lifetime_s=50)
    world.send(1, 2, b"long", lifetime_s=150)
    world.run(99)
    assert world.agents[1].counters.bundles_expired_count == 1
    world.run(200)
    assert world.payloads(2) == [b"long"]


def test_a_bundle_that_expired_between_two_sweeps_is_not_sent(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair(100, 200), AgentLimits(sweep_ns=1000 * SECOND_NS))
    world.send(1, 2, b"sweeps", lifetime_s=10)
    world.send(1, 2, b"is forgotten by the sweep", lifetime_s=50)
    world.run(200)
    assert world.frames == []
    assert world.agents[1].counters.bundles_expired_count == 2


@pytest.mark.parametrize("reliable", [True, False])
def test_waiting_makes_a_bundle_older(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]], reliable: bool
) -> None:
    world = make_world(pair(100, 200))
    world.send(1, 2, b"x", reliable=reliable)
    world.run(200)
    assert 100_000 <= world.delivered[2][0].age_ms <= 100_100


def test_a_jump_of_the_mission_clock_expires_nothing(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair())
    for utc_ns in (0, UTC_NS, 10 * UTC_NS):
        world.agents[1].send(2, 5, b"x", now_ns=world.now_ns, utc_ns=utc_ns, lifetime_ms=1000)
    world.run(10)
    assert len(world.payloads(2)) == 3


def test_urgent_bundles_overtake(make_world: Callable[..., Any], pair: Callable[..., list[Contact]]) -> None:
    world = make_world(pair(10, 60, rate_bps=9600))
    for priority in (7, 4, 0, 4):
        world.send(1, 2, bytes((priority,)), priority=priority, reliable=False)
    world.run(60)
    assert world.payloads(2) == [b"\0", b"\4", b"\4", b"\7"]


def test_a_full_queue_drops_the_oldest_of_the_least_urgent_and_counts_it() -> None:
    queue = BundleQueue(3)
    bundle = Bundle(Eid(2, 1), Eid(1, 0), DTN_NONE, (1, 1), 1000, b"")

    def queued(order: int, priority: int) -> QueuedBundle:
        return QueuedBundle(bundle, order, priority, True, 0, 0, 0)

    entries = [queued(order, priority) for order, priority in enumerate((5, 2, 5))]
    assert [queue.push(entry) for entry in entries] == [None, None, None]
    assert queue.push(urgent := queued(3, 1)) is entries[0]
    assert queue.push(last := queued(4, 5)) is entries[2], "among equals the oldest goes"
    assert queue.push(least := queued(5, 6)) is least, "who is less urgent than all others does not come in"
    assert [queue.pop() for _ in range(4)] == [urgent, entries[1], last, None]


def test_dropped_bundles_are_counted(make_world: Callable[..., Any], pair: Callable[..., list[Contact]]) -> None:
    world = make_world(pair(100, 200), AgentLimits(limbo_bundles_max=2))
    for _ in range(5):
        world.send(1, 77, b"nowhere")
    assert world.agents[1].counters.bundles_dropped_count == 3


def test_wrong_arguments_name_what_was_expected(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair())
    with pytest.raises(ConfigError, match=r"priority: 8, expected 0 to 7"):
        world.send(1, 2, b"", priority=8)
    with pytest.raises(ConfigError, match=r"payload: \d+ bytes, expected at most"):
        world.send(1, 2, bytes(2_000_000))
    with pytest.raises(ConfigError, match="interface 0 is not configured"):
        BundleAgent(1, world.plan, (), 0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.7),
    sizes=st.lists(st.integers(1, 6000), min_size=1, max_size=6),
    pause_s=st.integers(1, 60),
)
def test_every_reliable_bundle_arrives_once_and_whole_over_a_bad_link(
    make_world: Callable[..., Any],
    pair: Callable[..., list[Contact]],
    seed: int,
    loss: float,
    sizes: list[int],
    pause_s: int,
) -> None:
    """Failed blocks are tried again until the lifetime ends, so that over a long contact all arrive."""
    chance = random.Random(seed)
    world = make_world([*pair(0, 5), *pair(5 + pause_s, 2000)])
    world.is_lost = lambda source, target: chance.random() < loss
    for index, size in enumerate(sizes):
        world.send(1, 2, bytes((index,)) * size, lifetime_s=5000)
    world.run(2000)
    assert sorted(world.payloads(2)) == sorted(bytes((index,)) * size for index, size in enumerate(sizes))


def test_two_runs_are_the_same_to_the_byte(make_world: Callable[..., Any], ring: Callable[..., list[Contact]]) -> None:
    def frames() -> list[tuple[int, int, int, bytes]]:
        chance = random.Random(7)
        world = make_world(ring(4))
        world.is_lost = lambda source, target: chance.random() < 0.2
        for index in range(12):
            world.send(index % 4 + 1, (index + 2) % 4 + 1, bytes(700 * index), reliable=index % 3 > 0)
        world.run(200)
        return world.frames

    assert frames() == frames()


def test_an_idle_agent_asks_to_be_woken_only_for_contacts(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair(100, 200))
    agent = world.agents[1]
    agent.pump(0)
    assert agent.next_deadline_ns() == 100 * SECOND_NS
    agent.pump(100 * SECOND_NS)
    assert agent.next_deadline_ns() == 200 * SECOND_NS
    agent.pump(200 * SECOND_NS)
    assert agent.next_deadline_ns() is None
