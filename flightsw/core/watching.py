"""Watchpoints at work: samples of one cycle in, bits out.

What all nodes with the same rules share is a plan: the watchpoints sorted by what judging them takes, with thresholds
turned into `above` and `below`. What a node remembers of its last samples are three lists, with a place for each
watchpoint that looks at more than the present value. A cycle in which nothing is wrong costs a comparison or two for
each watchpoint: thousands of nodes run in one process.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import inf, nextafter
from typing import Any, Final, NamedTuple

from flightsw.component import Scalar
from flightsw.dictionary.limit_rules import SETS_MAX, Compare, RuleSet, Watchpoint

NS_PER_S: Final = 1_000_000_000


class Bits(NamedTuple):
    """The watchpoints of each result; those in none of the first three are FALSE."""

    true: int
    stale: int
    error: int
    held: int
    """Those without a new sample that are not STALE yet: they keep their result."""


Bound = tuple[Compare, Any, str]
"""What something that moves is compared with: (how, with what, or the parameter that says so)."""


class Plan(NamedTuple):
    """The watchpoints of a set, sorted by what judging them takes. Each entry starts with (bit, key)."""

    above: tuple[tuple[int, str, float], ...]
    """TRUE above a number."""
    below: tuple[tuple[int, str, float], ...]
    """TRUE below a number."""
    others: tuple[tuple[int, str, Compare, Scalar], ...]
    """TRUE when equal to a number or text, or when not."""
    tuned: tuple[tuple[int, str, Compare, str], ...]
    """Compared with a parameter, by its key."""
    rates: tuple[tuple[int, str, Bound, int, int], ...]
    """With the place of what is remembered, and the longest time between two samples [ns]."""
    rises: tuple[tuple[int, str, Bound, int, float, bool | None], ...]
    """With that place, half the window [ns], and whether it is TRUE for 0, which most counters rise by; None where a
    parameter decides."""
    steadies: tuple[tuple[int, str, Bound, int], ...]
    ages: tuple[tuple[int, str, Bound, bool | None], ...]
    """As `rises`: the age of what is there is 0."""
    tracks_count: int
    """How many have something to remember."""
    patience_ns: tuple[tuple[int, str, int], ...]
    """With the time without a sample after which it is STALE [ns], of each that can be."""
    keys: tuple[str, ...]
    """What is watched, each once."""


@lru_cache(maxsize=SETS_MAX)
def plan_of(rules: RuleSet) -> Plan:
    """The plan of a set; one for all nodes of a process."""
    above, below, others, tuned = [], [], [], []
    moving: dict[str, list[Any]] = {"rate": [], "rise": [], "steady": [], "age": []}
    tracks_count = 0
    for watch in rules.watchpoints:
        bit, (function, key, window_s, sign, threshold, parameter) = watch.bit, watch.comparison
        at_zero = None if parameter or isinstance(threshold, str) else watch.compare(0.0, threshold)
        bound = (watch.compare, threshold, parameter)
        if function == "age":
            moving[function].append((bit, key, bound, at_zero))
        elif function == "rise":
            moving[function].append((bit, key, bound, tracks_count, window_s * NS_PER_S / 2, at_zero))
        elif function == "rate":
            moving[function].append((bit, key, bound, tracks_count, watch.stale_after_ns))
        elif function:
            moving[function].append((bit, key, bound, tracks_count))
        elif parameter:
            tuned.append((bit, key, watch.compare, parameter))
        elif isinstance(threshold, str) or sign in ("==", "!="):
            others.append((bit, key, watch.compare, threshold))
        elif sign in (">", ">="):
            above.append((bit, key, threshold if sign == ">" else nextafter(threshold, -inf)))
        else:
            below.append((bit, key, threshold if sign == "<" else nextafter(threshold, inf)))
        tracks_count += function in ("rise", "rate", "steady")
    return Plan(
        above=tuple(above),
        below=tuple(below),
        others=tuple(others),
        tuned=tuple(tuned),
        rates=tuple(moving["rate"]),
        rises=tuple(moving["rise"]),
        steadies=tuple(moving["steady"]),
        ages=tuple(moving["age"]),
        tracks_count=tracks_count,
        patience_ns=tuple(
            (watch.bit, watch.comparison.key, watch.stale_after_ns)
            for watch in rules.watchpoints
            if watch.comparison.function != "age"
        ),
        keys=tuple(dict.fromkeys(watch.comparison.key for watch in rules.watchpoints)),
    )


class Watching:
    """The watchpoints of one node.

    Args:
        rules: what is watched.
        parameter: key -> value of a parameter.
        started_ns: from when on samples are missed [monotonic ns].
    """

    def __init__(self, rules: RuleSet, parameter: Callable[[str], Scalar], started_ns: int) -> None:
        self._plan = plan_of(rules)
        self._parameter = parameter
        self._values: list[Any] = [None] * self._plan.tracks_count
        """Of the last sample, or at the last mark, by the place in the plan; None before the first."""
        self._befores: list[Any] = [None] * self._plan.tracks_count
        """At the mark before."""
        self._marks_ns = [0] * self._plan.tracks_count
        """When the values were taken [monotonic ns]."""
        self._seen_ns: dict[str, int] = {}
        """When a sample was last there, while one is missing [monotonic ns]."""
        self._whole_ns = started_ns
        """When all samples were last there [monotonic ns]."""
        self._last = Bits(0, 0, 0, 0)
        self._is_whole = True
        """Whether all samples are there whose age is watched."""
        self.readings: Mapping[str, Scalar] = {}
        """The samples of the last cycle."""
        self.judged_count = 0
        """Watchpoints that were judged on a new sample."""

    def judge(self, samples: Mapping[str, Any], now_ns: int) -> Bits:
        """Judge the samples of one cycle, which were taken now; what is not among them is missing."""
        plan, get = self._plan, samples.get
        self.readings = samples
        true = error = missing = 0
        for bit, key, threshold in plan.above:
            value = get(key)
            if value is None:
                missing |= bit
            elif value > threshold:
                if value < inf:
                    true |= bit
                else:
                    error |= bit
            elif not value > -inf:
                error |= bit
        for bit, key, threshold in plan.below:
            value = get(key)
            if value is None:
                missing |= bit
            elif value < threshold:
                if value > -inf:
                    true |= bit
                else:
                    error |= bit
            elif not value < inf:
                error |= bit
        for bit, key, compare, other in plan.others:
            value = get(key)
            if value is None:
                missing |= bit
            elif value != value or value in (inf, -inf):
                error |= bit
            elif compare(value, other):
                true |= bit
        for bit, key, compare, parameter in plan.tuned:
            value = get(key)
            if value is None:
                missing |= bit
            elif value != value or value in (inf, -inf):
                error |= bit
            elif compare(value, self._parameter(parameter)):
                true |= bit
        moved, wrong, unknown = self._judge_moving(get, now_ns)
        true |= moved
        error |= wrong
        missing |= unknown
        if not missing and not self._seen_ns and self._is_whole:
            self._whole_ns = now_ns
            self.judged_count += len(plan.patience_ns)
            if true != self._last.true or error != self._last.error or self._last.stale or self._last.held:
                self._last = Bits(true, 0, error, 0)
            return self._last
        return self._sort_missing(true, error, missing, now_ns)

    def text(self, watch: Watchpoint) -> str:
        """A watchpoint with its present reading, for events."""
        value = self.readings.get(watch.comparison.key)
        shown = f"{value:.6g}" if isinstance(value, float) else value
        return f"{watch.name} ({watch.when}; reads {'nothing' if value is None else shown})"

    def _judge_moving(self, get: Callable[[str], Any], now_ns: int) -> tuple[int, int, int]:
        """The bits that are TRUE, in error, and without enough samples, of those that look at more than the value."""
        plan, values, befores, marks_ns = self._plan, self._values, self._befores, self._marks_ns
        true = error = missing = 0
        for bit, key, bound, place, half_ns, is_true_at_zero in plan.rises:
            value = get(key)
            if value is None:
                missing |= bit
            elif value != befores[place] or value != values[place]:
                found = self._rise(place, value, now_ns, half_ns)
                if not -inf < found < inf:
                    error |= bit
                elif self._holds(bound, found):
                    true |= bit
            elif is_true_at_zero or (is_true_at_zero is None and self._holds(bound, 0.0)):
                true |= bit
        for bit, key, bound, place, gap_ns_max in plan.rates:
            value = get(key)
            rate = None if value is None else self._rate(place, value, now_ns, gap_ns_max)
            if rate is None:
                missing |= bit
            elif not -inf < rate < inf:
                error |= bit
            elif self._holds(bound, rate):
                true |= bit
        for bit, key, (compare, threshold, parameter), place in plan.steadies:
            value = get(key)
            if value is None:
                missing |= bit
                continue
            if value != values[place]:
                values[place], marks_ns[place] = value, now_ns
            if compare((now_ns - marks_ns[place]) / NS_PER_S, self._parameter(parameter) if parameter else threshold):
                true |= bit
        self._is_whole = True
        for bit, key, bound, is_true_at_zero in plan.ages:
            if get(key) is None:
                self._is_whole = False
                if self._holds(bound, (now_ns - self._seen_ns.get(key, self._whole_ns)) / NS_PER_S):
                    true |= bit
            elif is_true_at_zero or (is_true_at_zero is None and self._holds(bound, 0.0)):
                true |= bit
        return true, error, missing

    def _holds(self, bound: Bound, value: float) -> bool:
        compare, threshold, parameter = bound
        return compare(value, self._parameter(parameter) if parameter else threshold)

    def _rate(self, place: int, value: float, now_ns: int, gap_ns_max: int) -> float | None:
        """The change since the last sample [per second]; None for the first one, also after a gap."""
        before, gap_ns = self._values[place], now_ns - self._marks_ns[place]
        self._values[place], self._marks_ns[place] = value, now_ns
        if before is None or gap_ns > gap_ns_max or gap_ns <= 0:
            return None
        rate: float = (value - before) * NS_PER_S / gap_ns
        return rate

    def _rise(self, place: int, value: float, now_ns: int, half_ns: float) -> float:
        """The change since the mark before the last; a mark is set every half window."""
        values, befores, marks_ns = self._values, self._befores, self._marks_ns
        if values[place] is None:
            befores[place], values[place], marks_ns[place] = value, value, now_ns
        elif now_ns - marks_ns[place] >= half_ns:
            befores[place], values[place], marks_ns[place] = values[place], value, now_ns
        rise: float = value - befores[place]
        return rise

    def _sort_missing(self, true: int, error: int, missing: int, now_ns: int) -> Bits:
        """What is missing keeps its result until its patience ends."""
        stale = held = 0
        for key in self._plan.keys:
            if key in self.readings:
                self._seen_ns[key] = now_ns
            else:
                self._seen_ns.setdefault(key, self._whole_ns)
        for bit, key, patience_ns in self._plan.patience_ns:
            if not missing & bit:
                self.judged_count += 1
            elif now_ns - self._seen_ns[key] >= patience_ns:
                stale |= bit
            else:
                held |= bit
        if all(key in self.readings for key in self._plan.keys):
            self._seen_ns.clear()
            self._whole_ns = now_ns
        last = self._last
        self._last = Bits(true | last.true & held, stale | last.stale & held, error | last.error & held, held)
        return self._last
