"""The bundle agent and its shell: custody, contacts, pacing, expiry, rerouting, and noise."""

import asyncio
import random  # noqa: TID251 - seeded
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import AgentLimits, BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.ltp import LtpConfig
from flightsw.net.queues import BundleQueue, QueuedBundle
from flightsw.wire.bundles import BlockFlags, Bundle, CanonicalBlock, decode_bundle, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.segments import DataSegment, decode_segment, encode_segment

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000
UTC_NS = 1_800_000_000 * SECOND_NS
CODING = coding("cobs-crc32c")
LIMITS = AgentLimits(ltp=LtpConfig(margin_ns=200 * MS_NS, retransmissions_max=3))


def contact(
    start_s: float, end_s: float, source: tuple[int, int], target: tuple[int, int], rate_bps: float = 1e6
) -> Contact:
    return Contact(int(start_s * SECOND_NS), int(end_s * SECOND_NS), *source, *target, rate_bps, 5 * MS_NS)


def both_ways(
    start_s: float, end_s: float, one: tuple[int, int], other: tuple[int, int], rate_bps: float = 1e6
) -> list[Contact]:
    return [contact(start_s, end_s, one, other, rate_bps), contact(start_s, end_s, other, one, rate_bps)]


class World:
    """Agents joined by a wire that follows the plan, delays, and loses what `is_lost` says.

    It checks what every transmitter must keep to: inside the contact, and no faster than its rate.
    """

    def __init__(self, contacts: Iterable[Contact], limits: AgentLimits = LIMITS, segment_bytes: int = 1024) -> None:
        self.plan = ContactPlan(contacts)
        self.now_ns = 0
        self.agents: dict[int, BundleAgent] = {}
        self.delivered: dict[int, list[Delivery]] = {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        """(when handed over [ns], node, interface, frame)."""
        self.is_lost: Callable[[int, int], bool] = lambda source, target: False
        self._air: list[tuple[int, int, int, int, bytes]] = []
        self._order = count()
        self._free_ns: dict[tuple[int, int], int] = {}
        self._limits = limits
        self._segment_bytes = segment_bytes
        for node in sorted({one.source for one in self.plan.contacts} | {one.target for one in self.plan.contacts}):
            self.boot(node, 1)

    def boot(self, node: int, boot_count: int) -> None:
        indices = sorted({c.source_interface for c in self.plan.contacts if c.source == node}) or [0]
        interfaces = tuple(
            InterfaceConfig(index=i, name=f"if{i}", coding=CODING.name, segment_bytes=self._segment_bytes)
            for i in indices
        )
        self.agents[node] = BundleAgent(node, self.plan, interfaces, boot_count << 24, self._limits)
        self.delivered.setdefault(node, [])

    def send(self, source: int, destination: int, payload: bytes, lifetime_s: float = 600, **options: object) -> None:
        agent = self.agents[source]
        agent.send(
            destination, 5, payload, now_ns=self.now_ns, utc_ns=UTC_NS, lifetime_ms=int(lifetime_s * 1000), **options
        )  # type: ignore[arg-type]

    def run(self, until_s: float) -> None:
        until_ns = int(until_s * SECOND_NS)
        for _ in range(100_000):
            self._serve()
            times = [at for agent in self.agents.values() if (at := agent.next_deadline_ns()) is not None]
            times += [self._air[0][0]] if self._air else []
            if not times or min(times) > until_ns:
                self.now_ns = until_ns
                return
            assert min(times) > self.now_ns or self._air, "an agent asks for now again and again"
            self.now_ns = max(self.now_ns, min(times))
            while self._air and self._air[0][0] <= self.now_ns:
                _, _, node, interface, frame = heappop(self._air)
                self.agents[node].receive_frame(interface, frame, self.now_ns)
        pytest.fail("it never falls silent")

    def _serve(self) -> None:
        for node, agent in self.agents.items():
            for interface, frame in agent.pump(self.now_ns):
                self._carry(node, interface, bytes(frame))
            self.delivered[node] += agent.take_deliveries()

    def _carry(self, node: int, interface: int, frame: bytes) -> None:
        self.frames.append((self.now_ns, node, interface, frame))
        open_contact = self.plan.at(node, interface, self.now_ns)
        assert open_contact is not None, "a frame outside of contact"
        start_ns = max(self.now_ns, self._free_ns.get((node, interface), 0))
        ends_ns = start_ns + int(len(frame) * 8e9 / open_contact.rate_bps)
        frame_ns_max = int(1.2 * self._segment_bytes * 8e9 / open_contact.rate_bps) + MS_NS
        assert start_ns - self.now_ns <= max(20 * MS_NS, 2 * frame_ns_max), "a flood ahead of the transmitter"
        assert ends_ns <= open_contact.end_ns, "a frame that the end of contact cuts off"
        self._free_ns[node, interface] = ends_ns
        if not self.is_lost(node, open_contact.target):
            at_ns = ends_ns + open_contact.light_time_ns
            entry = (at_ns, next(self._order), open_contact.target, open_contact.target_interface, frame)
            heappush(self._air, entry)

    def payloads(self, node: int) -> list[bytes]:
        return [delivery.payload for delivery in self.delivered[node]]


def pair(start_s: float = 0, end_s: float = 1000, rate_bps: float = 1e6) -> list[Contact]:
    return both_ways(start_s, end_s, (1, 0), (2, 0), rate_bps)


def ring(nodes: int, end_s: float = 1000) -> list[Contact]:
    """Nodes 1 to n, interface 1 toward the next and 2 toward the one before."""
    contacts = []
    for node in range(1, nodes + 1):
        contacts += both_ways(0, end_s, (node, 1), (node % nodes + 1, 2))
    return contacts


@pytest.mark.parametrize("reliable", [True, False])
@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_bundle_arrives_with_its_payload_service_and_age(reliable: bool, size: int) -> None:
    world = World(pair())
    world.send(1, 2, bytes(size), reliable=reliable, source_service=9)
    world.run(10)
    (delivery,) = world.delivered[2]
    assert (delivery.service, delivery.source_node, delivery.payload) == (5, 1, bytes(size))
    assert 5 < delivery.age_ms < 200
    assert delivery.lifetime_ms == 600_000


def test_a_bundle_to_the_own_node_is_delivered_at_once() -> None:
    world = World(pair())
    world.send(1, 1, b"self")
    assert world.agents[1].take_deliveries() == [Delivery(5, 1, b"self", 0, 600_000, authenticated=True)]


def test_nothing_is_sent_outside_of_contact() -> None:
    world = World(pair(100, 110))
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


def test_a_transmitter_keeps_its_rate_and_its_window() -> None:
    """`World` checks each frame; here it has enough to do."""
    world = World(pair(0, 30, rate_bps=9600))
    for index in range(20):
        world.send(1, 2, bytes((index,)) * 2000)
    world.run(30)
    assert 8 <= len(world.payloads(2)) <= 17, "9600 bit/s carry 36 kB in 30 s"


def test_a_red_bundle_that_the_end_of_contact_cuts_off_goes_on_in_the_next_contact() -> None:
    world = World([*pair(0, 10, rate_bps=9600), *pair(5000, 5020, rate_bps=9600)])
    world.send(1, 2, bytes(16_000), lifetime_s=10_000)
    world.run(4000)
    assert world.delivered[2] == []
    frames_before = len(world.frames)
    world.run(6000)
    (delivery,) = world.delivered[2]
    assert delivery.age_ms > 5_000_000, "the age counts the time between contacts"
    assert sum(node == 1 for _, node, _, _ in world.frames[frames_before:]) < 12, "what had arrived is not sent again"


def test_a_bundle_that_expires_between_contacts_is_not_completed_in_the_next() -> None:
    world = World([*pair(0, 10, rate_bps=9600), *pair(5000, 5020, rate_bps=9600)])
    world.send(1, 2, bytes(16_000), lifetime_s=60)
    world.run(6000)
    assert world.delivered[2] == []
    assert world.agents[1].counters.bundles_expired_count == 1


def test_a_bundle_expires_by_age_while_it_waits() -> None:
    world = World(pair(100, 200))
    world.send(1, 2, b"short", lifetime_s=50)
    world.send(1, 2, b"long", lifetime_s=150)
    world.run(99)
    assert world.agents[1].counters.bundles_expired_count == 1
    world.run(200)
    assert world.payloads(2) == [b"long"]


def test_a_bundle_that_expired_between_two_sweeps_is_not_sent() -> None:
    world = World(pair(100, 200), AgentLimits(sweep_ns=1000 * SECOND_NS))
    world.send(1, 2, b"sweeps", lifetime_s=10)
    world.send(1, 2, b"is forgotten by the sweep", lifetime_s=50)
    world.run(200)
    assert world.frames == []
    assert world.agents[1].counters.bundles_expired_count == 2


@pytest.mark.parametrize("reliable", [True, False])
def test_waiting_makes_a_bundle_older(reliable: bool) -> None:
    world = World(pair(100, 200))
    world.send(1, 2, b"x", reliable=reliable)
    world.run(200)
    assert 100_000 <= world.delivered[2][0].age_ms <= 100_100


def test_a_jump_of_the_mission_clock_expires_nothing() -> None:
    world = World(pair())
    for utc_ns in (0, UTC_NS, 10 * UTC_NS):
        world.agents[1].send(2, 5, b"x", now_ns=world.now_ns, utc_ns=utc_ns, lifetime_ms=1000)
    world.run(10)
    assert len(world.payloads(2)) == 3


def test_urgent_bundles_overtake() -> None:
    world = World(pair(10, 60, rate_bps=9600))
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


def test_dropped_bundles_are_counted() -> None:
    world = World(pair(100, 200), AgentLimits(limbo_bundles_max=2))
    for _ in range(5):
        world.send(1, 77, b"nowhere")
    assert world.agents[1].counters.bundles_dropped_count == 3


def test_a_bundle_travels_over_relays_and_keeps_its_priority() -> None:
    world = World(ring(5))
    world.send(1, 3, b"relayed", priority=2)
    world.run(5)
    assert world.payloads(3) == [b"relayed"]
    assert world.agents[2].counters.bundles_forwarded_count == 1
    relayed = [
        decode_segment(CODING.decode(frame))
        for _, node, interface, frame in world.frames
        if (node, interface) == (2, 1)
    ]
    (block,) = [segment.data for segment in relayed if isinstance(segment, DataSegment)]
    bundle = decode_bundle(block)
    assert [one.data for one in bundle.blocks] == [b"\2"]
    assert bundle.previous_node == Eid(2, 0)
    assert bundle.hop_count == (64, 1)


def test_a_dead_link_in_a_ring_of_three_is_routed_around() -> None:
    world = World(ring(3))
    world.is_lost = lambda source, target: {source, target} == {1, 2}
    world.send(1, 2, b"around")
    world.run(100)
    assert world.payloads(2) == [b"around"]
    counters = world.agents[1].counters
    assert (counters.suspicions_count, counters.bundles_rerouted_count) == (1, 1)
    world.send(1, 2, b"at once")
    world.run(101)
    assert world.payloads(2) == [b"around", b"at once"], "as long as the neighbour is suspect nobody waits for it"


def test_a_relay_with_a_dead_link_sends_the_other_way_round() -> None:
    world = World(ring(6))
    world.is_lost = lambda source, target: {source, target} == {2, 3}
    world.send(1, 3, b"back and round")
    world.run(100)
    assert world.payloads(3) == [b"back and round"]
    assert world.agents[1].counters.bundles_forwarded_count == 1


def test_a_bundle_does_not_go_round_and_round_a_dead_link_that_only_its_ends_know_of() -> None:
    # 1, 2 and 3 see each other, 4 sees 2 only, and that link is dead; there is no other way until 3 sees 4.
    contacts = (
        both_ways(0, 1000, (1, 1), (2, 1)) + both_ways(0, 1000, (2, 2), (3, 2)) + both_ways(0, 1000, (3, 3), (1, 3))
    )
    contacts += both_ways(0, 1000, (2, 4), (4, 2)) + both_ways(400, 1000, (3, 4), (4, 3))
    world = World(contacts)
    world.is_lost = lambda source, target: {source, target} == {2, 4}
    world.send(1, 4, b"to the dead end", lifetime_s=900)
    world.run(390)
    counters = [agent.counters for agent in world.agents.values()]
    assert sum(one.bundles_returned_count for one in counters) > 0
    assert sum(one.bundles_forwarded_count for one in counters) < 30, "three laps or less in each 120 s of suspicion"
    assert sum(one.bundles_dropped_count for one in counters) == 0, "its hops are not used up"
    world.run(600)
    assert world.payloads(4) == [b"to the dead end"], "what came back waits, and takes the way that opens"


def test_a_suspect_neighbour_gets_another_chance() -> None:
    world = World(ring(3))
    world.is_lost = lambda source, target: {source, target} == {1, 2} and world.now_ns < 60 * SECOND_NS
    world.send(1, 2, b"around")
    world.run(119)
    world.send(1, 2, b"around as well")
    world.run(130)
    assert world.agents[3].counters.bundles_forwarded_count == 2
    world.send(1, 2, b"direct")
    world.run(131)
    assert world.payloads(2) == [b"around", b"around as well", b"direct"]
    assert world.agents[3].counters.bundles_forwarded_count == 2


def test_an_answer_ends_the_suspicion() -> None:
    world = World(ring(3))
    world.is_lost = lambda source, target: (source, target) == (1, 2) and world.now_ns < 10 * SECOND_NS
    world.send(1, 2, b"around")
    world.run(10)
    world.send(2, 1, b"whose report is acknowledged")
    world.run(60)
    world.send(1, 2, b"direct")
    world.run(61)
    assert world.payloads(2) == [b"around", b"direct"]
    assert world.agents[3].counters.bundles_forwarded_count == 1


def test_the_only_way_is_tried_through_a_long_outage() -> None:
    world = World(pair())
    world.is_lost = lambda source, target: world.now_ns < 300 * SECOND_NS
    world.send(1, 2, b"patience")
    world.run(300 + 2 + LIMITS.ltp.backoff_max_ns / SECOND_NS)
    assert world.payloads(2) == [b"patience"]
    assert world.agents[1].counters.ltp.blocks_failed_count > LIMITS.failures_max, "silence is no refusal"
    assert world.agents[1].counters.bundles_dropped_count == 0


def test_a_bundle_that_the_neighbour_keeps_refusing_is_dropped() -> None:
    limits = AgentLimits(ltp=LIMITS.ltp, failures_max=3)
    world = World(pair(), limits)
    small = AgentLimits(ltp=LtpConfig(block_bytes_max=500))
    interfaces = (InterfaceConfig(index=0, name="radio", coding=CODING.name),)
    world.agents[2] = BundleAgent(2, world.plan, interfaces, 1 << 24, small)
    world.send(1, 2, bytes(1000))
    world.run(60)
    assert world.payloads(2) == []
    assert world.agents[1].counters.bundles_dropped_count == 1
    assert world.agents[1].counters.ltp.blocks_failed_count == 4


def test_a_bundle_whose_hops_are_used_up_goes_no_further() -> None:
    world = World(ring(5), AgentLimits(hops_max=1))
    world.send(1, 3, b"two hops")
    world.send(1, 2, b"one hop")
    world.run(5)
    assert world.payloads(2) == [b"one hop"]
    world.send(2, 4, b"x")
    world.run(9)
    assert world.payloads(3) == [b"two hops"], "a limit of one allows one relay"
    world = World(ring(7), AgentLimits(hops_max=1))
    world.send(1, 4, b"three hops")
    world.run(9)
    assert world.payloads(4) == []
    assert world.agents[3].counters.bundles_dropped_count == 1


def test_a_repeated_frame_is_not_delivered_twice() -> None:
    for reliable in (True, False):
        world = World(pair())
        world.send(1, 2, b"once", reliable=reliable)
        world.run(1)
        _, _, interface, frame = world.frames[0]
        for _ in range(3):
            world.agents[2].receive_frame(interface, frame, world.now_ns)
        world.run(5)
        assert world.payloads(2) == [b"once"]


def test_numbers_of_another_boot_are_not_taken_for_the_old_ones() -> None:
    world = World(pair())
    world.send(1, 2, b"first boot")
    world.run(1)
    world.boot(1, 2)
    world.send(1, 2, b"second boot")
    world.run(5)
    assert world.payloads(2) == [b"first boot", b"second boot"]


def test_a_receiver_that_was_reset_amid_a_block_still_gets_it() -> None:
    world = World(pair(rate_bps=9600))
    world.send(1, 2, bytes(8000))
    world.run(4)
    world.boot(2, 2)
    world.run(60)
    assert world.payloads(2) == [bytes(8000)]


def test_noise_is_counted_and_never_raised() -> None:
    world = World(pair())
    world.run(0)
    agent = world.agents[2]
    stranger = encode_segment(DataSegment((99, 1), True, False, False, False, 1, 0, b"x"))
    green_junk = encode_segment(DataSegment((1, 1), False, False, False, True, 1, 0, b"junk"))
    for frame in (b"", b"\0", b"noise", CODING.encode(b"\xff"), CODING.encode(stranger), CODING.encode(green_junk)):
        agent.receive_frame(0, frame, 0)
    agent.receive_frame(7, b"", 0)
    counters = agent.counters
    assert counters.interfaces[0].frames_rejected_count == 3
    assert counters.interfaces[0].segments_rejected_count == 2
    assert counters.bundles_rejected_count == 1
    assert counters.frames_stray_count == 1
    assert agent.take_deliveries() == []


@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_any_bytes_are_taken_without_a_word(noise: bytes, framed: bool) -> None:
    world = World(pair())
    world.run(0)
    world.agents[2].receive_frame(0, CODING.encode(noise) if framed else noise, 0)
    world.run(1)


def arriving(bundle: Bundle) -> tuple[World, BundleAgent]:
    """Node 2 of a ring of 3 with a foreign bundle that came from node 1."""
    world = World(ring(3))
    world.run(0)
    segment = DataSegment((1, 1), False, False, False, True, 1, 0, encode_bundle(bundle))
    world.agents[2].receive_frame(2, CODING.encode(encode_segment(segment)), 0)
    world.run(5)
    return world, world.agents[2]


def test_a_foreign_bundle_without_age_or_hop_count_is_delivered() -> None:
    world, _ = arriving(Bundle(Eid(3, 5), Eid(1, 0), DTN_NONE, (5, 5), 10_000, b"plain"))
    assert world.payloads(3) == [b"plain"]


@pytest.mark.parametrize("flags", [BlockFlags.DELETE_BUNDLE_IF_UNPROCESSED, BlockFlags.DISCARD_BLOCK_IF_UNPROCESSED])
def test_the_flags_of_unknown_blocks_are_obeyed(flags: BlockFlags) -> None:
    blocks = (CanonicalBlock(200, 9, int(flags), 0, b"?"),)
    world, agent = arriving(Bundle(Eid(3, 5), Eid(1, 0), DTN_NONE, (5, 5), 10_000, b"x", age_ms=0, blocks=blocks))
    if flags & BlockFlags.DELETE_BUNDLE_IF_UNPROCESSED:
        assert world.payloads(3) == []
        assert agent.counters.bundles_rejected_count == 1
    else:
        assert world.payloads(3) == [b"x"]
        sent = [frame for _, node, _, frame in world.frames if node == 2]
        (segment,) = [decode_segment(CODING.decode(frame)) for frame in sent]
        assert isinstance(segment, DataSegment)
        assert decode_bundle(segment.data).blocks == ()


def test_a_bundle_that_is_past_its_lifetime_is_not_delivered() -> None:
    world, agent = arriving(Bundle(Eid(2, 5), Eid(1, 0), DTN_NONE, (5, 5), 10_000, b"x", age_ms=9_996))
    assert world.payloads(2) == []
    assert agent.counters.bundles_expired_count == 1


def test_wrong_arguments_name_what_was_expected() -> None:
    world = World(pair())
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
    seed: int, loss: float, sizes: list[int], pause_s: int
) -> None:
    """Failed blocks are tried again until the lifetime ends, so that over a long contact all arrive."""
    chance = random.Random(seed)
    world = World([*pair(0, 5), *pair(5 + pause_s, 2000)])
    world.is_lost = lambda source, target: chance.random() < loss
    for index, size in enumerate(sizes):
        world.send(1, 2, bytes((index,)) * size, lifetime_s=5000)
    world.run(2000)
    assert sorted(world.payloads(2)) == sorted(bytes((index,)) * size for index, size in enumerate(sizes))


