"""The clock of a program on a real machine: monotonic time is the loop's, mission time starts from an epoch."""

from flightsw.host.loop import PacedLoop


class HostClock:
    """Implements `flightsw.ports.Clock`.

    Args:
        loop: its time is the monotonic time; since it counts from T+0, it goes on over a restart of the program.
        epoch_utc_ns: mission UTC at T+0 [ns since 1970-01-01T00:00:00Z].
    """

    def __init__(self, loop: PacedLoop, epoch_utc_ns: int) -> None:
        self._loop = loop
        self._epoch_utc_ns = epoch_utc_ns

    def monotonic_ns(self) -> int:
        """Time for timers [ns since T+0]."""
        return self._loop.now_ns

    def utc_ns(self) -> int:
        """Mission time [ns since 1970-01-01T00:00:00Z]."""
        return self._epoch_utc_ns + self._loop.now_ns
