"""Majorities: one struck copy is outvoted and mended, and where there is none the safest value stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import BoardError
from flightsw.storage.voting import Voted, agreed
from flightsw.wire.messages import Mode

MODES = {bytes((mode,)): mode for mode in Mode}


def cell(value: Mode = Mode.NOMINAL) -> Voted[Mode]:
    return Voted(value, lambda mode: bytes((mode,)), MODES.__getitem__, Mode.SAFE)


@given(st.sampled_from(list(Mode)), st.integers(0, 2), st.integers(0, 7))
def test_any_bit_of_any_copy_is_outvoted_and_mended(mode: Mode, copy: int, bit: int) -> None:
    voted = cell(mode)
    voted.copies()[copy][0] ^= 1 << bit
    assert voted.value is mode
    assert voted.corrected_count == 1
    assert set(map(bytes, voted.copies())) == {bytes((mode,))}
    assert voted.value is mode
    assert (voted.corrected_count, voted.lost_count) == (1, 0)


def test_without_a_majority_the_fallback_stands_in_all_copies() -> None:
    voted = cell()
    voted.copies()[0][0] ^= 1
    voted.copies()[1][0] ^= 2
    assert voted.value is Mode.SAFE
    assert (voted.corrected_count, voted.lost_count) == (0, 1)
    assert voted.value is Mode.SAFE
    assert voted.lost_count == 1


def test_a_majority_for_what_is_no_value_is_none() -> None:
    voted = cell()
    for copy in voted.copies()[:2]:
        copy[0] = 0x80
    assert voted.value is Mode.SAFE
    assert (voted.corrected_count, voted.lost_count) == (0, 1)


def test_the_copies_do_not_share_memory() -> None:
    assert len({id(copy) for copy in cell().copies()}) == 3


def test_a_new_value_is_in_all_copies() -> None:
    voted = cell()
    voted.value = Mode.LOW_POWER
    assert set(map(bytes, voted.copies())) == {bytes((Mode.LOW_POWER,))}
    assert voted.value is Mode.LOW_POWER


@pytest.mark.parametrize(
    ("said", "value", "is_disputed"),
    [([7, 7], 7, False), ([1, 7, 7], 7, True), ([7, 1, 7], 7, True)],
)
def test_a_decision_is_what_came_out_twice(said: list[int], value: int, is_disputed: bool) -> None:
    waiting = iter(said)
    assert agreed(lambda: next(waiting)) == (value, is_disputed)
    assert list(waiting) == []


def test_a_decision_that_comes_out_three_ways_is_none() -> None:
    waiting = iter((1, 2, 3))
    with pytest.raises(BoardError, match="three times"):
        agreed(lambda: next(waiting))
