"""Fragments become their bundle whatever their order and overlap, and never cost more than they may."""

import random  # noqa: TID251 - seeded
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.net.agent_values import AgentCounters
from flightsw.net.reassembly import PIECE_BYTES, REASSEMBLY_NS_MAX, Reassembler
from flightsw.wire.bundles import BUNDLE_BYTES_MAX, Bundle, BundleFlags, CanonicalBlock, decode_bundle, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid

MS_NS = 1_000_000
WHOLE = bytes(range(200))
BLOCKS = (CanonicalBlock(200, 9, 0, 0, b"of the first only"),)


def fragment(
    lower: int, upper: int, *, total: int = len(WHOLE), sequence: int = 5, lifetime_ms: int = 10_000
) -> Bundle:
    made = Bundle(
        Eid(2, 5),
        Eid(1, 3),
        DTN_NONE,
        (7, sequence),
        lifetime_ms,
        (WHOLE * 10_000)[lower:upper],
        flags=int(BundleFlags.FRAGMENT),
        fragment_offset=lower,
        total_length=total,
        blocks=BLOCKS if lower == 0 else (),
    )
    return decode_bundle(encode_bundle(made))


@given(
    cuts=st.lists(st.integers(1, len(WHOLE) - 1), max_size=6, unique=True),
    extra=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 60)), max_size=6),
    seed=st.integers(0, 2**32),
)
def test_fragments_become_the_bundle_in_any_order_and_with_any_overlap(cuts, extra, seed):
    edges = [0, *sorted(cuts), len(WHOLE)]
    spans = list(pairwise(edges))
    spans += [(lower, min(lower + length, len(WHOLE))) for lower, length in extra]
    random.Random(seed).shuffle(spans)
    counters = AgentCounters()
    reassembler = Reassembler(counters)
    found = [whole for lower, upper in spans if (whole := reassembler.add(fragment(lower, upper), 0, 0)) is not None]
    bundle, _ = found[0]
    assert bundle.payload == WHOLE
    assert not bundle.flags & BundleFlags.FRAGMENT
    assert bundle.blocks == BLOCKS, "it has the blocks of the fragment at offset zero"
    assert (bundle.source, bundle.creation) == (Eid(1, 3), (7, 5))
    assert decode_bundle(encode_bundle(bundle)).payload == WHOLE
    assert counters.bundles_reassembled_count == len(found)


def test_where_fragments_overlap_what_came_first_counts() -> None:
    reassembler = Reassembler(AgentCounters())
    assert reassembler.add(fragment(0, 100), 0, 0) is None
    assert reassembler.add(replace(fragment(50, 150), payload=b"x" * 100), 0, 0) is None
    whole = reassembler.add(fragment(150, 200), 0, 0)
    assert whole is not None
    assert whole[0].payload == WHOLE[:100] + b"x" * 50 + WHOLE[150:]


def test_the_whole_is_as_old_as_its_oldest_fragment() -> None:
    reassembler = Reassembler(AgentCounters())
    reassembler.add(fragment(0, 100), 500, 0)
    whole = reassembler.add(fragment(100, 200), 900, 1_000 * MS_NS)
    assert whole is not None
    assert whole[1] == 1500


def test_a_fragment_that_disagrees_about_the_length_is_dropped() -> None:
    counters = AgentCounters()
    reassembler = Reassembler(counters)
    reassembler.add(fragment(0, 100), 0, 0)
    assert reassembler.add(fragment(100, 200, total=300), 0, 0) is None
    assert counters.fragments_dropped_count == 1
    assert reassembler.add(fragment(100, 200), 0, 0) is not None


def test_a_bundle_that_would_be_too_long_is_not_begun() -> None:
    counters = AgentCounters()
    reassembler = Reassembler(counters)
    assert reassembler.add(fragment(0, 100, total=BUNDLE_BYTES_MAX + 1), 0, 0) is None
    assert (reassembler.held_bytes(), counters.fragments_dropped_count) == (0, 1)


def test_memory_is_bounded_and_the_oldest_bundle_gives_way() -> None:
    counters = AgentCounters()
    reassembler = Reassembler(counters, bytes_max=3 * (100 + 2 * PIECE_BYTES))
    for sequence in range(1, 5):
        reassembler.add(fragment(0, 100, sequence=sequence), 0, 0)
        assert reassembler.held_bytes() <= 3 * (100 + 2 * PIECE_BYTES)
    assert counters.fragments_dropped_count == 1
    assert reassembler.add(fragment(100, 200, sequence=1), 0, 0) is None, "the oldest has gone"
    assert reassembler.add(fragment(100, 200, sequence=4), 0, 0) is not None


def test_a_flood_of_tiny_fragments_is_charged_for_what_it_costs() -> None:
    reassembler = Reassembler(AgentCounters(), bytes_max=100 * PIECE_BYTES)
    for at in range(0, 4000, 2):
        reassembler.add(fragment(at, at + 1, total=5000), 0, 0)
        assert reassembler.held_bytes() <= 100 * PIECE_BYTES


@pytest.mark.parametrize(("lifetime_ms", "end_ns"), [(10_000, 9_500 * MS_NS), (2**50, REASSEMBLY_NS_MAX)])
def test_what_does_not_become_whole_in_time_is_given_up(lifetime_ms: int, end_ns: int) -> None:
    counters = AgentCounters()
    reassembler = Reassembler(counters)
    reassembler.add(fragment(0, 100, lifetime_ms=lifetime_ms), 500, 0)
    reassembler.expire(end_ns - 1)
    assert reassembler.held_bytes() > 0
    reassembler.expire(end_ns)
    assert (reassembler.held_bytes(), counters.fragments_dropped_count) == (0, 1)
