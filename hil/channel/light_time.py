"""How long light takes along a link: constant, from a table of ranges, or from a function of time.

Range tables come from the orbits, sampled every few seconds to a minute, and are linear in between. A frame's delay is
that of the range at the instant when its last bit leaves.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from flightsw.errors import ConfigError

LIGHT_M_S: Final = 299_792_458
"""Speed of light in vacuum [m/s], exact. Source: SI Brochure, 9th edition, §2.2."""
NS_PER_KM: Final = 1e12 / LIGHT_M_S
"""Light time of one kilometre [ns/km]."""
ALWAYS_NS: Final = (-(1 << 63), (1 << 63) - 1)
"""First and last instant of all time [ns]; 292 years either way."""


class LightTime(Protocol):
    """One-way light time over time."""

    def delay_ns(self, at_ns: int) -> int:
        """Light time of a bit that leaves at an instant [ns], rounded to the nearest."""
        ...


class RangeFunction:
    """Light time from a function of time.

    Args:
        range_km: range at an instant [km], given the instant [ns].
    """

    __slots__ = ("_range_km",)

    def __init__(self, range_km: Callable[[int], float]) -> None:
        self._range_km = range_km

    def delay_ns(self, at_ns: int) -> int:
        """Light time of a bit that leaves at an instant [ns], rounded to the nearest."""
        return int(self._range_km(at_ns) * NS_PER_KM + 0.5)


class RangeTable:
    """Light time from a table of ranges, linear in between; the first and the last value hold before and after.

    Args:
        times_ns: `(n,)` instants, strictly increasing [ns].
        ranges_km: `(n,)` ranges at these instants [km].
        where: what the table belongs to, for the error.

    Raises:
        ConfigError: the table is empty, ragged, not increasing, or holds a negative range.
    """

    __slots__ = ("_at_from", "_delays_ns", "_from_ns", "_slope", "_times_ns", "_to_ns")

    def __init__(self, times_ns: Sequence[int], ranges_km: Sequence[float], where: str = "range table") -> None:
        self._times_ns = array("q", [int(time_ns) for time_ns in times_ns])
        # Rounding to the nearest is truncation of a value that is one half higher.
        self._delays_ns = array("d", [float(range_km) * NS_PER_KM + 0.5 for range_km in ranges_km])
        if not self._times_ns or len(self._times_ns) != len(self._delays_ns):
            counts = f"{len(self._times_ns)} times and {len(self._delays_ns)} ranges"
            raise ConfigError(f"{where}: {counts}, expected as many of both, at least one")
        for earlier_ns, later_ns in zip(self._times_ns, self._times_ns[1:], strict=False):
            if earlier_ns >= later_ns:
                raise ConfigError(f"{where}: time {later_ns} ns follows {earlier_ns} ns, expected increasing times")
        if not all(delay_ns >= 0.5 for delay_ns in self._delays_ns):  # also refuses NaN
            raise ConfigError(f"{where}: a range is negative or not a number, expected >= 0 km")
        self._from_ns, self._to_ns = 0, 0  # an empty piece, so that the first call seeks
        self._at_from, self._slope = 0.0, 0.0

    def delay_ns(self, at_ns: int) -> int:
        """Light time of a bit that leaves at an instant [ns], rounded to the nearest."""
        if not self._from_ns <= at_ns < self._to_ns:
            self._seek(at_ns)
        return int(self._at_from + self._slope * (at_ns - self._from_ns))

    def _seek(self, at_ns: int) -> None:
        times_ns, delays_ns = self._times_ns, self._delays_ns
        index = bisect_right(times_ns, at_ns)
        if index == 0:
            self._from_ns, self._to_ns = ALWAYS_NS[0], times_ns[0]
            self._at_from, self._slope = delays_ns[0], 0.0
        elif index == len(times_ns):
            self._from_ns, self._to_ns = times_ns[-1], ALWAYS_NS[1]
            self._at_from, self._slope = delays_ns[-1], 0.0
        else:
            self._from_ns, self._to_ns = times_ns[index - 1], times_ns[index]
            self._at_from = delays_ns[index - 1]
            self._slope = (delays_ns[index] - self._at_from) / (self._to_ns - self._from_ns)


def constant_range(range_km: float) -> RangeTable:
    """Light time of a range that does not change [km]. Raises: ConfigError."""
    return RangeTable([0], [range_km])
