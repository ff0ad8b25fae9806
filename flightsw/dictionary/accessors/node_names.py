"""NODE for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final

from flightsw.dictionary.model import ParameterKey

SCRUB_PERIOD_S: Final = ParameterKey[float]("NODE.scrub_period_s")
"""Period of the scrub of models in memory and of stored objects, one of them each time."""


def reset(report: Callable[..., None], /, boot: int, cause: str) -> None:
    """NODE.RESET: A boot after the first."""
    report("NODE.RESET", boot, cause)


def bad_message(report: Callable[..., None], /, reason: str) -> None:
    """NODE.BAD_MESSAGE: A payload does not decode, or has no business at its service."""
    report("NODE.BAD_MESSAGE", reason)


def not_authorised(report: Callable[..., None], /, source: int) -> None:
    """NODE.NOT_AUTHORISED: Somebody else than the ground commands."""
    report("NODE.NOT_AUTHORISED", source)


def sensor_lost(report: Callable[..., None], /, reason: str) -> None:
    """NODE.SENSOR_LOST: The board's sensors cannot be read."""
    report("NODE.SENSOR_LOST", reason)


def boot_loop(report: Callable[..., None], /, boots: int) -> None:
    """NODE.BOOT_LOOP: The node starts in SAFE and stays there until the ground commands it out."""
    report("NODE.BOOT_LOOP", boots)


def last_words(report: Callable[..., None], /, words: str) -> None:
    """NODE.LAST_WORDS: What manager or board have kept of the end of the last boot: a reason, or the trace of an
    exception or a hang.
    """
    report("NODE.LAST_WORDS", words)


def boots_lost(report: Callable[..., None]) -> None:
    """NODE.BOOTS_LOST: What was known of earlier boots is gone, and counts from zero."""
    report("NODE.BOOTS_LOST")
