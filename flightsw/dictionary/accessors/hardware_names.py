"""HARDWARE for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from flightsw.dictionary.model import ParameterKey

PERIOD_S: Final = ParameterKey[float]("HARDWARE.period_s")
"""Period of the readings; never shorter than the tick of the rate group."""


class SetPowerMode(NamedTuple):
    """HARDWARE.SET_POWER_MODE: Change the board's power mode: speed and load are no longer those of the profile, and
    some boards need a reboot to take it.
    """

    mode: str
    """As the board names it; REPORT lists what there is."""


def sensor_degraded(report: Callable[..., None], /, sensor: str, reason: str) -> None:
    """HARDWARE.SENSOR_DEGRADED: A sensor that the board had, or should have, gives no value: missing, unreadable or
    out of all range. Told once, until it is back.
    """
    report("HARDWARE.SENSOR_DEGRADED", sensor, reason)


def sensor_back(report: Callable[..., None], /, sensor: str) -> None:
    """HARDWARE.SENSOR_BACK: A sensor that gave no value gives one again."""
    report("HARDWARE.SENSOR_BACK", sensor)


def under_voltage(report: Callable[..., None]) -> None:
    """HARDWARE.UNDER_VOLTAGE: The board says so of now. What it writes meanwhile, and its clocks, cannot be relied
    on.
    """
    report("HARDWARE.UNDER_VOLTAGE")


def voltage_back(report: Callable[..., None]) -> None:
    """HARDWARE.VOLTAGE_BACK: The board no longer says that its supply is too low."""
    report("HARDWARE.VOLTAGE_BACK")


def throttled(report: Callable[..., None], /, hottest_degc: float) -> None:
    """HARDWARE.THROTTLED: For heat, current or voltage, as the board decides: steps take longer than the profile
    says.
    """
    report("HARDWARE.THROTTLED", hottest_degc)


def unthrottled(report: Callable[..., None]) -> None:
    """HARDWARE.UNTHROTTLED: It no longer slows itself down."""
    report("HARDWARE.UNTHROTTLED")


def capability_absent(report: Callable[..., None], /, capability: str, reason: str) -> None:
    """HARDWARE.CAPABILITY_ABSENT: At boot: the board lacks what a node relies on. It runs all the same; what is not
    enforced, nothing enforces.
    """
    report("HARDWARE.CAPABILITY_ABSENT", capability, reason)


def power_mode(report: Callable[..., None], /, before: str, after: str) -> None:
    """HARDWARE.POWER_MODE: The board is in another power mode, by command or by itself."""
    report("HARDWARE.POWER_MODE", before, after)


def memory_errors(report: Callable[..., None], /, corrected: int, uncorrected: int) -> None:
    """HARDWARE.MEMORY_ERRORS: The board's memory controller has counted more errors. Both counts are the board's
    own.
    """
    report("HARDWARE.MEMORY_ERRORS", corrected, uncorrected)


def storage_errors(report: Callable[..., None], /, count: int) -> None:
    """HARDWARE.STORAGE_ERRORS: The file system, or the medium below it, has counted more errors. The count is the
    board's own.
    """
    report("HARDWARE.STORAGE_ERRORS", count)
