"""What a bundle agent sends by itself, as an answer to others: values, the rate that it keeps to, and mission time."""

from dataclasses import dataclass

from flightsw.net.queues import NS_PER_MS
from flightsw.wire.bundles import DTN_EPOCH_UTC_S
from flightsw.wire.eids import Eid


@dataclass(frozen=True, slots=True)
class Response:
    """A bundle that the agent is to make."""

    destination: Eid
    source_service: int
    payload: bytes
    lifetime_ms: int
    priority: int
    reliable: bool
    flags: int = 0
    """`BundleFlags`."""


class Allowance:
    """So many answers at once, and one more with each period: who floods us shall not make us flood others.

    Args:
        burst_count: answers that may come at once.
        period_ns: time in which one more is allowed [ns].
    """

    __slots__ = ("_burst_ns", "_empty_ns", "_period_ns")

    def __init__(self, burst_count: int, period_ns: int) -> None:
        self._period_ns = period_ns
        self._burst_ns = burst_count * period_ns
        self._empty_ns: int | None = None
        """When what has been used will have grown again [ns]; None before the first use."""

    def take(self, now_ns: int) -> bool:
        """Whether one answer is allowed now; it then counts as given."""
        used_until_ns = now_ns if self._empty_ns is None else max(now_ns, self._empty_ns)
        if used_until_ns + self._period_ns > now_ns + self._burst_ns:
            return False
        self._empty_ns = used_until_ns + self._period_ns
        return True


class MissionTime:
    """Mission time between two instants at which a service told it: good enough to stamp answers with.

    No timer uses it; a jump of the mission clock is followed at the next bundle that a service sends.
    """

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def told(self, now_ns: int, utc_ns: int) -> int:
        """Mission time was told; the same as DTN time [ms since 2000-01-01T00:00:00Z], at least 0."""
        self._offset_ns = utc_ns - now_ns
        return max(0, utc_ns // NS_PER_MS - DTN_EPOCH_UTC_S * 1000)

    def dtn_ms(self, now_ns: int) -> int:
        """DTN time now [ms]; 0 as long as nobody told mission time, which RFC 9171 §4.2.7 reads as "no clock"."""
        if self._offset_ns is None:
            return 0
        return self.told(now_ns, now_ns + self._offset_ns)
