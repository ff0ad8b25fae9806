"""What one direction of a link does to frames: the values that a scenario file or the page sets.

Every field has a unit and a range, and a wrong value is refused by name. A link without a table in the scenario is not
perfect: its rate must be stated, because a link without a rate would have no queue and no pass would ever be too short.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from flightsw.config import convert

RATE_BPS_MAX: Final = 1e13
"""Ten times the largest planned inter-satellite rate (1 Tbit/s); above it a frame takes less than the clock's 1 ns."""
DELAY_S_MAX: Final = 3600.0
"""Longest jitter, reordering delay or acquisition [s]: longer than a low-orbit pass, and catches ms given for s."""
QUEUE_FRAMES_MAX: Final = 65_536
"""Largest transmit queue: 64 MiB of 1 KiB frames, what a memory-rich terminal holds."""
QUEUE_FRAMES: Final = 512
"""Default transmit queue: 512 frames of 1 KiB are 9 min, about one pass, at 9600 bit/s."""
BIT_ERROR_RATE_MAX: Final = 0.5
"""Half of all bits wrong is pure noise; more would be an inverted signal, which receivers notice and undo."""

Probability = Annotated[float, Meta(ge=0, le=1)]
TransitionProbability = Annotated[float, Meta(ge=1e-15, le=1)]
BitErrorRate = Annotated[float, Meta(ge=0, le=BIT_ERROR_RATE_MAX)]
DelaySeconds = Annotated[float, Meta(ge=0, le=DELAY_S_MAX)]


class Burst(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Gilbert-Elliott bursts: a hidden state, good or bad, may change after each bit (Gilbert 1960, Elliott 1963).

    The mean burst is `1 / p_bad_to_good` bits long, and the link is bad for a share of
    `p_good_to_bad / (p_good_to_bad + p_bad_to_good)` of all bits.
    """

    p_good_to_bad: TransitionProbability
    """Chance that the state turns bad after a bit in the good state [1/bit]."""
    p_bad_to_good: TransitionProbability
    """Chance that the state turns good after a bit in the bad state [1/bit]."""
    bit_error_rate_bad: BitErrorRate
    """Share of bits flipped in the bad state; the good state has the link's `bit_error_rate`."""


class Impairments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One direction of one link. Only the rate must be given; all else defaults to a link that harms nothing."""

    rate_bps: Annotated[float, Meta(gt=0, le=RATE_BPS_MAX)]
    """Rate of coded bits on the link [bit/s]."""
    loss: Probability = 0.0
    """Chance that a whole frame vanishes."""
    bit_error_rate: BitErrorRate = 0.0
    """Share of coded bits that are flipped, independently of each other; with `burst`, in the good state."""
    burst: Burst | None = None
    """Bursts of bit errors on top."""
    jitter_s: DelaySeconds = 0.0
    """Extra delay, uniform in [0, jitter_s) [s]; never changes the order of frames."""
    duplicate: Probability = 0.0
    """Chance that a frame arrives twice."""
    reorder: Probability = 0.0
    """Chance that a frame is held back by `reorder_delay_s` while later frames overtake it."""
    reorder_delay_s: DelaySeconds = 0.0
    """How long such a frame is held back [s]; must be positive where `reorder` is."""
    acquisition_s: tuple[DelaySeconds, DelaySeconds] = (0.0, 0.0)
    """Shortest and longest time from first sight to the first bit [s]; drawn uniformly for each acquisition."""
    queue_frames_max: Annotated[int, Meta(ge=0, le=QUEUE_FRAMES_MAX)] = QUEUE_FRAMES
    """Frames that may wait for the transmitter; one more is dropped and counted."""

    def __post_init__(self) -> None:
        """Refuse values that contradict each other.

        Raises:
            ValueError: names the fields; msgspec turns it into its own error when loading.
        """
        if self.acquisition_s[0] > self.acquisition_s[1]:
            raise ValueError(f"`acquisition_s` is {list(self.acquisition_s)}, expected [shortest, longest]")
        if self.reorder > 0 and self.reorder_delay_s <= 0:
            raise ValueError(f"`reorder_delay_s` is {self.reorder_delay_s}, expected > 0 where `reorder` is not 0")


def checked(impairments: Impairments, where: str) -> Impairments:
    """The same values, proven to be in range: a struct made in Python, not loaded, has not been checked.

    Raises:
        ConfigError: a field is out of its range; names where, field and expectation.
    """
    return convert(msgspec.to_builtins(impairments), Impairments, where)
