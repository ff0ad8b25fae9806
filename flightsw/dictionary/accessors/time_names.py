"""TIME for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import NamedTuple


class Adjust(NamedTuple):
    """TIME.ADJUST: Correct mission time without a jump: slew an offset away, and set the rate correction."""

    offset_ns: int
    """Added to mission time, bit by bit."""
    rate_ppb: int
    """How much faster than the board's clock mission time runs from now on."""
    correlation: int
    """Number of the correction that was in force when the offset was measured; another one refuses the command."""


class Step(NamedTuple):
    """TIME.STEP: Jump mission time by at most ten seconds."""

    offset_ns: int
    """Added to mission time at once."""
    correlation: int
    """As of ADJUST."""


class Set(NamedTuple):
    """TIME.SET: Jump mission time by any amount: absolute sequences may skip entries, or wait for them anew."""

    offset_ns: int
    """Added to mission time at once."""
    correlation: int
    """As of ADJUST."""


def clock_jumped(report: Callable[..., None], /, jump_s: float) -> None:
    """TIME.CLOCK_JUMPED: The board's clock moved against monotonic time by more than it can drift."""
    report("TIME.CLOCK_JUMPED", jump_s)


def changed(report: Callable[..., None], /, correlation: int, change: str, offset_s: float, rate_ppb: int) -> None:
    """TIME.CHANGED: The ground corrected mission time."""
    report("TIME.CHANGED", correlation, change, offset_s, rate_ppb)


def lost(report: Callable[..., None], /, reason: str) -> None:
    """TIME.LOST: What was kept of mission time does not hold: absolute sequences wait until the ground has set it."""
    report("TIME.LOST", reason)


def unsaved(report: Callable[..., None], /, reason: str) -> None:
    """TIME.UNSAVED: The disk did not take what mission time is off by; a reset would lose it."""
    report("TIME.UNSAVED", reason)
