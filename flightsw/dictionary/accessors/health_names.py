"""HEALTH for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from flightsw.dictionary.model import ParameterKey

WATCHDOG_S: Final = ParameterKey[float]("HEALTH.watchdog_s")
"""Time between strokes after which the watchdog resets the node; never less than three ticks."""
WARN_TICKS: Final = ParameterKey[float]("HEALTH.warn_ticks")
"""Ticks of the rate group for which a party may owe its reply before it is slow; taken at the next boot."""
FATAL_TICKS: Final = ParameterKey[float]("HEALTH.fatal_ticks")
"""Ticks for which it may owe its reply before it is hung; taken at the next boot."""
STABLE_S: Final = ParameterKey[float]("HEALTH.stable_s")
"""How long a boot must last to count as stable; taken at the next boot."""
LOOP_BOOTS: Final = ParameterKey[int]("HEALTH.loop_boots")
"""Boots in a row that did not last before the next one starts in SAFE; taken at the next boot."""
PROCESSOR_RESETS_MAX: Final = ParameterKey[int]("HEALTH.processor_resets_max")
"""Unasked processor resets before the next boot asks for a power cycle; taken at the next boot."""


class Enable(NamedTuple):
    """HEALTH.ENABLE: Supervise a party again; it is asked anew."""

    party: str
    """A supervised party, for example executor."""


class Disable(NamedTuple):
    """HEALTH.DISABLE: Stroke the watchdog whether this party replies or not, until ENABLE or the next boot."""

    party: str
    """A supervised party."""


class Restart(NamedTuple):
    """HEALTH.RESTART: Start a party again without the node. Refused for those that cannot be."""

    party: str
    """A supervised party."""


def slow(report: Callable[..., None], /, party: str, owed_s: float) -> None:
    """HEALTH.SLOW: A party has passed its warn level; the watchdog is still stroked."""
    report("HEALTH.SLOW", party, owed_s)


def hung(report: Callable[..., None], /, party: str, owed_s: float) -> None:
    """HEALTH.HUNG: A party has passed its fatal level."""
    report("HEALTH.HUNG", party, owed_s)


def wrong_key(report: Callable[..., None], /, party: str, key: int, asked: int) -> None:
    """HEALTH.WRONG_KEY: A party has lost its way. Only a restart counts from now on."""
    report("HEALTH.WRONG_KEY", party, key, asked)


def back(report: Callable[..., None], /, party: str, owed_s: float) -> None:
    """HEALTH.BACK: A party that was slow or hung is well again by itself."""
    report("HEALTH.BACK", party, owed_s)


def restarted(report: Callable[..., None], /, party: str) -> None:
    """HEALTH.RESTARTED: A party was started again."""
    report("HEALTH.RESTARTED", party)


def escalated(report: Callable[..., None], /, party: str, step: str) -> None:
    """HEALTH.ESCALATED: A step of the ladder was taken about a hung party."""
    report("HEALTH.ESCALATED", party, step)
