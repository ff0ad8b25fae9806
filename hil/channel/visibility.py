"""When bits can pass between two ends: windows, outages, and the acquisition that follows both.

Both directions of a link share one schedule, hence both ends acquire at the same instant.

```text
 no contact │ acquiring │ up ......... │ outage │ acquiring │ up ..... │ no contact
            AOS         first bit                           first bit  LOS
```

A link to which no window was ever given is always in view and starts acquired (an in-plane laser link that was up
before the run began); its outages still end with an acquisition. Every window and every outage draws one number when it
is added, whatever the acquisition range; the range in force when the acquisition is first looked at turns it into a
time. So a change of the range never shifts the draws.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final

from flightsw.errors import ConfigError
from flightsw.ports import Random
from hil.channel.light_time import ALWAYS_NS, LightTime, RangeFunction, RangeTable, constant_range

SECOND_NS: Final = 1_000_000_000


@unique
class Sight(IntEnum):
    """What stands between the two ends at an instant."""

    UP = 0
    NO_CONTACT = 1
    OUTAGE = 2
    ACQUIRING = 3


@dataclass(slots=True, order=True)
class Spell:
    """A window or an outage, half open [start_ns, end_ns), with the draw for the acquisition that belongs to it."""

    start_ns: int
    end_ns: int
    chance: float = field(compare=False)
    """Uniform in [0, 1): where in the acquisition range this acquisition falls."""
    light_time: LightTime | None = field(default=None, compare=False)
    """Light time in the window, if it has its own table."""
    acquisition_ns: int | None = field(default=None, compare=False)
    """Fixed when the acquisition is first looked at."""


class Visibility:
    """Windows, outages and acquisitions of one link. Times are monotonic nanoseconds; any order of queries is allowed.

    Args:
        name: name of the link, for errors and for the stream of its acquisitions.
        random_for: gives the stream of a name.
        range_km: range where a window has no table of its own [km].

    Raises:
        ConfigError: the range is negative.
    """

    def __init__(self, name: str, random_for: Callable[[str], Random], range_km: float = 0.0) -> None:
        self.name = name
        self.acquisition_s: tuple[float, float] = (0.0, 0.0)
        self.version = 0
        """Grows with each change that may strike frames already handed to a transmitter."""
        self.light_time: LightTime = constant_range(range_km)
        """Light time of the segment looked at last."""
        self.up_from_ns, self.up_to_ns = 1, 0
        """The segment looked at last, where bits pass; empty where they do not."""
        self._default_light_time: LightTime = self.light_time
        self._watchers: list[Callable[[], None]] = []
        self._random_for = random_for
        self._random: Random | None = None
        self._windows: list[Spell] = []
        self._outages: list[Spell] = []

    def set_range(self, times_ns: Sequence[int], ranges_km: Sequence[float]) -> None:
        """Set the range where a window has no table of its own.

        Args:
            times_ns: `(n,)` instants, strictly increasing [ns].
            ranges_km: `(n,)` ranges [km]; linear in between, the first and the last hold before and after.

        Raises:
            ConfigError: the table is empty, ragged, not increasing, or holds a negative range.
        """
        self._default_light_time = RangeTable(times_ns, ranges_km, f"link {self.name}")
        self._forget()

    def set_range_function(self, range_km: Callable[[int], float]) -> None:
        """Set the range [km] as a function of the instant [ns], where a window has no table of its own."""
        self._default_light_time = RangeFunction(range_km)
        self._forget()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call back whenever a window is added."""
        self._watchers.append(changed)

    def add_window(
        self, start_ns: int, end_ns: int, times_ns: Sequence[int] = (), ranges_km: Sequence[float] = ()
    ) -> None:
        """Plan an interval of sight; with the first one, the link is in view in its windows only.

        Args:
            start_ns: AOS, the first instant of sight [ns].
            end_ns: LOS, the first instant without [ns].
            times_ns: `(n,)` instants of the range table, if the window has its own [ns].
            ranges_km: `(n,)` ranges [km].

        Raises:
            ConfigError: the window is empty or overlaps another of this link, or the range table is wrong.
        """
        window = self._spell(start_ns, end_ns, "window")
        if len(times_ns) or len(ranges_km):
            window.light_time = RangeTable(times_ns, ranges_km, f"link {self.name}")
        index = bisect_right(self._windows, window)
        for other in self._windows[max(index - 1, 0) : index + 1]:
            if other.start_ns < end_ns and start_ns < other.end_ns:
                raise ConfigError(
                    f"link {self.name}: window [{start_ns}, {end_ns}) ns overlaps [{other.start_ns}, {other.end_ns}) ns"
                )
        self._windows.insert(index, window)
        self._forget()
        for changed in self._watchers:
            changed()

    def add_outage(self, start_ns: int, end_ns: int) -> None:
        """Break the link for an interval; its end is followed by an acquisition if the link is still in view then.

        Outages that touch or overlap become one, and have one acquisition.

        Raises:
            ConfigError: the outage is empty.
        """
        outage = self._spell(start_ns, end_ns, "outage")
        apart: list[Spell] = []
        for other in self._outages:
            if other.end_ns < outage.start_ns or outage.end_ns < other.start_ns:
                apart.append(other)
            else:
                last = other if other.end_ns > outage.end_ns else outage
                outage = Spell(min(other.start_ns, outage.start_ns), last.end_ns, last.chance)
        insort(apart, outage)
        self._outages = apart
        self.version += 1
        self._forget()

    def windows(self) -> list[tuple[int, int]]:
        """Planned windows (start_ns, end_ns) in order; all of time for a link without windows."""
        return [(window.start_ns, window.end_ns) for window in self._windows] if self._windows else [ALWAYS_NS]

    def sight(self, at_ns: int) -> Sight:
        """What stands between the ends at an instant."""
        return self._look(at_ns)[0]

    def blockage(self, begin_ns: int, done_ns: int) -> Sight:
        """What stops a frame whose bits leave in [begin_ns, done_ns], or UP when it passes."""
        sight, until_ns = self._look(begin_ns)
        if sight is not Sight.UP or done_ns <= until_ns:
            return sight
        return self._look(until_ns)[0]

    def next_aos_ns(self, at_ns: int) -> int | None:
        """Start of the next planned window after an instant, or None where none is planned."""
        index = bisect_right(self._windows, at_ns, key=_start_ns)
        return self._windows[index].start_ns if index < len(self._windows) else None

    def until_ns(self, at_ns: int) -> int:
        """End of the present condition: of the acquisition, the outage, the contact, or the time without."""
        return self._look(at_ns)[1]

    def _spell(self, start_ns: int, end_ns: int, what: str) -> Spell:
        if start_ns >= end_ns:
            raise ConfigError(f"link {self.name}: {what} [{start_ns}, {end_ns}) ns is empty, expected start < end")
        if self._random is None:
            self._random = self._random_for(f"{self.name}/acquisition")
        return Spell(start_ns, end_ns, self._random.random())

    def _forget(self) -> None:
        self.up_from_ns, self.up_to_ns = 1, 0

    def _look(self, at_ns: int) -> tuple[Sight, int]:
        """The condition at an instant and the instant until which it lasts; remembers the segment when bits pass."""
        window: Spell | None = None
        view_from_ns, view_to_ns = ALWAYS_NS
        if self._windows:
            index = bisect_right(self._windows, at_ns, key=_start_ns)
            window = self._windows[index - 1] if index else None
            if window is None or at_ns >= window.end_ns:
                next_ns = self._windows[index].start_ns if index < len(self._windows) else ALWAYS_NS[1]
                return Sight.NO_CONTACT, next_ns
            view_from_ns, view_to_ns = window.start_ns, window.end_ns
        broken = window  # what the ends have to recover from
        up_from_ns, up_to_ns = view_from_ns, view_to_ns
        index = bisect_right(self._outages, at_ns, key=_start_ns)
        if index:
            last = self._outages[index - 1]
            if at_ns < last.end_ns:
                return Sight.OUTAGE, min(last.end_ns, view_to_ns)
            if last.end_ns > view_from_ns:
                broken, up_from_ns = last, last.end_ns
        if index < len(self._outages):
            up_to_ns = min(up_to_ns, self._outages[index].start_ns)
        if broken is not None:
            up_from_ns += self._acquisition_ns(broken)
            if at_ns < up_from_ns:
                return Sight.ACQUIRING, min(up_from_ns, up_to_ns)
        own = window.light_time if window is not None else None
        self.light_time = own if own is not None else self._default_light_time
        self.up_from_ns, self.up_to_ns = up_from_ns, up_to_ns
        return Sight.UP, up_to_ns

    def _acquisition_ns(self, spell: Spell) -> int:
        if spell.acquisition_ns is None:
            shortest_s, longest_s = self.acquisition_s
            spell.acquisition_ns = round((shortest_s + spell.chance * (longest_s - shortest_s)) * SECOND_NS)
        return spell.acquisition_ns


def _start_ns(spell: Spell) -> int:
    return spell.start_ns
