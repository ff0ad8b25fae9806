"""MODE for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final

from flightsw.dictionary.model import ParameterKey

LOW_POWER_ENTER: Final = ParameterKey[float]("MODE.low_power_enter")
"""Share of the battery below which LOW_POWER is entered."""
LOW_POWER_LEAVE: Final = ParameterKey[float]("MODE.low_power_leave")
"""Share of the battery above which LOW_POWER is left."""
SAFE_ENTER: Final = ParameterKey[float]("MODE.safe_enter")
"""Share of the battery below which SAFE is entered."""
MAINTENANCE_MAX_S: Final = ParameterKey[int]("MODE.maintenance_max_s")
"""After this long MAINTENANCE ends in SAFE, whether the ground is there or not: four hours, two orbits and more."""
VOTED: Final = ParameterKey[bool]("MODE.voted")
"""Hold the mode in three copies that are compared whenever it is asked; without two that agree it is SAFE."""


def changed(report: Callable[..., None], /, mode: str, cause: str) -> None:
    """MODE.CHANGED: A change to a mode in which jobs run, or to MAINTENANCE."""
    report("MODE.CHANGED", mode, cause)


def restricted(report: Callable[..., None], /, mode: str, cause: str) -> None:
    """MODE.RESTRICTED: A change to a mode that sheds load: LOW_POWER or SAFE."""
    report("MODE.RESTRICTED", mode, cause)


def record_lost(report: Callable[..., None], /, reason: str) -> None:
    """MODE.RECORD_LOST: What the disk held of the mode did not hold at boot, so the node starts in SAFE."""
    report("MODE.RECORD_LOST", reason)


def unsaved(report: Callable[..., None], /, reason: str) -> None:
    """MODE.UNSAVED: A change of mode was not written; a reset would go back to the one before."""
    report("MODE.UNSAVED", reason)


def mended(report: Callable[..., None], /, count: int) -> None:
    """MODE.MENDED: Two of the three copies agreed."""
    report("MODE.MENDED", count)
