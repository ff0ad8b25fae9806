"""How late things happen in real time: the measure of whether the machine keeps up."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

BUCKET_NS: Final = 10_000
"""Resolution of the distribution [mission ns at scale 1]: well below the jitter of a timer."""
SHARE_HALF: Final = 0.5
SHARE_TAIL: Final = 0.99


class Lateness:
    """A distribution of delays.

    Args:
        time_scale: mission seconds in a second of the machine.
    """

    def __init__(self, time_scale: float = 1.0) -> None:
        self._bucket_ns = BUCKET_NS * time_scale
        self._time_scale = time_scale
        self._buckets: Counter[int] = Counter()

    def note(self, late_ns: int) -> None:
        """Add one delay [mission ns]."""
        self._buckets[int(late_ns / self._bucket_ns)] += 1

    def real_ms(self, share: float) -> float:
        """Delay that this share did not exceed [ms of the machine]; 0 without any."""
        wanted = share * self._buckets.total()
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return bucket * BUCKET_NS / 1e6
        return 0.0

    def mission_s(self, share: float) -> float:
        """The same in mission time [s]."""
        return self.real_ms(share) * self._time_scale / 1e3


class WatchedTimers:
    """Timers of a loop that keep how late they ran.

    Args:
        call_at_ns: of the loop.
        now_ns: the present instant [ns].
        lateness: takes (now - due) of each call.
    """

    def __init__(self, call_at_ns: Callable[..., object], now_ns: Callable[[], int], lateness: Lateness) -> None:
        self._call_at_ns = call_at_ns
        self._now_ns = now_ns
        self._lateness = lateness

    def call_at_ns(self, when_ns: int, function: Callable[..., object], *arguments: Any) -> None:
        """As that of the loop."""
        self._call_at_ns(when_ns, self._run, when_ns, function, arguments)

    def _run(self, when_ns: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._lateness.note(self._now_ns() - when_ns)
        function(*arguments)
