"""The bundle agent on a way: relays, dead links, refusals, repetitions, noise and foreign bundles."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.config import InterfaceConfig
from flightsw.net.agent import AgentLimits, BundleAgent
from flightsw.net.contacts import Contact
from flightsw.net.ltp import LtpConfig
from flightsw.wire.bundles import BlockFlags, Bundle, CanonicalBlock, decode_bundle, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.segments import DataSegment, decode_segment, encode_segment

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000
CODING = coding("cobs-crc32c")
LIMITS = AgentLimits(ltp=LtpConfig(margin_ns=200 * MS_NS, retransmissions_max=3))


def test_a_bundle_travels_over_relays_and_keeps_its_priority(
    make_world: Callable[..., Any], ring: Callable[..., list[Contact]]
) -> None:
    world = make_world(ring(5))
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


def test_a_dead_link_in_a_ring_of_three_is_routed_around(
    make_world: Callable[..., Any], ring: Callable[..., list[Contact]]
) -> None:
    world = make_world(ring(3))
    world.is_lost = lambda source, target: {source, target} == {1, 2}
    world.send(1, 2, b"around")
    world.run(100)
    assert world.payloads(2) == [b"around"]
    counters = world.agents[1].counters
    assert (counters.suspicions_count, counters.bundles_rerouted_count) == (1, 1)
    world.send(1, 2, b"at once")
    world.run(101)
    assert world.payloads(2) == [b"around", b"at once"], "as long as the neighbour is suspect nobody waits for it"


def test_a_relay_with_a_dead_link_sends_the_other_way_round(
    make_world: Callable[..., Any], ring: Callable[..., list[Contact]]
) -> None:
    world = make_world(ring(6))
    world.is_lost = lambda source, target: {source, target} == {2, 3}
    world.send(1, 3, b"back and round")
    world.run(100)
    assert world.payloads(3) == [b"back and round"]
    assert world.agents[1].counters.bundles_forwarded_count == 1


def test_a_bundle_does_not_go_round_and_round_a_dead_link_that_only_its_ends_know_of(
    make_world: Callable[..., Any], both_ways: Callable[..., list[Contact]]
) -> None:
    # 1, 2 and 3 see each other, 4 sees 2 only, and that link is dead; there is no other way until 3 sees 4.
    contacts = (
        both_ways(0, 1000, (1, 1), (2, 1)) + both_ways(0, 1000, (2, 2), (3, 2)) + both_ways(0, 1000, (3, 3), (1, 3))
    )
    contacts += both_ways(0, 1000, (2, 4), (4, 2)) + both_ways(400, 1000, (3, 4), (4, 3))
    world = make_world(contacts)
    world.is_lost = lambda source, target: {source, target} == {2, 4}
    world.send(1, 4, b"to the dead end", lifetime_s=900)
    world.run(390)
    counters = [agent.counters for agent in world.agents.values()]
    assert sum(one.bundles_returned_count for one in counters) > 0
    assert sum(one.bundles_forwarded_count for one in counters) < 30, "three laps or less in each 120 s of suspicion"
    assert sum(one.bundles_dropped_count for one in counters) == 0, "its hops are not used up"
    world.run(600)
    assert world.payloads(4) == [b"to the dead end"], "what came back waits, and takes the way that opens"


def test_a_suspect_neighbour_gets_another_chance(
    make_world: Callable[..., Any], ring: Callable[..., list[Contact]]
) -> None:
    world = make_world(ring(3))
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


def test_an_answer_ends_the_suspicion(make_world: Callable[..., Any], ring: Callable[..., list[Contact]]) -> None:
    world = make_world(ring(3))
    world.is_lost = lambda source, target: (source, target) == (1, 2) and world.now_ns < 10 * SECOND_NS
    world.send(1, 2, b"around")
    world.run(10)
    world.send(2, 1, b"whose report is acknowledged")
    world.run(60)
    world.send(1, 2, b"direct")
    world.run(61)
    assert world.payloads(2) == [b"around", b"direct"]
    assert world.agents[3].counters.bundles_forwarded_count == 1


def test_the_only_way_is_tried_through_a_long_outage(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair())
    world.is_lost = lambda source, target: world.now_ns < 300 * SECOND_NS
    world.send(1, 2, b"patience")
    world.run(300 + 2 + LIMITS.ltp.backoff_max_ns / SECOND_NS)
    assert world.payloads(2) == [b"patience"]
    assert world.agents[1].counters.ltp.blocks_failed_count > LIMITS.failures_max, "silence is no refusal"
    assert world.agents[1].counters.bundles_dropped_count == 0


def test_a_bundle_that_the_neighbour_keeps_refusing_is_dropped(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    limits = AgentLimits(ltp=LIMITS.ltp, failures_max=3)
    world = make_world(pair(), limits)
    small = AgentLimits(ltp=LtpConfig(block_bytes_max=500))
    interfaces = (InterfaceConfig(index=0, name="radio", coding=CODING.name),)
    world.agents[2] = BundleAgent(2, world.plan, interfaces, 1 << 24, small)
    world.send(1, 2, bytes(1000))
    world.run(60)
    assert world.payloads(2) == []
    assert world.agents[1].counters.bundles_dropped_count == 1
    assert world.agents[1].counters.ltp.blocks_failed_count == 4


def test_a_bundle_whose_hops_are_used_up_goes_no_further(
    make_world: Callable[..., Any], ring: Callable[..., list[Contact]]
) -> None:
    world = make_world(ring(5), AgentLimits(hops_max=1))
    world.send(1, 3, b"two hops")
    world.send(1, 2, b"one hop")
    world.run(5)
    assert world.payloads(2) == [b"one hop"]
    world.send(2, 4, b"x")
    world.run(9)
    assert world.payloads(3) == [b"two hops"], "a limit of one allows one relay"
    world = make_world(ring(7), AgentLimits(hops_max=1))
    world.send(1, 4, b"three hops")
    world.run(9)
    assert world.payloads(4) == []
    assert world.agents[3].counters.bundles_dropped_count == 1


def test_a_repeated_frame_is_not_delivered_twice(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    for reliable in (True, False):
        world = make_world(pair())
        world.send(1, 2, b"once", reliable=reliable)
        world.run(1)
        _, _, interface, frame = world.frames[0]
        for _ in range(3):
            world.agents[2].receive_frame(interface, frame, world.now_ns)
        world.run(5)
        assert world.payloads(2) == [b"once"]


def test_numbers_of_another_boot_are_not_taken_for_the_old_ones(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair())
    world.send(1, 2, b"first boot")
    world.run(1)
    world.boot(1, 2)
    world.send(1, 2, b"second boot")
    world.run(5)
    assert world.payloads(2) == [b"first boot", b"second boot"]


def test_a_receiver_that_was_reset_amid_a_block_still_gets_it(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]]
) -> None:
    world = make_world(pair(rate_bps=9600))
    world.send(1, 2, bytes(8000))
    world.run(4)
    world.boot(2, 2)
    world.run(60)
    assert world.payloads(2) == [bytes(8000)]


def test_noise_is_counted_and_never_raised(make_world: Callable[..., Any], pair: Callable[..., list[Contact]]) -> None:
    world = make_world(pair())
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
def test_any_bytes_are_taken_without_a_word(
    make_world: Callable[..., Any], pair: Callable[..., list[Contact]], noise: bytes, framed: bool
) -> None:
    world = make_world(pair())
    world.run(0)
    world.agents[2].receive_frame(0, CODING.encode(noise) if framed else noise, 0)
    world.run(1)


@pytest.fixture
def arriving(
    make_world: Callable[..., Any], ring: Callable[..., list[Contact]]
) -> Callable[[Bundle], tuple[Any, BundleAgent]]:
    """Node 2 of a ring of 3 with a foreign bundle that came from node 1."""

    def arrive(bundle: Bundle) -> tuple[Any, BundleAgent]:
        world = make_world(ring(3))
        world.run(0)
        segment = DataSegment((1, 1), False, False, False, True, 1, 0, encode_bundle(bundle))
        world.agents[2].receive_frame(2, CODING.encode(encode_segment(segment)), 0)
        world.run(5)
        return world, world.agents[2]

    return arrive


def test_a_foreign_bundle_without_age_or_hop_count_is_delivered(
    arriving: Callable[[Bundle], tuple[Any, BundleAgent]],
) -> None:
    world, _ = arriving(Bundle(Eid(3, 5), Eid(1, 0), DTN_NONE, (5, 5), 10_000, b"plain"))
    assert world.payloads(3) == [b"plain"]


@pytest.mark.parametrize("flags", [BlockFlags.DELETE_BUNDLE_IF_UNPROCESSED, BlockFlags.DISCARD_BLOCK_IF_UNPROCESSED])
def test_the_flags_of_unknown_blocks_are_obeyed(
    arriving: Callable[[Bundle], tuple[Any, BundleAgent]], flags: BlockFlags
) -> None:
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


def test_a_bundle_that_is_past_its_lifetime_is_not_delivered(
    arriving: Callable[[Bundle], tuple[Any, BundleAgent]],
) -> None:
    world, agent = arriving(Bundle(Eid(2, 5), Eid(1, 0), DTN_NONE, (5, 5), 10_000, b"x", age_ms=9_996))
    assert world.payloads(2) == []
    assert agent.counters.bundles_expired_count == 1