def test_two_runs_are_the_same_to_the_byte() -> None:
    def frames() -> list[tuple[int, int, int, bytes]]:
        chance = random.Random(7)
        world = World(ring(4))
        world.is_lost = lambda source, target: chance.random() < 0.2
        for index in range(12):
            world.send(index % 4 + 1, (index + 2) % 4 + 1, bytes(700 * index), reliable=index % 3 > 0)
        world.run(200)
        return world.frames

    assert frames() == frames()


def test_an_idle_agent_asks_to_be_woken_only_for_contacts() -> None:
    world = World(pair(100, 200))
    agent = world.agents[1]
    agent.pump(0)
    assert agent.next_deadline_ns() == 100 * SECOND_NS
    agent.pump(100 * SECOND_NS)
    assert agent.next_deadline_ns() == 200 * SECOND_NS
    agent.pump(200 * SECOND_NS)
    assert agent.next_deadline_ns() is None


class LoopClock:
    """Both kinds of time from the running loop."""

    def monotonic_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    def utc_ns(self) -> int:
        return UTC_NS + self.monotonic_ns()


@pytest.mark.parametrize(("is_echoing", "sent_counts"), [(True, [3, 3]), (False, [2, 1])])
async def test_two_endpoints_talk_over_a_wire_that_answers_at_once(is_echoing: bool, sent_counts: list[int]) -> None:
    start_s = LoopClock().monotonic_ns() / 1e9
    plan = ContactPlan(pair(start_s - 10, start_s + 1000, rate_bps=1e9))
    interfaces = (InterfaceConfig(index=0, name="radio", coding=CODING.name),)
    received: list[Delivery] = []
    ends: dict[int, Endpoint] = {}
    links = {
        1: MemoryLink(lambda interface, frame: links[2].deliver(interface, frame)),
        2: MemoryLink(lambda interface, frame: links[1].deliver(interface, frame)),
    }

    def echo(delivery: Delivery) -> None:
        if is_echoing:
            ends[2].send(delivery.source_node, 6, delivery.payload.upper(), lifetime_ms=1000)

    services: dict[int, Callable[[Delivery], None]] = {1: received.append, 2: echo}
    for node, link in links.items():
        ends[node] = Endpoint(LoopClock(), link, BundleAgent(node, plan, interfaces, 1 << 24), services[node])
        ends[node].flush()
    ends[1].send(2, 5, b"ping", lifetime_ms=1000)
    assert [(delivery.service, delivery.payload) for delivery in received] == [(6, b"PING")] * is_echoing
    # Data, reports and acknowledgements: none of them waits for a timer.
    assert [end.agent.counters.ltp.segments_sent_count for end in ends.values()] == sent_counts
    for end in ends.values():
        await end.close()
    ends[1].agent.send(2, 5, b"late", now_ns=0, utc_ns=0, lifetime_ms=1000)
    ends[1].flush()
    assert len(received) == is_echoing


async def test_the_timer_begins_a_contact_without_any_call() -> None:
    start_s = LoopClock().monotonic_ns() / 1e9
    plan = ContactPlan(pair(start_s + 0.02, start_s + 1000))
    interfaces = (InterfaceConfig(index=0, name="radio", coding=CODING.name),)
    sent: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    link = MemoryLink(lambda interface, frame: sent.set_result(bytes(frame)))
    end = Endpoint(LoopClock(), link, BundleAgent(1, plan, interfaces, 1 << 24), lambda delivery: None)
    end.send(2, 5, b"when contact begins", lifetime_ms=60_000, reliable=False)
    assert not sent.done()
    assert b"when contact begins" in await asyncio.wait_for(sent, 5)
    await end.close()
