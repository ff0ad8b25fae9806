"""How fast a bearer may go: the rate of a serial line, and the pauses between attempts to reach a device or broker.

Two kinds of seconds meet here. A line's rate is part of the emulated world and counts on the loop's clock, which may
run faster than the machine's. Pauses and time limits towards real devices and brokers are the lab's: they are given in
real seconds and stretched to the loop's clock by `lab_s`.
"""

import asyncio
import math
from typing import Final

BITS_PER_BYTE: Final = 10
"""Bits on a serial line for each byte: 8, a start bit and a stop bit."""

_SECOND_NS: Final = 1_000_000_000
_BURST_NS: Final = 20_000_000
"""How much line time may be handed over at once [ns]: timers of a loop are that late under load."""
_BURST_BYTES_MIN: Final = 16
"""Smallest burst [bytes]: the FIFO of a 16550 UART."""

_PAUSE_FIRST_S: Final = 0.1
_PAUSE_S_MAX: Final = 5.0
"""Longest pause between two attempts [s]: a device that is back is found within it; five seconds cost no pass."""


def lab_s(seconds: float) -> float:
    """Real seconds on the running loop's clock, which runs `time_scale` times as fast where the loop says so."""
    scale: float = getattr(asyncio.get_running_loop(), "time_scale", 1.0)
    return seconds * scale


class LineRate:
    """A token bucket: when how many bytes may enter a line.

    Args:
        baud: rate of the line [bit/s].
        burst_ns: line time that may be handed over at once [ns].
    """

    def __init__(self, baud: int, burst_ns: int = _BURST_NS) -> None:
        self._byte_ns = BITS_PER_BYTE * _SECOND_NS / baud
        self._burst_ns = max(float(burst_ns), _BURST_BYTES_MIN * self._byte_ns)
        self._free_ns = -math.inf
        """When the line will have sent all that it was given."""

    def granted_bytes(self, now_ns: int) -> int:
        """Bytes that may enter the line now."""
        ahead_ns = max(self._free_ns - now_ns, 0.0)
        return max(int((self._burst_ns - ahead_ns) / self._byte_ns), 0)

    def charge(self, size_bytes: int, now_ns: int) -> None:
        """Bytes entered the line."""
        self._free_ns = max(self._free_ns, now_ns) + size_bytes * self._byte_ns

    def wait_ns(self, now_ns: int) -> int:
        """How long until half a burst may enter."""
        return max(int(self._free_ns - now_ns - self._burst_ns / 2) + 1, 0)


class Backoff:
    """Pauses that double from 0.1 to 5 real seconds, and begin anew after a connection that lasted longer than that.

    One that did not last does not count: two clients of one name, of which a broker throws out the older, would
    otherwise take turns ten times a second.
    """

    def __init__(self) -> None:
        self._pause_s = _PAUSE_FIRST_S

    def note(self, lasted_s: float) -> None:
        """A connection ended after so long [s, on the running loop's clock]."""
        if lasted_s > lab_s(_PAUSE_S_MAX):
            self._pause_s = _PAUSE_FIRST_S

    def next_s(self) -> float:
        """The pause before the next attempt [s, on the running loop's clock]."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, _PAUSE_S_MAX)
        return lab_s(pause_s)
