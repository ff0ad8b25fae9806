"""Modes of a node: one transition table, printed into the documents.

What a mode allows is decided here and nowhere else: jobs run in NOMINAL and ECLIPSE only, and every mode keeps the
receiver and the beacon.
"""

from enum import Enum, unique
from typing import Final

from flightsw.wire.messages import Mode


@unique
class Cause(Enum):
    """What can change the mode."""

    BOOT_DONE = "boot done"
    SUN_LOST = "sun lost"
    SUN_BACK = "sun back"
    CHARGE_LOW = "charge low"
    CHARGE_CRITICAL = "charge critical"
    CHARGE_RECOVERED = "charge recovered"
    SAFE_COMMANDED = "safe commanded"
    NOMINAL_COMMANDED = "nominal commanded"


TRANSITIONS: Final[dict[tuple[Mode, Cause], Mode]] = {
    (Mode.BOOT, Cause.BOOT_DONE): Mode.NOMINAL,
    (Mode.NOMINAL, Cause.SUN_LOST): Mode.ECLIPSE,
    (Mode.NOMINAL, Cause.CHARGE_LOW): Mode.LOW_POWER,
    (Mode.NOMINAL, Cause.CHARGE_CRITICAL): Mode.SAFE,
    (Mode.NOMINAL, Cause.SAFE_COMMANDED): Mode.SAFE,
    (Mode.ECLIPSE, Cause.SUN_BACK): Mode.NOMINAL,
    (Mode.ECLIPSE, Cause.CHARGE_LOW): Mode.LOW_POWER,
    (Mode.ECLIPSE, Cause.CHARGE_CRITICAL): Mode.SAFE,
    (Mode.ECLIPSE, Cause.SAFE_COMMANDED): Mode.SAFE,
    (Mode.LOW_POWER, Cause.CHARGE_RECOVERED): Mode.NOMINAL,
    (Mode.LOW_POWER, Cause.CHARGE_CRITICAL): Mode.SAFE,
    (Mode.LOW_POWER, Cause.SAFE_COMMANDED): Mode.SAFE,
    (Mode.SAFE, Cause.NOMINAL_COMMANDED): Mode.NOMINAL,
}
"""(mode, cause) -> mode. A pair that is not here changes nothing: SAFE is left by command only."""

JOB_MODES: Final = (Mode.NOMINAL, Mode.ECLIPSE)
"""Modes in which jobs run."""

SUN_PRESENT: Final = 0.5
"""Share of the sun's disc from which the node counts itself in sunlight."""


class ModeManager:
    """The mode of one node and the way it got there.

    Args:
        low_power_enter: charge share below which LOW_POWER is entered.
        low_power_leave: charge share above which it is left.
        safe_enter: charge share below which SAFE is entered.
    """

    def __init__(self, low_power_enter: float, low_power_leave: float, safe_enter: float) -> None:
        assert safe_enter <= low_power_enter < low_power_leave, "thresholds out of order flap between modes"
        self.mode = Mode.BOOT
        self._low_power_enter = low_power_enter
        self._low_power_leave = low_power_leave
        self._safe_enter = safe_enter

    def apply(self, cause: Cause) -> bool:
        """Take a cause; says whether the mode changed."""
        after = TRANSITIONS.get((self.mode, cause))
        if after is None:
            return False
        self.mode = after
        return True

    def observe(self, charge_share: float, sunlight: float) -> Cause | None:
        """Judge one reading of the sensors; returns the cause of a change, or None."""
        if charge_share < self._safe_enter:
            cause = Cause.CHARGE_CRITICAL
        elif charge_share < self._low_power_enter:
            cause = Cause.CHARGE_LOW
        elif self.mode is Mode.LOW_POWER:
            if charge_share <= self._low_power_leave:
                return None
            cause = Cause.CHARGE_RECOVERED
        else:
            cause = Cause.SUN_BACK if sunlight >= SUN_PRESENT else Cause.SUN_LOST
        return cause if self.apply(cause) else None


def job_refusal(mode: Mode) -> str | None:
    """Why no job runs in this mode, or None."""
    return None if mode in JOB_MODES else f"mode {mode.name}"
