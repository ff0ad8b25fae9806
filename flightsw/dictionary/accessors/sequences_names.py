"""SEQUENCES for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import NamedTuple


class Load(NamedTuple):
    """SEQUENCES.LOAD: Keep a compiled sequence under the name in it; the answer names the entry that does not hold."""

    image: bytes
    """As `flatrack sequence compile` writes it."""


class Start(NamedTuple):
    """SEQUENCES.START: Run a loaded sequence from its first entry."""

    sequence: str
    """Name of a loaded sequence."""


class Stop(NamedTuple):
    """SEQUENCES.STOP: End a running sequence before its next entry."""

    sequence: str
    """Name of a loaded sequence."""


class Enable(NamedTuple):
    """SEQUENCES.ENABLE: Let a sequence be started again."""

    sequence: str
    """Name of a loaded sequence."""


class Disable(NamedTuple):
    """SEQUENCES.DISABLE: Refuse every start of a sequence; one that runs goes on."""

    sequence: str
    """Name of a loaded sequence."""


class Unload(NamedTuple):
    """SEQUENCES.UNLOAD: Forget a sequence that does not run."""

    sequence: str
    """Name of a loaded sequence."""


class Dump(NamedTuple):
    """SEQUENCES.DUMP: Send a sequence and the status of each entry as a data product."""

    sequence: str
    """Name of a loaded sequence."""


def loaded(report: Callable[..., None], /, sequence: str, entries: int) -> None:
    """SEQUENCES.LOADED: A sequence was loaded."""
    report("SEQUENCES.LOADED", sequence, entries)


def started(report: Callable[..., None], /, sequence: str, cause: str) -> None:
    """SEQUENCES.STARTED: A sequence was started: by command, by another sequence, or at boot."""
    report("SEQUENCES.STARTED", sequence, cause)


def completed(report: Callable[..., None], /, sequence: str, executed: int, failed: int, skipped: int) -> None:
    """SEQUENCES.COMPLETED: A sequence came to its end."""
    report("SEQUENCES.COMPLETED", sequence, executed, failed, skipped)


def failed(report: Callable[..., None], /, sequence: str, entry: int, reason: str) -> None:
    """SEQUENCES.FAILED: An entry failed: its checksum did not hold, or its command was refused."""
    report("SEQUENCES.FAILED", sequence, entry, reason)


def stopped(report: Callable[..., None], /, sequence: str, entry: int, reason: str) -> None:
    """SEQUENCES.STOPPED: A sequence ended before its end: by command, in SAFE, or after a failed entry."""
    report("SEQUENCES.STOPPED", sequence, entry, reason)


def skipped(report: Callable[..., None], /, sequence: str, first: int, last: int, late_s: int) -> None:
    """SEQUENCES.SKIPPED: Entries of an absolute sequence were not run, because mission time was past them by more
    than the sequence allows.
    """
    report("SEQUENCES.SKIPPED", sequence, first, last, late_s)


def resumed(report: Callable[..., None], /, sequence: str, entry: int, rest_s: float) -> None:
    """SEQUENCES.RESUMED: A sequence that ran before a reset goes on."""
    report("SEQUENCES.RESUMED", sequence, entry, rest_s)


def interrupted(report: Callable[..., None], /, sequence: str, entry: int) -> None:
    """SEQUENCES.INTERRUPTED: Whether the entry took effect is not known: read it from telemetry."""
    report("SEQUENCES.INTERRUPTED", sequence, entry)


def lost(report: Callable[..., None], /, sequence: str, reason: str) -> None:
    """SEQUENCES.LOST: A stored sequence cannot be used any more."""
    report("SEQUENCES.LOST", sequence, reason)


def repaired(report: Callable[..., None], /, sequence: str, entry: int) -> None:
    """SEQUENCES.REPAIRED: The checksum of an entry in memory did not hold; the stored one did."""
    report("SEQUENCES.REPAIRED", sequence, entry)


def held(report: Callable[..., None], /, sequence: str) -> None:
    """SEQUENCES.HELD: An absolute sequence waits until the ground has set or adjusted mission time."""
    report("SEQUENCES.HELD", sequence)
