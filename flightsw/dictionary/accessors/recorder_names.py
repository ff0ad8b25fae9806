"""RECORDER for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from flightsw.dictionary.model import ParameterKey

QUOTA_BYTES: Final = ParameterKey[int]("RECORDER.quota_bytes")
"""What the recorder may take on the disk: two days of housekeeping every minute."""
PLAYBACK_PACKETS_PER_CYCLE: Final = ParameterKey[int]("RECORDER.playback_packets_per_cycle")
"""Records that playback may send in one cycle."""
REPEAT_S: Final = ParameterKey[float]("RECORDER.repeat_s")
"""A segment that is not acknowledged is sent again after this time, when there is a way to the ground."""
SOON_S: Final = ParameterKey[float]("RECORDER.soon_s")
"""A way to the ground that opens within this time counts as one that is open."""


class Play(NamedTuple):
    """RECORDER.PLAY: Play back now, also in SAFE; needs a way to the ground. Ends when all is acknowledged."""

    from_priority: int
    """The most urgent priority to play; 0 for all."""


def gave_way(report: Callable[..., None], /, records: int, priority: int) -> None:
    """RECORDER.GAVE_WAY: The recorder is full: its oldest segment of the lowest priority gave way."""
    report("RECORDER.GAVE_WAY", records, priority)


def recording_failed(report: Callable[..., None], /, reason: str) -> None:
    """RECORDER.RECORDING_FAILED: The disk did not take a record."""
    report("RECORDER.RECORDING_FAILED", reason)


def played(report: Callable[..., None], /, records: int) -> None:
    """RECORDER.PLAYED: All that was recorded is on record on the ground."""
    report("RECORDER.PLAYED", records)


def cleared(report: Callable[..., None], /, records: int) -> None:
    """RECORDER.CLEARED: RECORDER.CLEAR was executed."""
    report("RECORDER.CLEARED", records)
