"""Named streams: the same for the same seed and name, and independent of every other stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.sim.streams import Streams

NAMES = st.text(min_size=1, max_size=20)


@given(st.integers(), NAMES)
def test_a_seed_and_a_name_give_the_same_draws_again(seed: int, name: str) -> None:
    first, again = Streams(seed).random(name), Streams(seed).random(name)
    assert [first.random() for _ in range(5)] == [again.random() for _ in range(5)]


@given(st.integers(), NAMES, NAMES)
def test_a_new_stream_never_shifts_an_old_one(seed: int, old: str, new: str) -> None:
    alone = Streams(seed).random(old).random()
    streams = Streams(seed)
    if new != old:
        streams.random(new).random()
    assert streams.random(old).random() == alone


def test_streams_of_other_names_and_other_seeds_differ() -> None:
    draws = [Streams(seed).random(name).getrandbits(64) for seed in range(30) for name in ("a", "b", "a/b", "")]
    assert len(set(draws)) == 120


def test_draws_are_the_known_ones() -> None:
    assert Streams(7).random("sat-03/downlink/bit_flips").getrandbits(32) == 2069994312
    assert int(Streams(7).generator("sat-03/downlink/bit_flips").bit_generator.random_raw()) == 14219290439056508082
    assert Streams(7).bytes("sat-03/keys", 4).hex() == "81ad6e76"


def test_a_generator_of_arrays_repeats_and_has_its_own_draws() -> None:
    first, again = Streams(1).generator("noise").random(100), Streams(1).generator("noise").random(100)
    other = Streams(1).generator("flips").random(100)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert 0.35 < first.mean() < 0.65


@pytest.mark.parametrize("first_use", ["random", "generator", "bytes"])
@pytest.mark.parametrize("second_use", ["random", "generator", "bytes"])
def test_a_stream_has_one_user(first_use: str, second_use: str) -> None:
    uses = {
        "random": lambda streams: streams.random("link"),
        "generator": lambda streams: streams.generator("link"),
        "bytes": lambda streams: streams.bytes("link", 8),
    }
    streams = Streams(3)
    uses[first_use](streams)
    with pytest.raises(AssertionError, match="'link' is taken"):
        uses[second_use](streams)


def test_a_child_is_a_view_under_a_prefix() -> None:
    streams = Streams(3)
    downlink = streams.child("sat-03").child("downlink")
    assert downlink.random("flips").random() == Streams(3).random("sat-03/downlink/flips").random()
    with pytest.raises(AssertionError, match="sat-03/downlink/flips"):
        streams.random("sat-03/downlink/flips")


def test_bytes_repeat_and_have_the_length_asked_for() -> None:
    assert Streams(3).bytes("keys", 32) == Streams(3).bytes("keys", 32)
    assert len(Streams(3).bytes("keys", 32)) == 32
    assert Streams(4).bytes("keys", 32) != Streams(3).bytes("keys", 32)
