"""Which bytes of a block are there: a set of disjoint half-open intervals [lower, upper), in bytes.

LTP's reports claim what has arrived and thereby name the gaps (RFC 5326 §3.2.2); both ends of a session keep one.
"""

from bisect import bisect_left, bisect_right


class Coverage:
    """Disjoint intervals in rising order; touching intervals are merged."""

    __slots__ = ("_lowers", "_uppers")

    def __init__(self) -> None:
        self._lowers: list[int] = []
        self._uppers: list[int] = []

    def __len__(self) -> int:
        """How many intervals there are."""
        return len(self._lowers)

    def add(self, lower: int, upper: int) -> None:
        """Note that [lower, upper) is there; nothing happens when it is empty."""
        if lower >= upper:
            return
        lowers, uppers = self._lowers, self._uppers
        if uppers and uppers[-1] == lower:  # data that arrive in order, by far the most
            uppers[-1] = upper
            return
        first = bisect_left(uppers, lower)
        last = bisect_right(lowers, upper)
        if first < last:
            lower = min(lower, lowers[first])
            upper = max(upper, uppers[last - 1])
        lowers[first:last] = [lower]
        uppers[first:last] = [upper]

    def covers(self, lower: int, upper: int) -> bool:
        """Whether all of [lower, upper) is there."""
        if lower >= upper:
            return True
        index = bisect_right(self._lowers, lower) - 1
        return index >= 0 and self._uppers[index] >= upper

    def within(self, lower: int, upper: int) -> list[tuple[int, int]]:
        """The intervals that are there, cut to [lower, upper)."""
        found = []
        for index in range(bisect_right(self._uppers, lower), len(self._lowers)):
            if self._lowers[index] >= upper:
                break
            found.append((max(lower, self._lowers[index]), min(upper, self._uppers[index])))
        return found

    def gaps(self, lower: int, upper: int) -> list[tuple[int, int]]:
        """The intervals of [lower, upper) that are not there."""
        missing = []
        reached = lower
        for start, end in self.within(lower, upper):
            if start > reached:
                missing.append((reached, start))
            reached = end
        if reached < upper:
            missing.append((reached, upper))
        return missing
