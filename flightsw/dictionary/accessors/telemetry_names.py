"""TELEMETRY for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from flightsw.dictionary.model import ParameterKey

BEACON_PERIOD_S: Final = ParameterKey[float]("TELEMETRY.beacon_period_s")
"""Period of the beacon, in every mode."""
HOUSEKEEPING_PERIOD_S: Final = ParameterKey[float]("TELEMETRY.housekeeping_period_s")
"""Period of packets of the slow rate."""
LOW_POWER_FACTOR: Final = ParameterKey[float]("TELEMETRY.low_power_factor")
"""Periods of packets are this many times longer in LOW_POWER."""
SAFE_FACTOR: Final = ParameterKey[float]("TELEMETRY.safe_factor")
"""Periods of packets are this many times longer in SAFE."""


class Send(NamedTuple):
    """TELEMETRY.SEND: Send a packet now, whatever its rate."""

    packet: str
    """Component and packet, for example OBJECTS.HK."""


class Enable(NamedTuple):
    """TELEMETRY.ENABLE: Send a disabled packet again."""

    packet: str
    """Component and packet."""


class Disable(NamedTuple):
    """TELEMETRY.DISABLE: Send a packet no more until ENABLE or the next boot, but on request."""

    packet: str
    """Component and packet."""


class Rate(NamedTuple):
    """TELEMETRY.RATE: Send a packet at another period until the next boot."""

    packet: str
    """Component and packet."""
    period_s: float
    """0: as the dictionary says. The shortest is 0.1 s."""


def cycles_slipped(report: Callable[..., None], /, group: str, cycles: int) -> None:
    """TELEMETRY.CYCLES_SLIPPED: A rate group ran so late that whole cycles were left out."""
    report("TELEMETRY.CYCLES_SLIPPED", group, cycles)
