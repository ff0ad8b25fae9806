"""What users may ask of time, over the control socket.

| method | gives |
|---|---|
| `measure_time(node)` | the number of a query; its answer, when it comes, is in `time` |
| `time(node)` | what is known of a node's time, and the correction it needs; null before the first answer |
"""

from collections.abc import Callable
from typing import Any

from ground.segment import GroundSegment

NodeKey = int | str


class TimePort:
    """Answers for one ground segment.

    Args:
        ground: the segment.
        number: gives a node's number for (method, name or number). Raises: ConfigError.
    """

    def __init__(self, ground: GroundSegment, number: Callable[[str, NodeKey], int]) -> None:
        self._ground = ground
        self._number = number

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Method -> what answers it."""
        return {"measure_time": self.measure_time, "time": self.time}

    def measure_time(self, node: NodeKey) -> int:
        """Ask a node for its time. Raises: ConfigError."""
        return self._ground.times.ask(self._number("measure_time", node))

    def time(self, node: NodeKey) -> dict[str, Any] | None:
        """What is known of a node's time. Raises: ConfigError."""
        number = self._number("time", node)
        found, correction = self._ground.times.estimate(number), self._ground.times.correction(number)
        if found is None or correction is None:
            return None
        reading = found.newest
        return {
            "node": number,
            "query": reading.reply.number,
            "state": reading.reply.state,
            "mission_ns": reading.reply.mission_ns,
            "met_ns": reading.reply.met_ns,
            "stcf_ns": reading.reply.mission_ns - reading.reply.clock_ns,
            "rate_ppb": reading.reply.rate_ppb,
            "correlation": reading.reply.correlation,
            "offset_ns": found.offset_ns,
            "offset_bound_ns": found.offset_bound_ns,
            "drift_ppb": found.drift_ppb,
            "drift_bound_ppb": found.drift_bound_ppb,
            "readings": found.readings_count,
            "half_round_trip_ns": reading.bound_ns,
            "light_time_ns": reading.light_time_ns,
            "correction": {"offset_ns": correction.offset_ns, "rate_ppb": correction.rate_ppb},
        }
