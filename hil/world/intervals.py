"""Intervals in which a sampled function is positive, with ends between the samples.

An end is the zero of the cubic through the four samples around it. With samples every 10 s the cubic of an elevation
or of a shadow angle in low orbit is right to a few milliseconds; a straight line would err by seconds on a low pass. An
interval that lies wholly between two samples is not seen.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BISECTIONS: Final = 24
"""Halvings of the time between two samples: 60 s / 2**24 is 4 microseconds, far below what the orbit is good for."""
_BLOCK_SAMPLES: Final = 1 << 15
"""Samples worked on at once: the block's arrays (256 kB each) stay in the cache of a core."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of many rows, ordered by row and then by time; one entry per interval.

    Attributes:
        rows: (m,) row of the sampled function.
        first, last: (m,) first and last sample inside.
        start_s, end_s: (m,) where the function passes zero, or the first or last instant that was sampled.
    """

    rows: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


class Cubics:
    """Cubics through four samples each (fewer where there are fewer), in Newton's form.

    Args:
        values: (n, t) samples.
        times_s: (t,) instants of the samples, ascending.
        rows: (m,) row of each cubic.
        left: (m,) sample before the gap in which the cubic is used.
    """

    def __init__(
        self,
        values: NDArray[np.float64],
        times_s: NDArray[np.float64],
        rows: NDArray[np.intp],
        left: NDArray[np.intp],
    ) -> None:
        count = min(4, len(times_s))
        nodes = np.clip(left - 1, 0, len(times_s) - count)[:, None] + np.arange(count)
        self._times_s = times_s[nodes].T
        differences = list(values[rows[:, None], nodes].T.astype(np.float64))
        for order in range(1, count):
            for i in range(count - 1, order - 1, -1):
                span_s = self._times_s[i] - self._times_s[i - order]
                differences[i] = (differences[i] - differences[i - 1]) / span_s
        self._differences = differences

    def at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(m,) value of each cubic at its own instant (m,)."""
        value = self._differences[-1]
        for i in range(len(self._differences) - 2, -1, -1):
            value = value * (times_s - self._times_s[i]) + self._differences[i]
        return np.asarray(value)


def blocks(shape: tuple[int, ...]) -> list[slice]:
    """Slices of the first axis of an (n, t, ...) array that keep the temporary arrays small."""
    step = max(1, _BLOCK_SAMPLES // max(1, shape[1]))
    return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]


def positive_intervals(values: NDArray[np.float64], times_s: NDArray[np.float64]) -> Intervals:
    """Find where each row is positive.

    Args:
        values: (n, t) samples of a smooth function.
        times_s: (t,) instants of the samples, ascending.
    """
    padded = np.zeros((values.shape[0], values.shape[1] + 2), bool)
    np.greater(values, 0, out=padded[:, 1:-1])
    rows, edges = np.nonzero(padded[:, 1:] != padded[:, :-1])
    rows, first, last = rows[::2], edges[::2], edges[1::2] - 1
    start_s, end_s = times_s[first], times_s[last]
    rising, falling = np.flatnonzero(first > 0), np.flatnonzero(last < len(times_s) - 1)
    start_s[rising] = _zeros_s(values, times_s, rows[rising], first[rising] - 1)
    end_s[falling] = _zeros_s(values, times_s, rows[falling], last[falling])
    return Intervals(rows, first, last, start_s, end_s)


def _zeros_s(
    values: NDArray[np.float64], times_s: NDArray[np.float64], rows: NDArray[np.intp], left: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(m,) zero of each row between the samples `left` and `left + 1`, which lie on both sides of zero."""
    cubics = Cubics(values, times_s, rows, left)
    low_s, high_s = times_s[left], times_s[left + 1]
    is_rising = values[rows, left] <= 0
    for _ in range(BISECTIONS):
        middle_s = (low_s + high_s) / 2
        is_after = (cubics.at(middle_s) > 0) == is_rising
        high_s = np.where(is_after, middle_s, high_s)
        low_s = np.where(is_after, low_s, middle_s)
    return (low_s + high_s) / 2
