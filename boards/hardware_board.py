"""A real board on a modelled bus: temperature, memory and load are measured where the board has sensors for them, and
battery, array and sunlight are modelled, because a board on a table has none.

| of a reading | comes from |
|---|---|
| charge, solar power, sunlight | the model (`boards.simulated.board`) |
| load | the bus's own by the profile, and what the board measures at its input; without such a sensor, by the profile |
| temperature | the hottest sensor of the processor, smoothed; on a board that has none, the model's |
| memory | the operating system |

A temperature is what jobs are paused by. A board that has given one in this boot and gives none for `HOLD_S` has no
reading at all from then on: `sensors` raises, jobs pause and rules see the reading grow old. Everything else that a
board does not say is taken from the model, and told as a trouble by the component HARDWARE.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from boards.simulated.board import SimulatedBoard
from boards.simulated.troubles import as_read
from boards.support.readings import BoardReading
from flightsw.errors import SensorError
from flightsw.ports import Capability, Clock, Hardware, ResetCause, Sensors

SMOOTHING_S: Final = 120.0
"""Time constant of the temperature [s]. A die heats by tens of kelvin within seconds of a job's start, which the limit
rule of a thermal runaway would take for one; a step of 30 K rises by 0.25 K/s at most. The sensor itself is
HARDWARE.hottest_degc."""
HOLD_S: Final = 60.0
"""How long the last temperature stands for one that cannot be read [s]: several readings of a gated or busy sensor."""
FRESH_NS: Final = 1_000_000_000
"""A reading younger than this is not taken again [ns]: several parts of the manager ask in the same cycle."""
WHY_CHARACTERS_MAX: Final = 256
"""What an error says of troubles [characters]: the first few; HARDWARE tells each."""
NS_PER_S: Final = 1_000_000_000


class BoardSensors(Hardware, Protocol):
    """What a family of boards reads (`boards.support`)."""

    def read(self) -> BoardReading:
        """All sensors now, and the processor's temperature among them."""
        ...


class NodeHardware:
    """Implements `flightsw.ports.Hardware` of one node: the board's, read once a second at most whoever asks, and the
    capabilities of what else runs there.

    Args:
        board: reads.
        clock: its monotonic time.
        others: give the capabilities of workers and the like.
    """

    def __init__(
        self, board: BoardSensors, clock: Clock, others: Sequence[Callable[[], Sequence[Capability]]] = ()
    ) -> None:
        self._board = board
        self._clock = clock
        self._others = others
        self._reading: BoardReading | None = None
        self._read_ns = 0

    def read(self) -> BoardReading:
        """All sensors, as they were a second ago at most."""
        now_ns = self._clock.monotonic_ns()
        if self._reading is None or now_ns - self._read_ns >= FRESH_NS:
            self._reading = self._board.read()
            self._read_ns = now_ns
        return self._reading

    def capabilities(self) -> tuple[Capability, ...]:
        """Of the board and of what runs there; what runs there knows better."""
        found = {one.name: one for one in self._board.capabilities()}
        found.update({one.name: one for other in self._others for one in other()})
        return tuple(found.values())

    def power_modes(self) -> tuple[str, ...]:
        """As of the board."""
        return self._board.power_modes()

    def set_power_mode(self, name: str) -> None:
        """Change the power mode; the next reading is a new one. Raises: BoardError."""
        self._board.set_power_mode(name)
        self._reading = None


class HardwareBoard:
    """Implements `flightsw.ports.Board`.

    Args:
        hardware: what the board reads.
        bus: the modelled rest of the satellite.
    """

    def __init__(self, hardware: NodeHardware, bus: SimulatedBoard) -> None:
        self._hardware = hardware
        self._bus = bus
        self._smoothed_degc: float | None = None
        self._smoothed_ns = 0

    def sensors(self) -> Sensors:
        """Read now.

        Raises:
            SensorError: the processor's temperature, which the board has given in this boot, cannot be read for long.
        """
        reading = self._hardware.read()
        self._bus.measure_load_w(reading.input_w)
        truth = self._bus.truth()
        degc = self._temperature(reading)
        sensors = replace(
            truth,
            electronics_degc=truth.electronics_degc if degc is None else degc,
            memory_share=truth.memory_share if reading.memory_share is None else reading.memory_share,
        )
        return as_read(sensors, self._bus.troubles.sensors)

    def set_compute_load_w(self, load_w: float) -> None:
        """The compute load that starts now [W]; counts where the board does not measure its own."""
        self._bus.set_compute_load_w(load_w)

    def reset_cause(self) -> ResetCause:
        """Why this boot happened."""
        return self._bus.reset_cause()

    def _temperature(self, reading: BoardReading) -> float | None:
        """Of the processor [degree Celsius]; None on a board that has not given one in this boot."""
        degc, read_ns = reading.soc_degc, reading.sampled_ns
        if degc is not None:
            if self._smoothed_degc is None:
                self._smoothed_degc = degc
            passed_s = (read_ns - self._smoothed_ns) / NS_PER_S
            self._smoothed_degc += (degc - self._smoothed_degc) * -math.expm1(-passed_s / SMOOTHING_S)
            self._smoothed_ns = read_ns
        elif self._smoothed_degc is not None and read_ns - self._smoothed_ns > HOLD_S * NS_PER_S:
            silent_s = (read_ns - self._smoothed_ns) / NS_PER_S
            why = ", ".join(f"{name}: {trouble}" for name, trouble in sorted(reading.troubles.items()))
            raise SensorError(f"no temperature of the processor for {silent_s:.0f} s: {why}"[:WHY_CHARACTERS_MAX])
        return self._smoothed_degc
