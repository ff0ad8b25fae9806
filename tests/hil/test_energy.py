"""Battery and heat of many nodes: the documented equations, and the numbers of the simulated board."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from boards import profiles
from boards.simulated.board import SimulatedBoard
from flightsw.errors import ConfigError
from hil.world.energy import STEFAN_BOLTZMANN_W_M2_K4, EnergyParameters, EnergyState, step

NS_PER_S = 1_000_000_000


def _parameters(count: int = 1, **values: float) -> EnergyParameters:
    """The 220 W node of the reference orbit, or with other values."""
    defaults = {
        "array_w": 220.0,
        "battery_j": 300 * 3600.0,
        "charge_efficiency": 0.96,
        "discharge_efficiency": 0.97,
        "electronics_heat_capacity_j_k": 4000.0,
        "radiator_heat_capacity_j_k": 6000.0,
        "conductance_w_k": 6.0,
        "radiator_area_m2": 1.2,
        "emissivity": 0.85,
        "absorbed_sun_w": 120.0,
        "absorbed_albedo_ir_w": 40.0,
    }
    return EnergyParameters(**{name: np.full(count, value) for name, value in (defaults | values).items()})


def _state(charge_j: float = 540_000.0, electronics_k: float = 290.0, radiator_k: float = 270.0) -> EnergyState:
    return EnergyState(np.array([charge_j]), np.array([electronics_k]), np.array([radiator_k]))


def _one(value: float) -> np.ndarray:
    return np.array([value])


def test_heat_agrees_with_an_adaptive_integrator_over_an_orbit() -> None:
    p = _parameters()

    def slope(_: float, y: np.ndarray) -> list[float]:
        conducted_w = 6.0 * (y[0] - y[1])
        radiated_w = 0.85 * STEFAN_BOLTZMANN_W_M2_K4 * 1.2 * y[1] ** 4
        return [(220.0 - conducted_w) / 4000.0, (conducted_w + 120.0 + 40.0 - radiated_w) / 6000.0]

    exact = solve_ivp(slope, (0, 5700), [290.0, 270.0], rtol=1e-9).y[:, -1]
    state = _state()
    for _ in range(570):
        state = step(p, state, _one(1.0), _one(220.0), 10.0)
    assert [state.electronics_k[0], state.radiator_k[0]] == pytest.approx(exact, abs=0.01)


def test_a_long_time_is_cut_into_short_steps() -> None:
    p, whole, parts = _parameters(), _state(), _state()
    whole = step(p, whole, _one(0.5), _one(100.0), 60.0)
    for _ in range(12):
        parts = step(p, parts, _one(0.5), _one(100.0), 5.0)
    assert whole.electronics_k == parts.electronics_k
    assert whole.radiator_k == parts.radiator_k
    assert whole.charge_j == parts.charge_j


def test_the_given_state_stays_as_it_is() -> None:
    state = _state()
    step(_parameters(), state, _one(1.0), _one(10.0), 10.0)
    assert (state.charge_j[0], state.electronics_k[0], state.radiator_k[0]) == (540_000.0, 290.0, 270.0)


def test_surplus_is_stored_with_its_loss_and_a_deficit_drawn_with_its_own() -> None:
    p = _parameters()
    stored = step(p, _state(), _one(1.0), _one(120.0), 10.0)
    assert stored.charge_j[0] - 540_000.0 == pytest.approx(10 * 100.0 * 0.96)
    drawn = step(p, _state(), _one(0.0), _one(97.0), 10.0)
    assert 540_000.0 - drawn.charge_j[0] == pytest.approx(10 * 97.0 / 0.97)


@given(st.floats(0, 1), st.floats(0, 2_000), st.floats(0, 1_080_000), st.floats(0, 600))
def test_charge_stays_between_empty_and_full(light: float, load_w: float, charge_j: float, dt_s: float) -> None:
    after = step(_parameters(), _state(charge_j), _one(light), _one(load_w), dt_s)
    assert 0.0 <= after.charge_j[0] <= 1_080_000.0


def test_in_balance_the_radiator_sheds_what_the_node_takes_in() -> None:
    state = _state(electronics_k=240.0, radiator_k=220.0)
    for _ in range(400):
        state = step(_parameters(), state, _one(0.0), _one(100.0), 60.0)
    radiated_w = 0.85 * STEFAN_BOLTZMANN_W_M2_K4 * 1.2 * state.radiator_k[0] ** 4
    assert radiated_w == pytest.approx(140.0, rel=1e-3)
    assert state.electronics_k[0] - state.radiator_k[0] == pytest.approx(100.0 / 6.0, rel=1e-3)


def test_many_nodes_step_as_each_would_alone() -> None:
    p = _parameters(3)
    p = replace(p, array_w=np.array([100.0, 200.0, 300.0]), conductance_w_k=np.array([2.0, 6.0, 9.0]))
    light, load_w = np.array([0.0, 0.4, 1.0]), np.array([50.0, 150.0, 80.0])
    state = EnergyState(np.full(3, 5e5), np.array([280.0, 290.0, 300.0]), np.full(3, 270.0))
    together = step(p, state, light, load_w, 30.0)
    for i in range(3):
        alone = step(
            EnergyParameters(*(getattr(p, name)[i : i + 1] for name in EnergyParameters.__slots__)),
            EnergyState(state.charge_j[i : i + 1], state.electronics_k[i : i + 1], state.radiator_k[i : i + 1]),
            light[i : i + 1],
            load_w[i : i + 1],
            30.0,
        )
        assert alone.charge_j[0] == together.charge_j[i]
        assert alone.electronics_k[0] == together.electronics_k[i]
        assert alone.radiator_k[0] == together.radiator_k[i]


class _HandClock:
    """A clock that the test sets."""

    now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def utc_ns(self) -> int:
        return self.now_ns


def test_the_simulated_board_has_the_same_numbers() -> None:
    profile = profiles.load("raspberry-pi-4")
    clock = _HandClock()
    board = SimulatedBoard(profile, clock, lambda now_ns: 1.0 if now_ns // NS_PER_S < 1800 else 0.0)
    sensors = board.sensors()
    names = [name for name in EnergyParameters.__slots__ if name not in ("battery_j", "emissivity")]
    p = EnergyParameters(
        battery_j=_one(sensors.battery_j),
        emissivity=_one(profile.radiator_emissivity.value),
        **{name: _one(getattr(profile, name).value) for name in names},
    )
    state = _state(sensors.charge_j, sensors.electronics_degc + 273.15, board.radiator_degc() + 273.15)
    for second in range(0, 3600, 10):
        state = step(p, state, _one(1.0 if second < 1800 else 0.0), _one(sensors.load_w), 10.0)
        clock.now_ns += 10 * NS_PER_S
        ours = (state.charge_j[0], state.electronics_k[0] - 273.15)
        theirs = board.sensors()
        assert ours == pytest.approx((theirs.charge_j, theirs.electronics_degc), rel=1e-12)
    assert state.charge_j[0] < sensors.battery_j


@pytest.mark.parametrize(
    ("name", "value", "expectation"),
    [
        ("charge_efficiency", 1.1, "charge_efficiency of node 0 is 1.1, expected above 0 and at most 1"),
        ("discharge_efficiency", 0.0, "discharge_efficiency of node 0 is 0.0, expected above 0"),
        ("radiator_heat_capacity_j_k", 0.0, "radiator_heat_capacity_j_k of node 0 is 0.0, expected above 0"),
        ("array_w", -1.0, "array_w of node 0 is -1.0, expected at least 0"),
        ("battery_j", float("nan"), "battery_j of node 0 is nan"),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, value: float, expectation: str) -> None:
    with pytest.raises(ConfigError, match=expectation):
        _parameters(**{name: value})
