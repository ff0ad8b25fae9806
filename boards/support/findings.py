"""How a reading is gathered: what a sensor gives, or why it gave nothing.

A sensor that has once been seen and is not there any more is a trouble too: its absence would otherwise look like a
board that never had it. Each sensor belongs to an ability of the board, so that the capability report can say which
abilities suffer.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum, unique
from typing import Final, TypeVar

from flightsw.errors import SensorError

KNOWN_MAX: Final = 256
"""Names of each kind that are remembered: the largest of the trees has some 40, and struck bits make new ones."""
MISSING: Final = "not there"

T = TypeVar("T")


@unique
class Ability(StrEnum):
    """Names of the lines of a capability report, in their order."""

    TEMPERATURE = "temperature"
    FAN = "fan"
    VOLTAGES = "voltages"
    POWER_RAILS = "power_rails"
    INPUT_POWER = "input_power"
    UNDER_VOLTAGE = "under_voltage"
    THROTTLING = "throttling"
    CPU_CLOCK = "cpu_clock"
    GPU = "gpu"
    POWER_MODES = "power_modes"
    MEMORY_USE = "memory_use"
    ECC = "ecc"
    STORAGE = "storage"
    STORAGE_WEAR = "storage_wear"
    WATCHDOG = "watchdog"
    UART = "uart"
    PANIC_RECORD = "panic_record"


class Findings:
    """Gathers one reading.

    Args:
        known: the sensors that earlier readings have found, and what each is for; this one adds to it.
    """

    def __init__(self, known: dict[str, Ability]) -> None:
        self._known = known
        self._tried: dict[str, Ability] = {}
        self._troubles: dict[str, str] = {}

    def value(self, ability: Ability, name: str, read: Callable[[], T]) -> T | None:
        """What one sensor gives, or None, and then the trouble is noted."""
        self._tried[name] = ability
        try:
            return read()
        except SensorError as error:
            self._troubles[name] = str(error)
            return None

    def optional(self, ability: Ability, name: str, read: Callable[[], T]) -> T | None:
        """As `value`, of a sensor that a board need not have: it is a trouble only when it was there before."""
        try:
            found = read()
        except SensorError as error:
            if name in self._known:
                self._troubles[name] = str(error)
            return None
        self._tried[name] = ability
        return found

    def enter(
        self, values: dict[str, float], ability: Ability, name: str, read: Callable[[], float], quantity: str = ""
    ) -> float | None:
        """As `value`, and a value is entered under its name; `quantity` tells apart sensors of one rail."""
        found = self.value(ability, f"{name} {quantity}".rstrip(), read)
        if found is not None:
            values[name] = found
        return found

    def expect(self, ability: Ability, names: Iterable[str]) -> None:
        """Sensors that this board should have: those that were not found are a trouble."""
        for name in names:
            if name not in self._tried:
                self._tried[name] = ability
                self._troubles[name] = MISSING

    def close(self) -> dict[str, str]:
        """The troubles of the whole reading, by sensor."""
        for name in self._known:
            if name not in self._tried:
                self._troubles.setdefault(name, MISSING)
        for name, ability in self._tried.items():
            if len(self._known) < KNOWN_MAX:
                self._known.setdefault(name, ability)
        return dict(sorted(self._troubles.items()))
