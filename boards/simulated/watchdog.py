"""The watchdog of a simulated node: a timer on the bench's loop, outside flight code, that resets the node.

It holds one timer whatever the strokes: when that fires before the deadline of the last stroke, it is set again for the
rest.
"""

import asyncio
from collections.abc import Callable
from typing import Final

NS_PER_S: Final = 1_000_000_000


class SimulatedWatchdog:
    """Implements `flightsw.ports.Watchdog`. It sleeps until the first stroke.

    Args:
        now_ns: monotonic time.
        expired: called once when no stroke came in time.
    """

    def __init__(self, now_ns: Callable[[], int], expired: Callable[[], None]) -> None:
        self._now_ns = now_ns
        self._expired = expired
        self._deadline_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def stroke(self, timeout_s: float) -> None:
        """Expire unless the next stroke comes within this time [s]."""
        self._deadline_ns = self._now_ns() + round(timeout_s * NS_PER_S)
        if self._timer is None:
            self._arm(timeout_s)

    def stop(self) -> None:
        """Sleep again: the node has no power."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        left_ns = self._deadline_ns - self._now_ns()
        if left_ns > 0:
            self._arm(left_ns / NS_PER_S)
        else:
            self._expired()
