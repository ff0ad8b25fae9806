"""The simulated board: a battery and two thermal masses under modelled sunlight.

In every step of h <= 5 s, with the sunlight at its start, in this order (all explicit Euler, temperatures in kelvin):

    load = bus + idle + compute                                    idle and compute while the node has power
    net  = array_w * sunlight - load
    charge += net * charge_efficiency * h                          net > 0, up to the capacity; the rest is shunted
    charge += net / discharge_efficiency * h                       net < 0
    q    = G (T_e - T_r)
    T_e += h (load - q) / C_e
    T_r += h (q + absorbed_sun_w * sunlight + absorbed_albedo_ir_w - emissivity * sigma * A * T_r**4) / C_r

Measured: with steps of 5 s both temperatures stay within 0.01 K of an adaptive solver over an orbit
(docs/determinism.md).

The board is advanced to the clock whenever it is asked or told something, and costs nothing in between. When the
battery is empty and the array does not carry the load, the undervoltage lock-out opens at that very instant: node and
bus are dark, and stay so until `power_on`. What was drawn can therefore never exceed what was there; the account is
kept to prove it.

What can be wrong with it, `boards.simulated.troubles` has: current that latched up, a radiator that does not radiate,
sensors that fail. Physics and account stay true; `sensors` is what the node reads, `truth` what there is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from boards.simulated.troubles import SENSORS, SOUND, BrokenSensor, SensorTrouble, Troubles, as_read
from flightsw.config import BoardProfile
from flightsw.ports import Clock, ResetCause, Sensors

STEP_NS_MAX: Final = 5_000_000_000
"""The longest integration step [ns]: 5 s."""

STEFAN_BOLTZMANN_W_M2_K4: Final = 5.670374419e-8
"""CODATA 2018, exact by definition of the SI."""

KELVIN: Final = 273.15
BOOT_CHARGE_SHARE: Final = 0.2
"""Share of the capacity that the battery must have before a node boots after a brown-out: well above SAFE."""

INITIAL_DEGC: Final = 15.0
"""Temperature of both masses at the start [degree Celsius]: launch-site weather; an orbit later it is forgotten."""

MEMORY_SHARE: Final = 0.25
"""Share of the memory that a sound board has in use, whatever runs: the model knows of leaks only."""

NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True)
class EnergyAccount:
    """Where the energy went since the start [J]: initial + harvested = drawn + lost + shunted + charge left."""

    initial_j: float
    harvested_j: float = 0.0
    """Given by the array."""
    drawn_j: float = 0.0
    """Taken by the bus and the node."""
    lost_j: float = 0.0
    """Turned to heat in charging and discharging."""
    shunted_j: float = 0.0
    """Given by the array, but the battery was full."""
    unserved_j: float = 0.0
    """Taken without being there. Anything but 0 is a mistake of the model."""


@dataclass(frozen=True, slots=True)
class BoardState:
    """The world around a board at an instant: what goes on while no program looks at it."""

    at_ns: int
    """The instant [monotonic ns]."""
    charge_j: float
    electronics_k: float
    radiator_k: float
    is_dark: bool
    """The undervoltage lock-out is open: not even the bus has power."""
    brown_outs_count: int
    account: EnergyAccount
    troubles: Troubles = SOUND


class SimulatedBoard:
    """Implements `flightsw.ports.Board`.

    Args:
        profile: numbers of the board and of the bus around it.
        clock: its monotonic time advances the physics.
        sunlight: share of the sun's disc in view at a monotonic time [ns]; 0 in umbra to 1.
        initial_charge_share: charge at the start, as a share of the capacity.
        reset_cause: of the first boot.
        on_brown_out: called when power is lost, from inside the call that found it: it may only note or schedule.
    """

    def __init__(
        self,
        profile: BoardProfile,
        clock: Clock,
        sunlight: Callable[[int], float],
        initial_charge_share: float = 0.9,
        reset_cause: ResetCause = ResetCause.POWER_ON,
        on_brown_out: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._sunlight = sunlight
        self._reset_cause = reset_cause
        self._on_brown_out = on_brown_out
        self._array_w = profile.array_w.value
        self._bus_w = profile.bus_w.value
        self._idle_w = profile.idle_w.value
        self._compute_w = 0.0
        self._measured_w: float | None = None
        self._load_w = self._bus_w + self._idle_w
        self._battery_j = profile.battery_wh.value * 3600.0
        self._charge_j = self._battery_j * initial_charge_share
        self._charge_efficiency = profile.charge_efficiency.value
        self._discharge_efficiency = profile.discharge_efficiency.value
        self._electronics_k = self._radiator_k = INITIAL_DEGC + KELVIN
        self._electronics_j_k = profile.electronics_heat_capacity_j_k.value
        self._radiator_j_k = profile.radiator_heat_capacity_j_k.value
        self._conductance_w_k = profile.conductance_w_k.value
        self._radiated_w_k4 = (
            profile.radiator_emissivity.value * STEFAN_BOLTZMANN_W_M2_K4 * profile.radiator_area_m2.value
        )
        self._absorbed_sun_w = profile.absorbed_sun_w.value
        self._absorbed_albedo_ir_w = profile.absorbed_albedo_ir_w.value
        self._at_ns = clock.monotonic_ns()
        self._account = EnergyAccount(initial_j=self._charge_j)
        self._is_powered = True
        self._is_dark = False
        self._troubles = SOUND
        self._memory_share = MEMORY_SHARE
        self.brown_outs_count = 0

    # -- the Board port

    def sensors(self) -> Sensors:
        """Read now. Raises: SensorError."""
        truth = self.truth()
        return as_read(truth, self._troubles.sensors) if self._troubles.sensors else truth

    def set_compute_load_w(self, load_w: float) -> None:
        """The compute load from now on [W]; without effect while the node has no power."""
        assert load_w >= 0, "a load draws power"
        self._advance()
        if self._is_powered:
            self._compute_w = load_w
            self._set_load()

    def reset_cause(self) -> ResetCause:
        """Why this boot happened."""
        return self._reset_cause

    # -- the world's side

    def measure_load_w(self, load_w: float | None) -> None:
        """What the node really draws from now on [W], in place of idle and compute load by the profile; None: by the
        profile again. Without effect while it has no power."""
        if load_w == self._measured_w:
            return
        assert load_w is None or load_w >= 0, "a load draws power"
        self._advance()
        self._measured_w = load_w
        self._set_load()

    def truth(self) -> Sensors:
        """What sound sensors would read now."""
        self._advance()
        sunlight = self._sunlight(self._at_ns)
        return Sensors(
            charge_j=self._charge_j,
            battery_j=self._battery_j,
            solar_w=self._array_w * sunlight,
            load_w=self._load_w,
            electronics_degc=self._electronics_k - KELVIN,
            sunlight=sunlight,
            sampled_ns=self._at_ns,
            memory_share=self._memory_share,
        )

    @property
    def is_powered(self) -> bool:
        """Whether the node has power, as of the last advance."""
        return self._is_powered

    @property
    def account(self) -> EnergyAccount:
        """The energy account, up to now."""
        self._advance()
        return self._account

    def radiator_degc(self) -> float:
        """Temperature of the radiator now [degree Celsius]."""
        self._advance()
        return self._radiator_k - KELVIN

    def state(self) -> BoardState:
        """The world now, to be taken up by `restore`."""
        self._advance()
        return BoardState(
            at_ns=self._at_ns,
            charge_j=self._charge_j,
            electronics_k=self._electronics_k,
            radiator_k=self._radiator_k,
            is_dark=self._is_dark,
            brown_outs_count=self.brown_outs_count,
            account=replace(self._account),
            troubles=self._troubles,
        )

    def restore(self, state: BoardState) -> None:
        """Take up the world where it was. The node has no power since then, until `power_on`."""
        self._at_ns = state.at_ns
        assert 0.0 <= state.charge_j <= self._battery_j, "the state is of a board with this battery"
        self._charge_j = state.charge_j
        self._electronics_k = state.electronics_k
        self._radiator_k = state.radiator_k
        self._account = replace(state.account)
        self.brown_outs_count = state.brown_outs_count
        self._is_powered, self._is_dark = False, state.is_dark
        self._compute_w = 0.0
        self._troubles = state.troubles
        self._set_load()

    @property
    def is_dark(self) -> bool:
        """Whether the undervoltage lock-out is open, now."""
        self._advance()
        return self._is_dark

    def power_on(self, cause: ResetCause) -> None:
        """Give the node power, and the bus too where a brown-out took it: the boot that follows has this cause."""
        self._advance()
        self._reset_cause = cause
        self._troubles = self._troubles.after_boot(cause)
        self._memory_share = MEMORY_SHARE
        self._is_powered, self._is_dark = True, False
        self._compute_w = 0.0
        self._set_load()

    def power_off(self) -> None:
        """Take the node's power; the bus keeps its own."""
        self._advance()
        self._is_powered = False
        self._compute_w = 0.0
        self._set_load()

    @property
    def troubles(self) -> Troubles:
        """What is wrong with the board now."""
        return self._troubles

    def latch_up(self, extra_w: float) -> None:
        """Draw extra current from now on, while the node has power, until it loses it [W]."""
        assert extra_w >= 0, "a short circuit draws power"
        self._advance()
        self._troubles = replace(self._troubles, latch_up_w=extra_w)
        self._set_load()

    def leak_memory(self, share: float) -> None:
        """Have this share of the memory in use from now on, until the next boot, 0 to 1."""
        assert 0.0 <= share <= 1.0, "a share"
        self._memory_share = share

    def set_radiator_share(self, share: float) -> None:
        """Radiate with this share of the radiator from now on, 0 to 1."""
        assert 0.0 <= share <= 1.0, "a share"
        self._advance()
        self._troubles = replace(self._troubles, radiator_share=share)

    def break_sensor(self, sensor: str, how: SensorTrouble) -> None:
        """Let a sensor fail from now on, one of `boards.simulated.troubles.SENSORS`."""
        assert sensor in SENSORS, f"{sensor} is no sensor"
        broken = BrokenSensor(sensor, how, self.truth())
        others = tuple(one for one in self._troubles.sensors if one.sensor != sensor)
        self._troubles = replace(self._troubles, sensors=(*others, broken))

    def mend_sensors(self, *sensors: str) -> None:
        """Let these sensors read true again; no effect on sound ones."""
        left = tuple(one for one in self._troubles.sensors if one.sensor not in sensors)
        self._troubles = replace(self._troubles, sensors=left)

    # -- physics

    def _set_load(self) -> None:
        self._load_w = 0.0 if self._is_dark else self._bus_w
        if self._is_powered:
            node_w = self._idle_w + self._compute_w if self._measured_w is None else self._measured_w
            self._load_w += node_w + self._troubles.latch_up_w

    def _advance(self) -> None:
        now_ns = self._clock.monotonic_ns()
        gap_ns = now_ns - self._at_ns
        if gap_ns <= 0:
            return
        steps = -(-gap_ns // STEP_NS_MAX)
        step_ns = gap_ns // steps
        while steps > 1:
            self._step(step_ns)
            steps -= 1
        self._step(now_ns - self._at_ns)

    def _step(self, step_ns: int) -> None:
        """One step of the equations above."""
        sunlight = self._sunlight(self._at_ns)
        self._at_ns += step_ns
        h_s = step_ns / NS_PER_S
        load_w = self._load_w
        account = self._account
        account.harvested_j += self._array_w * sunlight * h_s
        net_w = self._array_w * sunlight - load_w
        if net_w >= 0.0:
            stored_j = net_w * self._charge_efficiency * h_s
            room_j = self._battery_j - self._charge_j
            if stored_j > room_j:
                account.shunted_j += net_w * h_s - room_j / self._charge_efficiency
                account.lost_j += room_j / self._charge_efficiency - room_j
                self._charge_j = self._battery_j
            else:
                account.lost_j += net_w * h_s - stored_j
                self._charge_j += stored_j
        else:
            taken_j = -net_w / self._discharge_efficiency * h_s
            if taken_j > self._charge_j:
                load_w = self._brown_out(net_w, sunlight, h_s)
            else:
                account.lost_j += taken_j + net_w * h_s
                self._charge_j -= taken_j
                if self._charge_j < 0.0:
                    account.unserved_j -= self._charge_j
                    self._charge_j = 0.0
        account.drawn_j += load_w * h_s
        radiator_k = self._radiator_k
        q_w = self._conductance_w_k * (self._electronics_k - radiator_k)
        self._electronics_k += h_s * (load_w - q_w) / self._electronics_j_k
        self._radiator_k += (
            h_s
            * (
                q_w
                + self._absorbed_sun_w * sunlight
                + self._absorbed_albedo_ir_w
                - self._radiated_w_k4
                * self._troubles.radiator_share
                * (radiator_k * radiator_k)
                * (radiator_k * radiator_k)
            )
            / self._radiator_j_k
        )

    def _brown_out(self, net_w: float, sunlight: float, h_s: float) -> float:
        """Serve the load until the battery is empty, then open the lock-out. Returns the mean load of the step [W]."""
        account = self._account
        served = self._charge_j * self._discharge_efficiency / (-net_w * h_s)
        account.lost_j += self._charge_j * (1.0 - self._discharge_efficiency)
        # the array charges the battery for the rest of the step, with nothing else to feed
        rest_j = self._array_w * sunlight * (1.0 - served) * h_s
        self._charge_j = min(rest_j * self._charge_efficiency, self._battery_j)
        account.lost_j += rest_j - self._charge_j
        load_w = self._load_w * served
        self.brown_outs_count += 1
        self._is_powered, self._is_dark = False, True
        self._compute_w = 0.0
        self._set_load()
        if self._on_brown_out is not None:
            self._on_brown_out()
        return load_w
