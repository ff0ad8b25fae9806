"""Time correlation: how far each node's mission time is off, how fast its clock drifts, and how sure that is.

The ground asks (`TimeQuery`) and the node answers with its clocks at that instant (`TimeReply`). The node's reading was
taken between the sending and the answer, so true time then was the middle of the two, give or take half the round trip:
a bound that holds whatever the link did. The light time of the contact plan is the cross-check: half a round trip of
much more waited in a queue; of less, something is wrong with clocks or plan.

Readings are of the node's *clock*, without what was corrected (`flightsw.core.mission_time`), so they stay comparable
when mission time is corrected, and over resets. Drift is taken from the two readings that bound it best, the offset
from the one that, carried on by the drift, is surest now. A clock that moved more than it can drift was lost or set:
what was known of it is forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final, NamedTuple

from flightsw.ports import Clock
from flightsw.wire.messages import TimeQuery, TimeReply

NS_PER_S: Final = 1_000_000_000
PPB: Final = 1_000_000_000

READINGS_MAX: Final = 32
"""Readings that are kept of a node: of a pass each, two days; 496 pairs to look at."""
ROUND_TRIP_NS_MAX: Final = 10 * NS_PER_S
"""Longest round trip whose answer counts [ns]: what waited longer says less than the next one will."""
CLOCK_DRIFT_PPB_MAX: Final = 200_000
"""Fastest drift of a sound clock [ppb]: as of `flightsw.core.mission_time.DRIFT_PPB_MAX`."""
OPEN_MAX: Final = 4096
"""Queries without an answer that are remembered: one for each node of the largest fleet."""


class Reading(NamedTuple):
    """One answer of a node."""

    true_ns: int
    """UTC when the node read its clocks [ns], give or take the bound."""
    bound_ns: int
    """Half the round trip [ns]."""
    light_time_ns: int | None
    """One way, by the contact plan [ns]; None when there was no direct contact."""
    reply: TimeReply

    @property
    def clock_offset_ns(self) -> int:
        """What the node's clock is ahead of true time [ns]."""
        return self.reply.clock_ns - self.true_ns


class Estimate(NamedTuple):
    """What is known of a node's time, at the instant of the newest reading."""

    offset_ns: int
    """Mission time less true time [ns]."""
    offset_bound_ns: int
    """The offset is sure to this [ns]."""
    drift_ppb: float | None
    """How much faster than true time its clock runs; None while the readings say less than that it is sound."""
    drift_bound_ppb: float | None
    readings_count: int
    newest: Reading


class Correction(NamedTuple):
    """Arguments of TIME.ADJUST that would put a node's mission time right."""

    offset_ns: int
    rate_ppb: int
    correlation: int


@dataclass(slots=True)
class _Known:
    """What is known of one node."""

    readings: list[Reading] = field(default_factory=list)
    asked_ns: int | None = None
    """When it was asked last [monotonic ns]."""


