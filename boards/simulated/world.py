"""What the world does to one simulated board, as a file: when the sun shines on it.

    {"sun": [[start_ns, end_ns], ...], "sunlight": [share, ...], "step_s": s}

`sun` is the forecast that flight plans with; `sunlight` is what the board gets: the share of the sun's disc in view at
T+0 and every `step_s` after it, linear in between. It holds its last value for ever.
"""

from typing import Annotated, Final

import msgspec

from flightsw.config import Positive, Share, SunInterval

NS_PER_S: Final = 1_000_000_000


class World(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sun of one board."""

    sun: tuple[tuple[int, int], ...]
    """Predicted intervals in sunlight [ns since T+0]."""
    sunlight: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1)]
    step_s: Positive

    def intervals(self) -> tuple[SunInterval, ...]:
        """The forecast as flight takes it."""
        return tuple(SunInterval(start_ns, end_ns) for start_ns, end_ns in self.sun)

    def sunlight_at(self, now_ns: int) -> float:
        """Share of the sun's disc in view at an instant, 0 to 1; before T+0 that of T+0."""
        position = max(0.0, now_ns / (self.step_s * NS_PER_S))
        low = int(position)
        last = len(self.sunlight) - 1
        if low >= last:
            return self.sunlight[last]
        value = self.sunlight[low]
        return value + (self.sunlight[low + 1] - value) * (position - low)
