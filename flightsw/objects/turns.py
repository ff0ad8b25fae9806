"""Whose turn it is: pushes to one peer that wait to send a burst.

The rule. A peer has at most `active_max` bursts under way that are at least as urgent as the one that wants to start,
so that the urgent never wait for the less urgent. The most urgent push has the next turn; among equals the one that has
waited longest. One turn in `fair_turns` goes to whoever has waited longest, however little urgent, in the place of the
most urgent and at its priority: nobody starves while the link carries transfers at all.
"""

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

PRIORITIES_COUNT: Final = 8
"""Priorities are 0 (urgent) to 7."""
GONE_KEPT_MAX: Final = 64
"""Entries of those who left before their turn; more are swept out at once, or asking and cancelling would add up."""


class Turn(Protocol):
    """What waits."""

    priority: int
    waiting_since: int
    """A number that rises with each wait, 0 while it does not wait."""


Waiting = TypeVar("Waiting", bound=Turn)


class Turns(Generic[Waiting]):
    """Those who wait for one peer, and how many bursts are under way to it.

    Args:
        active_max: bursts under way at a time, of those at least as urgent.
        fair_turns: of so many turns, one goes to who has waited longest.
    """

    def __init__(self, active_max: int, fair_turns: int) -> None:
        self.waiting_count = 0
        self._active_max = active_max
        self._fair_turns = fair_turns
        self._active = [0] * PRIORITIES_COUNT
        """Bursts under way by priority."""
        self._turns_count = 0
        self._by_urgency: list[tuple[int, int, Waiting]] = []
        self._by_age: deque[tuple[int, Waiting]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits and nothing is under way."""
        return not self.waiting_count and not any(self._active)

    def wait(self, one: Waiting, sequence: int) -> None:
        """Let one wait that does not wait yet; `sequence` rises with each call."""
        assert not one.waiting_since, "nobody waits twice"
        one.waiting_since = sequence
        self.waiting_count += 1
        heappush(self._by_urgency, (one.priority, sequence, one))
        self._by_age.append((sequence, one))

    def leave(self, one: Waiting) -> None:
        """Wait no longer."""
        if not one.waiting_since:
            return
        one.waiting_since = 0
        self.waiting_count -= 1
        if len(self._by_age) > 2 * self.waiting_count + GONE_KEPT_MAX:
            self._by_age = deque(entry for entry in self._by_age if entry[1].waiting_since == entry[0])
            self._by_urgency = [entry for entry in self._by_urgency if entry[2].waiting_since == entry[1]]
            heapify(self._by_urgency)

    def next(self) -> tuple[Waiting, int] | None:
        """Who sends a burst now, and at which priority; None when nobody may. Call `done` with that priority after."""
        self._forget_gone()
        if not self._by_urgency:
            return None
        priority, _, one = self._by_urgency[0]
        if sum(self._active[: priority + 1]) >= self._active_max:
            return None
        self._turns_count += 1
        if self._turns_count % self._fair_turns == 0:
            one = self._by_age[0][1]
        self.leave(one)
        self._active[priority] += 1
        return one, priority

    def done(self, priority: int) -> None:
        """A burst is answered, or its push has ended."""
        self._active[priority] -= 1

    def _forget_gone(self) -> None:
        """Drop entries of those who left, or wait anew."""
        while self._by_urgency and self._by_urgency[0][2].waiting_since != self._by_urgency[0][1]:
            heappop(self._by_urgency)
        while self._by_age and self._by_age[0][1].waiting_since != self._by_age[0][0]:
            self._by_age.popleft()
