"""The simulated board: energy is never spent that is not there, and the physics is the documented physics."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from boards import profiles
from boards.simulated.board import INITIAL_DEGC, KELVIN, STEFAN_BOLTZMANN_W_M2_K4, SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.ports import ResetCause

NS_PER_S = 1_000_000_000
PI_4 = profiles.load("raspberry-pi-4")
ORBIT_S, ECLIPSE_S = 5676, 2160


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def utc_ns(self) -> int:
        return self.now_ns

    def wait_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS_PER_S)


def orbit_sunlight(now_ns: int) -> float:
    return 1.0 if now_ns % (ORBIT_S * NS_PER_S) >= ECLIPSE_S * NS_PER_S else 0.0


def test_the_battery_pays_the_load_through_the_discharge_efficiency() -> None:
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 0.0)
    before_j = board.sensors().charge_j
    clock.wait_s(100)
    load_w = PI_4.bus_w.value + PI_4.idle_w.value
    assert board.sensors().load_w == load_w
    assert before_j - board.sensors().charge_j == pytest.approx(100 * load_w / PI_4.discharge_efficiency.value)


def test_the_array_charges_what_the_load_leaves_and_never_beyond_the_capacity() -> None:
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 0.5, initial_charge_share=0.5)
    before_j = board.sensors().charge_j
    net_w = 0.5 * PI_4.array_w.value - PI_4.bus_w.value - PI_4.idle_w.value
    clock.wait_s(100)
    assert board.sensors().charge_j - before_j == pytest.approx(100 * net_w * PI_4.charge_efficiency.value)
    clock.wait_s(1e6)
    assert board.sensors().charge_j == board.sensors().battery_j
    assert board.account.shunted_j > 0


def test_compute_load_counts_from_the_instant_that_it_is_set() -> None:
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 0.0)
    clock.wait_s(3)
    board.set_compute_load_w(10.0)
    clock.wait_s(7)
    board.set_compute_load_w(0.0)
    clock.wait_s(5)
    assert board.account.drawn_j == pytest.approx(15 * (PI_4.bus_w.value + PI_4.idle_w.value) + 7 * 10.0)


def test_temperatures_agree_with_an_adaptive_solver_over_an_orbit() -> None:
    load_w = PI_4.bus_w.value + PI_4.idle_w.value + PI_4.compute_w.value
    g, e_j_k, r_j_k = (
        PI_4.conductance_w_k.value,
        PI_4.electronics_heat_capacity_j_k.value,
        PI_4.radiator_heat_capacity_j_k.value,
    )
    radiated = PI_4.radiator_emissivity.value * STEFAN_BOLTZMANN_W_M2_K4 * PI_4.radiator_area_m2.value
    absorbed_w = PI_4.absorbed_sun_w.value + PI_4.absorbed_albedo_ir_w.value

    def slope(_: float, kelvin: tuple[float, float]) -> tuple[float, float]:
        q_w = g * (kelvin[0] - kelvin[1])
        return (load_w - q_w) / e_j_k, (q_w + absorbed_w - radiated * kelvin[1] ** 4) / r_j_k

    start_k = INITIAL_DEGC + KELVIN
    exact = solve_ivp(slope, (0, ORBIT_S), [start_k, start_k], rtol=1e-9)
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 1.0)
    board.set_compute_load_w(PI_4.compute_w.value)
    clock.wait_s(ORBIT_S)
    assert board.sensors().electronics_degc + KELVIN == pytest.approx(exact.y[0, -1], abs=0.01)
    assert board.radiator_degc() + KELVIN == pytest.approx(exact.y[1, -1], abs=0.01)


def test_an_empty_battery_in_the_dark_is_a_brown_out_and_nothing_is_drawn_after_it() -> None:
    clock, calls = HandClock(), []
    board = SimulatedBoard(PI_4, clock, lambda _: 0.0, 0.01, on_brown_out=lambda: calls.append(clock.now_ns))
    board.set_compute_load_w(50.0)
    clock.wait_s(3600)
    assert board.sensors().charge_j == 0.0
    assert (calls, board.brown_outs_count, board.is_powered) == ([clock.now_ns], 1, False)
    drawn_j = board.account.drawn_j
    assert drawn_j == pytest.approx(0.01 * board.sensors().battery_j * PI_4.discharge_efficiency.value)
    clock.wait_s(3600)
    board.set_compute_load_w(50.0)
    assert (board.account.drawn_j, board.sensors().load_w) == (drawn_j, 0.0)


def test_after_a_brown_out_in_weak_light_the_array_charges_the_battery_alone() -> None:
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 0.1, initial_charge_share=0.0)
    clock.wait_s(5)
    assert board.sensors().charge_j == pytest.approx(0.1 * PI_4.array_w.value * 5 * PI_4.charge_efficiency.value)
    assert board.account.drawn_j == 0.0


def test_a_dark_node_recharges_and_boots_with_its_cause() -> None:
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda now_ns: float(now_ns > 3600 * NS_PER_S), 0.01)
    clock.wait_s(4600)
    charge_j = board.sensors().charge_j
    assert charge_j == pytest.approx(1000 * PI_4.array_w.value * PI_4.charge_efficiency.value, rel=0.01)
    board.power_on(ResetCause.BROWN_OUT)
    assert board.reset_cause() is ResetCause.BROWN_OUT
    assert board.sensors().load_w == PI_4.bus_w.value + PI_4.idle_w.value


def test_a_node_without_power_leaves_the_bus_its_load() -> None:
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 1.0)
    board.set_compute_load_w(3.0)
    board.power_off()
    assert board.sensors().load_w == PI_4.bus_w.value
    board.power_on(ResetCause.POWER_CYCLE)
    assert board.sensors().load_w == PI_4.bus_w.value + PI_4.idle_w.value


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "load", "off", "on"]), st.floats(0, 2000, allow_subnormal=False), st.floats(0, 1)
    ),
    max_size=25,
)


@given(STEPS, st.floats(0, 1))
def test_energy_is_conserved_and_never_spent_without_being_there(
    steps: list[tuple[str, float, float]], initial_share: float
) -> None:
    clock, light = HandClock(), [0.0]
    board = SimulatedBoard(PI_4, clock, lambda _: light[0], initial_share)
    for action, number, sunlight in steps:
        if action == "wait":
            light[0] = sunlight
            clock.wait_s(number)
        elif action == "load":
            board.set_compute_load_w(number)
        elif action == "off":
            board.power_off()
        else:
            board.power_on(ResetCause.POWER_ON)
        sensors, account = board.sensors(), board.account
        assert 0.0 <= sensors.charge_j <= sensors.battery_j
        assert account.unserved_j == 0.0
        assert account.drawn_j <= account.initial_j + account.harvested_j + 1e-6
        spent_j = account.drawn_j + account.lost_j + account.shunted_j + sensors.charge_j
        assert spent_j == pytest.approx(account.initial_j + account.harvested_j, rel=1e-9, abs=1e-6)
        assert min(account.lost_j, account.shunted_j) >= -1e-6
        assert math.isfinite(sensors.electronics_degc)


@given(st.lists(st.integers(1, 30 * NS_PER_S), max_size=30))
def test_asking_more_often_changes_nothing_but_rounding(gaps_ns: list[int]) -> None:
    asked, left = HandClock(), HandClock()
    often = SimulatedBoard(PI_4, asked, orbit_sunlight)
    seldom = SimulatedBoard(PI_4, left, orbit_sunlight)
    for gap_ns in gaps_ns:
        asked.now_ns += gap_ns
        often.sensors()
    left.now_ns = asked.now_ns
    assert often.sensors().charge_j == pytest.approx(seldom.sensors().charge_j, rel=1e-9)
    assert often.sensors().electronics_degc == pytest.approx(seldom.sensors().electronics_degc, abs=0.05)


def test_mission_time_drifts_and_jumps_and_monotonic_time_does_neither() -> None:
    now_ns = [0]
    clock = LoopClock(lambda: now_ns[0], epoch_utc_ns=1_000)
    now_ns[0] = 100 * NS_PER_S
    assert (clock.monotonic_ns(), clock.utc_ns()) == (100 * NS_PER_S, 100 * NS_PER_S + 1_000)
    clock.set_drift_ppb(20_000)
    assert clock.utc_ns() == 100 * NS_PER_S + 1_000
    now_ns[0] = 200 * NS_PER_S
    assert clock.utc_ns() == 200 * NS_PER_S + 1_000 + 2_000_000
    clock.set_drift_ppb(0)
    clock.jump(-5 * NS_PER_S)
    now_ns[0] = 300 * NS_PER_S
    assert clock.utc_ns() == 295 * NS_PER_S + 1_000 + 2_000_000
    assert clock.monotonic_ns() == 300 * NS_PER_S
