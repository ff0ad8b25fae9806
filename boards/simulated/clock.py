"""The clock of a simulated node: monotonic time is the loop's, mission time is a clock that drifts and jumps."""

from collections.abc import Callable
from typing import Final

PPB: Final = 1_000_000_000


class LoopClock:
    """Implements `flightsw.ports.Clock`.

    Args:
        now_ns: the loop's time [ns]; never jumps.
        epoch_utc_ns: true UTC when the loop's time is 0 [ns since 1970-01-01T00:00:00Z].
    """

    def __init__(self, now_ns: Callable[[], int], epoch_utc_ns: int) -> None:
        self._now_ns = now_ns
        self._anchor_ns = 0
        self._anchor_utc_ns = epoch_utc_ns
        self._drift_ppb = 0

    def monotonic_ns(self) -> int:
        """Time for timers [ns]."""
        return self._now_ns()

    def utc_ns(self) -> int:
        """Mission time [ns since 1970-01-01T00:00:00Z], as this clock has it."""
        elapsed_ns = self._now_ns() - self._anchor_ns
        return self._anchor_utc_ns + elapsed_ns + elapsed_ns * self._drift_ppb // PPB

    def jump(self, offset_ns: int) -> None:
        """Step mission time, forwards or backwards [ns]."""
        self._anchor_utc_ns += offset_ns

    def set_drift_ppb(self, drift_ppb: int) -> None:
        """Let mission time run fast (positive) or slow from now on [parts in 10**9]; it does not jump."""
        self._anchor_utc_ns, self._anchor_ns = self.utc_ns(), self._now_ns()
        self._drift_ppb = drift_ppb
