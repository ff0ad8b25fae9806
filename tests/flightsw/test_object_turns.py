"""Turns: the urgent go first and never wait for the less urgent; nobody starves."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from flightsw.objects.turns import GONE_KEPT_MAX, Turns


@dataclass
class One:
    name: int
    priority: int
    waiting_since: int = 0


def served(turns: Turns[One], count: int) -> list[int]:
    """Who gets the next turns when each burst is answered at once."""
    names = []
    for _ in range(count):
        turn = turns.next()
        if turn is None:
            break
        names.append(turn[0].name)
        turns.done(turn[1])
    return names


def test_the_most_urgent_go_first_and_equals_in_the_order_of_waiting() -> None:
    turns: Turns[One] = Turns(active_max=1, fair_turns=99)
    for sequence, (name, priority) in enumerate([(0, 7), (1, 3), (2, 7), (3, 3)], 1):
        turns.wait(One(name, priority), sequence)
    assert served(turns, 9) == [1, 3, 0, 2]


def test_an_urgent_one_does_not_wait_for_bursts_that_are_less_urgent() -> None:
    turns: Turns[One] = Turns(active_max=2, fair_turns=99)
    for name in range(3):
        turns.wait(One(name, 5), name + 1)
    assert [turns.next() is not None for _ in range(3)] == [True, True, False]
    turns.wait(One(9, 4), 9)
    turn = turns.next()
    assert turn is not None
    assert (turn[0].name, turn[1]) == (9, 4)
    turns.done(4)
    assert turns.next() is None
    turns.done(5)
    assert turns.next() is not None


@given(st.integers(1, 12), st.integers(1, 20))
def test_one_turn_in_so_many_goes_to_who_waited_longest_at_the_priority_of_the_most_urgent(
    fair_turns: int, urgent_count: int
) -> None:
    turns: Turns[One] = Turns(active_max=1, fair_turns=fair_turns)
    patient = One(-1, 7)
    turns.wait(patient, 1)
    for turn_number in range(1, 3 * fair_turns):  # urgent ones without end
        turns.wait(One(turn_number, 0), turn_number + 1)
        turn = turns.next()
        assert turn is not None
        turns.done(turn[1])
        if turn[0] is patient:
            assert turn[1] == 0
            break
    assert turn_number == fair_turns


def test_who_leaves_has_no_turn_and_is_forgotten() -> None:
    turns: Turns[One] = Turns(active_max=1, fair_turns=8)
    stays, leaves = One(1, 4), One(2, 4)
    turns.wait(leaves, 1)
    turns.wait(stays, 2)
    for sequence in range(3, 1000):
        turns.leave(leaves)
        turns.wait(leaves, sequence)
    turns.leave(leaves)
    assert len(turns._by_age) <= 2 + GONE_KEPT_MAX + 1
    assert len(turns._by_urgency) <= 2 + GONE_KEPT_MAX + 1
    assert served(turns, 3) == [1]
    assert turns.is_idle
