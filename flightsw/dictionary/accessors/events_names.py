"""EVENTS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from flightsw.dictionary.model import ParameterKey

DOWNLINK_SEVERITY: Final = ParameterKey[
    Literal["FATAL", "WARNING_HI", "WARNING_LO", "COMMAND", "ACTIVITY_HI", "ACTIVITY_LO", "DIAGNOSTIC"]
]("EVENTS.downlink_severity")
"""The least severe events that are sent; all are kept."""
RING_BYTES: Final = ParameterKey[int]("EVENTS.ring_bytes")
"""Size of the ring of kept events, about 1,500 of them; taken at the next boot."""


class Enable(NamedTuple):
    """EVENTS.ENABLE: Make a disabled event known again."""

    event: str
    """Component and event, for example NODE.BAD_MESSAGE."""


class Disable(NamedTuple):
    """EVENTS.DISABLE: Neither send nor keep an event until ENABLE or the next boot. Refused for FATAL ones."""

    event: str
    """Component and event."""


class Dump(NamedTuple):
    """EVENTS.DUMP: Send the newest of the kept events as a data product."""

    count_: int
    """How many at most."""


def suppressed(report: Callable[..., None], /, event: str, count: int, window_s: float) -> None:
    """EVENTS.SUPPRESSED: An event came more often than its throttle lets pass; said once, when the window ends."""
    report("EVENTS.SUPPRESSED", event, count, window_s)


def keeping_failed(report: Callable[..., None], /, reason: str) -> None:
    """EVENTS.KEEPING_FAILED: The ring of events cannot be written; events are still sent."""
    report("EVENTS.KEEPING_FAILED", reason)


def kept_lost(report: Callable[..., None], /, count: int) -> None:
    """EVENTS.KEPT_LOST: At boot, records of the ring did not hold; the others do."""
    report("EVENTS.KEPT_LOST", count)
