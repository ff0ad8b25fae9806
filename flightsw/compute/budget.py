"""Admission: may the next step of a job run, given power, heat and the coming eclipse?

Pure: sensors, profile and the predicted sunlight in, a verdict out. A node never spends energy that it does not have;
as a forecast: after the step, it must still reach the end of the next eclipse on idle load with its reserve left.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from flightsw.config import BoardProfile, SunInterval
from flightsw.ports import Sensors

COOL_DOWN_K: Final = 5.0
"""A node that was too hot computes again this far below its limit [K]; without the gap it would flap every step."""

NS_PER_S: Final = 1_000_000_000


class Verdict(NamedTuple):
    """Whether a step may run, and if not, why."""

    allowed: bool
    reason: str = ""


class Budget:
    """Power and thermal budget of one node.

    Args:
        profile: the board and its bus.
        sun: predicted sunlit intervals, sorted, disjoint.
        reserve: charge share that must be left at the end of the next eclipse.
    """

    def __init__(self, profile: BoardProfile, sun: Sequence[SunInterval], reserve: float) -> None:
        self._sun = tuple(sun)
        self._starts_ns = [interval.start_ns for interval in self._sun]
        self.reserve = reserve
        """Charge share that must be left; may be set anew."""
        self._max_degc = profile.electronics_max_degc.value
        self._array_w = profile.array_w.value
        self._idle_w = profile.idle_w.value + profile.bus_w.value
        self._charge_efficiency = profile.charge_efficiency.value
        self._discharge_efficiency = profile.discharge_efficiency.value
        self._hot = False

    def may_step(self, sensors: Sensors, step_w: float, step_s: float, now_ns: int) -> Verdict:
        """Judge one step of `step_s` seconds that draws `step_w` on top of idle."""
        limit_degc = self._max_degc - (COOL_DOWN_K if self._hot else 0.0)
        self._hot = sensors.electronics_degc >= limit_degc
        if self._hot:
            return Verdict(False, f"temperature {sensors.electronics_degc:.1f} degC, limit {limit_degc:.1f} degC")
        floor_j = self.reserve * sensors.battery_j
        left_j = self.charge_after_eclipse_j(sensors, step_w, step_s, now_ns)
        if left_j < floor_j:
            return Verdict(False, f"energy {left_j:.0f} J at the end of eclipse, reserve {floor_j:.0f} J")
        return Verdict(True)

    def charge_after_eclipse_j(self, sensors: Sensors, step_w: float, step_s: float, now_ns: int) -> float:
        """Forecast charge [J] when sunlight next returns, if one step runs now and nothing after it."""
        charge_j = self._drain_j(sensors.charge_j, self._idle_w + step_w - sensors.solar_w, step_s)
        at_ns = now_ns + round(step_s * NS_PER_S)
        sunset_ns, sunrise_ns = self.eclipse_after(at_ns)
        if sunset_ns is None:
            return min(charge_j, sensors.battery_j)
        if sunset_ns > at_ns:
            charge_j = self._drain_j(charge_j, self._idle_w - self._array_w, (sunset_ns - at_ns) / NS_PER_S)
            charge_j = min(charge_j, sensors.battery_j)
        dark_from_ns = max(sunset_ns, at_ns)
        if sunrise_ns is None:  # the prediction ends in the dark: assume no more than it says
            return charge_j
        return self._drain_j(charge_j, self._idle_w, max(0, sunrise_ns - dark_from_ns) / NS_PER_S)

    def eclipse_after(self, at_ns: int) -> tuple[int | None, int | None]:
        """(sunset, sunrise) of the eclipse that holds now or comes next; None where the prediction ends."""
        index = bisect_right(self._starts_ns, at_ns) - 1
        lit = index >= 0 and at_ns < self._sun[index].end_ns
        following = self._sun[index + 1].start_ns if index + 1 < len(self._sun) else None
        if lit:
            return (self._sun[index].end_ns, following) if following is not None else (None, None)
        return (self._sun[index].end_ns if index >= 0 else at_ns, following)

    def _drain_j(self, charge_j: float, net_load_w: float, seconds: float) -> float:
        if net_load_w >= 0:
            return charge_j - net_load_w * seconds / self._discharge_efficiency
        return charge_j - net_load_w * seconds * self._charge_efficiency
