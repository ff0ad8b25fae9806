"""Pings: bundles for the echo service of a node, and what their answers say. No input or output, no waiting.

An answer counts when it comes from the node that was asked and is what was sent, byte for byte. It counts once.
"""

from dataclasses import dataclass, field
from typing import Final

from flightsw.errors import ConfigError
from flightsw.net.agent_values import Delivery

PING_BYTES_MIN: Final = 12
"""Shortest payload [bytes]: a mark of four bytes and a sequence number of eight."""

PING_BYTES_MAX: Final = 16_384
"""Longest payload [bytes]: what an echo service answers."""

PING_BYTES: Final = 64
"""Usual payload [bytes], as of `ping` on Unix with its header."""

PINGS_MAX: Final = 1024
"""Pings that wait for an answer; the oldest is forgotten first. An hour at three seconds each."""

_MARK: Final = b"ping"


@dataclass(frozen=True, slots=True)
class PingReply:
    """The answer to a ping."""

    node: int
    sequence: int
    size_bytes: int
    rtt_ns: int
    """From the call that made the ping to the delivery of its answer [ns]: queues and contacts included."""


class Pings:
    """Pings under way from one node."""

    def __init__(self) -> None:
        self._sequence = 0
        self._waiting: dict[int, tuple[int, bytes, int]] = {}
        """(node, payload, when [ns]) by sequence number, the oldest first."""

    def make(self, node: int, size_bytes: int, now_ns: int) -> tuple[int, bytes]:
        """Sequence number and payload of a new ping.

        Args:
            node: whom it asks.
            size_bytes: length of the payload.
            now_ns: monotonic time [ns].

        Raises:
            ConfigError: the length is out of range.
        """
        if not PING_BYTES_MIN <= size_bytes <= PING_BYTES_MAX:
            raise ConfigError(f"ping: {size_bytes} bytes, expected {PING_BYTES_MIN} to {PING_BYTES_MAX}")
        self._sequence += 1
        payload = (_MARK + self._sequence.to_bytes(8, "big")).ljust(size_bytes, b".")
        if len(self._waiting) >= PINGS_MAX:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[self._sequence] = (node, payload, now_ns)
        return self._sequence, payload

    def receive(self, delivery: Delivery, now_ns: int) -> PingReply | None:
        """The ping that a delivery answers; None when it answers none that waits."""
        payload = delivery.payload
        sequence = int.from_bytes(payload[len(_MARK) : PING_BYTES_MIN], "big")
        node, sent, sent_ns = self._waiting.get(sequence, (0, b"", 0))
        if delivery.source_node != node or payload != sent:
            return None
        del self._waiting[sequence]
        return PingReply(node, sequence, len(payload), now_ns - sent_ns)

    def forget(self, sequence: int) -> None:
        """Nobody waits for the answer to a ping any more."""
        self._waiting.pop(sequence, None)


@dataclass(slots=True)
class PingStatistics:
    """Pings to one node and their answers."""

    sent_count: int = 0
    rtts_ns: list[int] = field(default_factory=list)
    """Of each answer [ns]."""

    def lines(self) -> list[str]:
        """What `ping` prints at its end."""
        sent_count, count = self.sent_count, len(self.rtts_ns)
        loss = 100.0 * (sent_count - count) / sent_count if sent_count else 0.0
        lines = [f"{sent_count} bundles sent, {count} received, {loss:.0f} % lost"]
        if count:
            least, mean, most = min(self.rtts_ns), sum(self.rtts_ns) / count, max(self.rtts_ns)
            lines.append(f"round trip min/avg/max = {least / 1e6:.1f}/{mean / 1e6:.1f}/{most / 1e6:.1f} ms")
        return lines
