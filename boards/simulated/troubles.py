"""What can be wrong with a simulated board: values that outlive the program, as the board's own state does.

| trouble | what it does | what ends it |
|---|---|---|
| latch-up | draws extra current wherever the node has power | a loss of power: no processor reset does |
| radiator | radiates with a part of its area | `SimulatedBoard.set_radiator_share` |
| sensor STUCK | one value stays what it was, with fresh times | `SimulatedBoard.mend_sensors` |
| sensor NONSENSE | one value reads what cannot be (`NONSENSE`) | the same |
| sensor MISSING | the reading fails: sensors share a bus | the same |
| sensor STALE | the whole reading stays what it was, with its old time | the same |
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import Final

from flightsw.errors import SensorError
from flightsw.ports import ResetCause, Sensors

POWERLESS_CAUSES: Final = (ResetCause.POWER_ON, ResetCause.POWER_CYCLE, ResetCause.BROWN_OUT)
"""Boots before which the node was without power: what latched up has let go."""

NONSENSE: Final = {
    "charge_j": -1e9,
    "solar_w": -1e6,
    "load_w": -1e6,
    "electronics_degc": 1e4,
    "sunlight": 9.0,
}
"""Sensor -> a value that it cannot have."""

SENSORS: Final = tuple(NONSENSE)


@unique
class SensorTrouble(Enum):
    """How a sensor fails."""

    STUCK = "stuck"
    NONSENSE = "nonsense"
    MISSING = "missing"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class BrokenSensor:
    """One sensor that fails."""

    sensor: str
    how: SensorTrouble
    reading: Sensors
    """The last one before it failed."""


@dataclass(frozen=True, slots=True)
class Troubles:
    """All that is wrong with a board; by default nothing."""

    latch_up_w: float = 0.0
    """Extra load while the node has power [W]."""
    radiator_share: float = 1.0
    """Share of the radiator that still radiates."""
    sensors: tuple[BrokenSensor, ...] = ()

    def after_boot(self, cause: ResetCause) -> "Troubles":
        """What is left when the node gets power, or is reset, for this cause."""
        return replace(self, latch_up_w=0.0) if cause in POWERLESS_CAUSES else self


SOUND: Final = Troubles()


def as_read(truth: Sensors, broken: Iterable[BrokenSensor]) -> Sensors:
    """A reading as the node gets it.

    Raises:
        SensorError: the sensor bus does not answer.
    """
    reading = truth
    for one in broken:
        match one.how:
            case SensorTrouble.STUCK:
                reading = _with(reading, one.sensor, getattr(one.reading, one.sensor))
            case SensorTrouble.NONSENSE:
                reading = _with(reading, one.sensor, NONSENSE[one.sensor])
            case SensorTrouble.MISSING:
                raise SensorError(f"{one.sensor}: the sensor bus does not answer")
            case SensorTrouble.STALE:
                return one.reading
    return reading


def _with(reading: Sensors, sensor: str, value: float) -> Sensors:
    assert sensor in NONSENSE, f"{sensor} is no sensor"
    values = {name: getattr(reading, name) for name in Sensors.__dataclass_fields__}
    values[sensor] = value
    return Sensors(**values)