class TimeCorrelation:
    """Asks nodes for their time and works out what they answer.

    Args:
        clock: the ground's; its UTC is what is true.
        light_time_ns: one-way light time to a node now [ns] by the contact plan, None without a direct contact.
        send: takes (node, query).
        period_s: a node in direct contact is asked this often [s]; 0: only when somebody asks.
        nodes: of the fleet.
    """

    def __init__(
        self,
        clock: Clock,
        light_time_ns: Callable[[int, int], int | None],
        send: Callable[[int, TimeQuery], None],
        period_s: float = 0.0,
        nodes: tuple[int, ...] = (),
    ) -> None:
        self._clock = clock
        self._light_time_ns = light_time_ns
        self._send = send
        self._period_ns = round(period_s * NS_PER_S)
        self._nodes = nodes
        self._known: dict[int, _Known] = {}
        self._open: dict[int, tuple[int, int, int, int | None]] = {}
        """Number of a query -> (node, sent [monotonic ns], sent [UTC ns], light time [ns])."""
        self._next_number = 1
        self.refused_count = 0
        """Answers that nobody asked for, or that came too late."""

    def ask(self, node: int) -> int:
        """Send a query; returns its number."""
        now_ns = self._clock.monotonic_ns()
        number, self._next_number = self._next_number, self._next_number + 1
        self._open[number] = (node, now_ns, self._clock.utc_ns(), self._light_time_ns(node, now_ns))
        if len(self._open) > OPEN_MAX:
            del self._open[next(iter(self._open))]
        self._known.setdefault(node, _Known()).asked_ns = now_ns
        self._send(node, TimeQuery(number))
        return number

    def round(self, now_ns: int) -> None:
        """Ask the nodes whose turn has come and that are in direct contact."""
        if not self._period_ns:
            return
        for node in self._nodes:
            known = self._known.get(node)
            asked_ns = None if known is None else known.asked_ns
            if asked_ns is not None and now_ns - asked_ns < self._period_ns:
                continue
            if self._light_time_ns(node, now_ns) is not None:
                self.ask(node)

    def receive(self, reply: TimeReply) -> Reading | None:
        """Take an answer; returns what it says, None when it does not count."""
        asked = self._open.get(reply.number)
        if asked is None or asked[0] != reply.node:
            self.refused_count += 1
            return None
        del self._open[reply.number]
        _, sent_ns, sent_utc_ns, light_time_ns = asked
        round_trip_ns = self._clock.monotonic_ns() - sent_ns
        if round_trip_ns > ROUND_TRIP_NS_MAX:
            self.refused_count += 1
            return None
        half_ns = -(-round_trip_ns // 2)
        reading = Reading(sent_utc_ns + round_trip_ns // 2, half_ns, light_time_ns, reply)
        known = self._known.setdefault(reply.node, _Known())
        if known.readings and not _is_same_clock(known.readings[-1], reading):
            known.readings.clear()
        known.readings.append(reading)
        if len(known.readings) > READINGS_MAX:
            del known.readings[1]  # the first bounds the drift
        return reading

    def estimate(self, node: int) -> Estimate | None:
        """What is known of a node's time; None before its first answer."""
        known = self._known.get(node)
        if known is None or not known.readings:
            return None
        readings = known.readings
        newest = readings[-1]
        drift_ppb, drift_bound_ppb = _drift(readings)
        carried_ppb = 0.0 if drift_ppb is None else drift_ppb
        unsure_ppb = float(CLOCK_DRIFT_PPB_MAX) if drift_bound_ppb is None else drift_bound_ppb

        def bound_ns(reading: Reading) -> int:
            return reading.bound_ns + round(abs(newest.true_ns - reading.true_ns) * unsure_ppb / PPB)

        best = min(readings, key=bound_ns)
        clock_ns = best.clock_offset_ns + round((newest.true_ns - best.true_ns) * carried_ppb / PPB)
        stcf_ns = newest.reply.mission_ns - newest.reply.clock_ns
        # when the newest was read is known to its bound only, and the clock drifts meanwhile
        sure_ns = bound_ns(best) - -newest.bound_ns * CLOCK_DRIFT_PPB_MAX // PPB
        return Estimate(clock_ns + stcf_ns, sure_ns, drift_ppb, drift_bound_ppb, len(readings), newest)

    def correction(self, node: int) -> Correction | None:
        """What to command so that the node's mission time is right; None before its first answer.

        The rate is left alone while the drift is known less surely than it is large.
        """
        found = self.estimate(node)
        if found is None:
            return None
        reply = found.newest.reply
        rate_ppb = reply.rate_ppb
        if found.drift_ppb is not None and found.drift_bound_ppb is not None:
            is_sure = abs(found.drift_ppb + rate_ppb) > found.drift_bound_ppb
            rate_ppb = -round(found.drift_ppb) if is_sure else rate_ppb
        return Correction(-found.offset_ns, rate_ppb, reply.correlation)


def _is_same_clock(before: Reading, after: Reading) -> bool:
    """Whether a clock can have drifted from one reading to the other."""
    elapsed_ns = after.true_ns - before.true_ns
    moved_ns = abs(after.clock_offset_ns - before.clock_offset_ns)
    return moved_ns <= before.bound_ns + after.bound_ns + abs(elapsed_ns) * CLOCK_DRIFT_PPB_MAX // PPB


def _drift(readings: list[Reading]) -> tuple[float | None, float | None]:
    """Drift and its bound [ppb] by the two readings that bound it best; None while any sound clock might have it."""
    best: tuple[float, float] | None = None
    for before, after in combinations(readings, 2):
        elapsed_ns = after.true_ns - before.true_ns
        if elapsed_ns <= 0:
            continue
        bound_ppb = (before.bound_ns + after.bound_ns) * PPB / elapsed_ns
        if bound_ppb < (CLOCK_DRIFT_PPB_MAX if best is None else best[1]):
            best = (after.clock_offset_ns - before.clock_offset_ns) * PPB / elapsed_ns, bound_ppb
    return (None, None) if best is None else best
