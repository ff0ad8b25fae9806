"""A real event loop whose time may run faster than the machine's, and is shared by all programs of a run.

`time()` is mission time: seconds since T+0, the instant that the run's processes agree on by their wall clocks. It is
anchored once, when the loop is made, and then advances with the machine's monotonic clock times `time_scale`; a wall
clock that is set later changes nothing. So `asyncio.sleep(60)` takes one second at scale 60, and no flight code knows.

- **A timer never fires early**, and equal timers fire in the order in which they were armed, as in virtual time.
- **Waiting is exact to the kernel's timer, not to a millisecond.** `epoll_wait` waits whole milliseconds, which are 60
  of mission time at scale 60; the loop waits with `select` on the epoll descriptor itself instead.
- **An error that nobody takes ends the run**, as in virtual time: a program that lost a callback must not look alive.
"""

import asyncio
import contextvars
import heapq
import math
import select
import selectors
import time
from collections.abc import Callable
from typing import Any, Final, TypeVarTuple, Unpack

from flightsw.errors import ConfigError

Arguments = TypeVarTuple("Arguments")

SECOND_NS: Final = 1_000_000_000
PPM: Final = 1_000_000
TIME_SCALE_MAX: Final = 1000.0
"""Fastest time [mission s per s]: a millisecond of the machine is then a second of the mission, longer than most
timeouts of a link."""
TIME_SCALE_MIN: Final = 0.001
"""Slowest time [mission s per s]: one part in a million of it is still a nanosecond a second."""
SELECT_DESCRIPTOR_MAX: Final = 1023
"""Highest file descriptor that `select` takes: `FD_SETSIZE` - 1 of glibc."""


class PacedTimer(asyncio.TimerHandle):
    """A callback that waits for its instant."""

    __slots__ = ("order", "when_ns")
    when_ns: int
    """When it is due [ns since T+0]."""
    order: int
    """How many timers were armed up to it."""

    _scheduled: bool

    def __init__(
        self,
        when_ns: int,
        order: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "PacedLoop",
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(when_ns / SECOND_NS, callback, args, loop, context)
        self._scheduled = False
        self.when_ns = when_ns
        self.order = order

    def __lt__(self, other: object) -> bool:
        assert isinstance(other, PacedTimer), "the loop makes all its timers"
        return (self.when_ns, self.order) < (other.when_ns, other.order)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class _PacedSelector(selectors.EpollSelector):
    """Waits in mission time."""

    def __init__(self, time_scale: float) -> None:
        super().__init__()
        self._time_scale = time_scale

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As of the base class; the timeout is in mission seconds."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        wait_s = timeout / self._time_scale
        if self.fileno() > SELECT_DESCRIPTOR_MAX:
            return super().select(wait_s)
        select.select((self.fileno(),), (), (), wait_s)
        return super().select(0)


class PacedLoop(asyncio.SelectorEventLoop):
    """Runs asyncio code in real time: `asyncio.Runner(loop_factory=lambda: PacedLoop(zero_utc_ns, time_scale))`.

    Args:
        zero_utc_ns: real UTC of T+0 [ns since 1970-01-01T00:00:00Z]; it may lie in the future, then time is negative.
        time_scale: mission seconds per second of the machine, to the part per million.

    Raises:
        ConfigError: the scale is out of range.
    """

    callbacks_count: int
    """Always 0: a real loop does not count. Here for those who print it of either loop."""

    # Attributes of asyncio.BaseEventLoop that the loop builds on (CPython 3.11 to 3.13).
    _clock_resolution: float
    _closed = True  # until the base class has opened it: a loop that is refused has nothing to close
    _scheduled: list[PacedTimer]

    def __init__(self, zero_utc_ns: int, time_scale: float = 1.0) -> None:
        if not TIME_SCALE_MIN <= time_scale <= TIME_SCALE_MAX:
            raise ConfigError(f"time_scale is {time_scale:g}, expected {TIME_SCALE_MIN:g} to {TIME_SCALE_MAX:g}")
        self.zero_utc_ns = zero_utc_ns
        self.time_scale = time_scale
        self.callbacks_count = 0
        self._scale_ppm = round(time_scale * PPM)
        self._anchor_ns, anchor_utc_ns = _read_clocks()
        self._start_ns = (anchor_utc_ns - zero_utc_ns) * self._scale_ppm // PPM
        self._timers_count = 0
        self._failure: BaseException | None = None
        super().__init__(_PacedSelector(time_scale))
        self._clock_resolution = 0.0  # what is due within it would fire early

    # Time and callbacks

    @property
    def now_ns(self) -> int:
        """The instant [ns since T+0]; never runs back."""
        return self._start_ns + (time.monotonic_ns() - self._anchor_ns) * self._scale_ppm // PPM

    def time(self) -> float:
        """The instant [s since T+0]; for asyncio's own interface."""
        return self.now_ns / SECOND_NS

    def call_at_ns(
        self,
        when_ns: int,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> PacedTimer:
        """Run the callback at an instant [ns since T+0] or soon after, after those armed earlier for it; a past instant
        means now."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        self._timers_count += 1
        timer = PacedTimer(when_ns, self._timers_count, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> PacedTimer:
        """Run the callback at an instant [s since T+0], rounded up to the next nanosecond."""
        return self.call_at_ns(math.ceil(when * SECOND_NS), callback, *args, context=context)

    # Errors

    def run_forever(self) -> None:
        """Run until `stop`, or until an error that nobody takes: that is raised."""
        super().run_forever()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Take an error that no task will see: the first one ends the run, unless the user set a handler."""
        if self.get_exception_handler() is not None or not self.is_running() or self._failure is not None:
            super().call_exception_handler(context)
            return
        self._failure = untaken_error(context, f"at T{self.time():+.6f} s", AssertionError)
        self.stop()


def untaken_error(context: dict[str, Any], when: str, otherwise: type[Exception]) -> BaseException:
    """The error that an event loop found nobody to take, with a note of when and in what.

    Args:
        context: as asyncio gives it to an exception handler.
        when: how the note begins.
        otherwise: what to make of a finding without an error.
    """
    message = str(context.get("message", "error in the loop"))
    who = context.get("task") or context.get("future") or context.get("handle")
    note = f"{when}: {message}" + (f": {who!r}" if who else "")
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return otherwise(note)
    error.add_note(note)
    return error


def _read_clocks() -> tuple[int, int]:
    """(monotonic, UTC) [ns] of one instant, as near as two readings come."""
    before_ns = time.monotonic_ns()
    utc_ns = time.time_ns()
    return (before_ns + time.monotonic_ns()) // 2, utc_ns
