"""One reading of a board, and the draft in which the parts of board support write it together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from boards.support.storage import StorageHealth
from flightsw.ports import HardwareReading


@dataclass(frozen=True, slots=True)
class Throttling:
    """What the firmware has done against heat or a weak supply: now, and since the boot."""

    now: tuple[str, ...] = ()
    since_boot: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BoardReading(HardwareReading):
    """What flight software knows of a reading, and what only board support and its reports look at."""

    soc_degc: float | None = None
    """Hottest of the sensors that lie in the SoC [degree Celsius]."""
    fans_rpm: Mapping[str, float] = field(default_factory=dict)
    gpu_load: float | None = None
    """Share of the time in which the GPU had work, 0 to 1."""
    throttling: Throttling | None = None
    storage: StorageHealth = field(default_factory=StorageHealth)


@dataclass(slots=True)
class Draft:
    """What has been read so far; fields as in `BoardReading`."""

    temperatures_degc: dict[str, float] = field(default_factory=dict)
    voltages_v: dict[str, float] = field(default_factory=dict)
    currents_a: dict[str, float] = field(default_factory=dict)
    powers_w: dict[str, float] = field(default_factory=dict)
    clocks_hz: dict[str, float] = field(default_factory=dict)
    fans_rpm: dict[str, float] = field(default_factory=dict)
    input_w: float | None = None
    is_throttled: bool | None = None
    is_under_voltage: bool | None = None
    throttling: Throttling | None = None
    gpu_load: float | None = None
