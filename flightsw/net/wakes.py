"""When the bundle agent is to be woken, and for what."""

from enum import IntEnum, unique
from heapq import heappop, heappush


@unique
class Cause(IntEnum):
    """Why a wake-up was asked for."""

    CONTACT = 0
    """A contact of a terminal begins or ends."""
    TRANSMIT = 1
    """A transmitter has room again."""
    SPAN = 2
    """A timer of LTP toward a neighbour."""
    SUSPICION = 3
    """A neighbour is given another chance."""
    SWEEP = 4
    """Bundles may have expired while they waited."""
    RETURN = 5
    """A bundle that came back may go the old way again."""


class Wakes:
    """A heap of wake-ups; those of the same instant come in the order in which they were asked for.

    None is ever taken out early: whoever asked knows which of its wake-ups is the one that counts.
    """

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Cause, int]] = []
        self._order = 0

    def first_ns(self) -> int | None:
        """The next wake-up, None when there is none [ns]."""
        return self._heap[0][0] if self._heap else None

    def add(self, when_ns: int, cause: Cause, index: int) -> None:
        """Ask for a wake-up; `index` says which terminal or neighbour it is about."""
        self._order += 1
        heappush(self._heap, (when_ns, self._order, cause, index))

    def pop_due(self, now_ns: int) -> tuple[int, Cause, int] | None:
        """(when [ns], cause, index) of the next wake-up that is due, None when none is left."""
        if self._heap and self._heap[0][0] <= now_ns:
            when_ns, _, cause, index = heappop(self._heap)
            return when_ns, cause, index
        return None
