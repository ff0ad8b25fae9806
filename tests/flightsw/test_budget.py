import dataclasses

import pytest

from boards import profiles
from flightsw.compute.budget import COOL_DOWN_K, Budget
from flightsw.config import SunInterval
from flightsw.ports import Sensors

S = 1_000_000_000
PROFILE = profiles.load("jetson-orin-nano")
SUN = (SunInterval(0, 3600 * S), SunInterval(5700 * S, 9300 * S))


def sensors(charge_share: float, degc: float = 20.0, sunlight: float = 1.0) -> Sensors:
    battery_j = PROFILE.battery_wh.value * 3600
    return Sensors(
        charge_j=charge_share * battery_j,
        battery_j=battery_j,
        solar_w=sunlight * PROFILE.array_w.value,
        load_w=10.0,
        electronics_degc=degc,
        sunlight=sunlight,
    )


def budget() -> Budget:
    return Budget(PROFILE, SUN, reserve=0.35)


STEP_W = PROFILE.compute_w.value


def test_a_full_battery_in_the_sun_computes():
    assert budget().may_step(sensors(0.95), STEP_W, 10.0, 100 * S).allowed


def test_a_step_that_would_eat_the_reserve_of_the_coming_eclipse_is_refused():
    verdict = budget().may_step(sensors(0.36), STEP_W, 10.0, 3590 * S)
    assert not verdict.allowed
    assert verdict.reason.startswith("energy")


def test_the_forecast_counts_the_sun_that_is_left_before_the_eclipse():
    dark_soon = budget().charge_after_eclipse_j(sensors(0.5), STEP_W, 10.0, 3500 * S)
    long_sun = budget().charge_after_eclipse_j(sensors(0.5), STEP_W, 10.0, 100 * S)
    assert long_sun > dark_soon


def test_the_forecast_never_exceeds_what_idling_through_the_eclipse_leaves():
    battery_j = PROFILE.battery_wh.value * 3600
    idle_w = PROFILE.idle_w.value + PROFILE.bus_w.value
    left_j = budget().charge_after_eclipse_j(sensors(1.0), STEP_W, 10.0, 0)
    assert left_j == pytest.approx(battery_j - idle_w * 2100 / PROFILE.discharge_efficiency.value)


def test_in_the_dark_only_the_rest_of_the_eclipse_counts():
    early = budget().charge_after_eclipse_j(sensors(0.6, sunlight=0.0), STEP_W, 10.0, 3700 * S)
    late = budget().charge_after_eclipse_j(sensors(0.6, sunlight=0.0), STEP_W, 10.0, 5600 * S)
    assert late > early


def test_a_hot_node_pauses_and_resumes_only_when_it_has_cooled():
    limit_degc = PROFILE.electronics_max_degc.value
    judge = budget()
    assert not judge.may_step(sensors(0.95, limit_degc), STEP_W, 10.0, 0).allowed
    assert not judge.may_step(sensors(0.95, limit_degc - COOL_DOWN_K / 2), STEP_W, 10.0, 0).allowed
    assert judge.may_step(sensors(0.95, limit_degc - COOL_DOWN_K - 0.1), STEP_W, 10.0, 0).allowed


def test_where_the_prediction_ends_in_sunlight_the_charge_after_the_step_counts():
    judge = Budget(PROFILE, (SunInterval(0, 3600 * S),), reserve=0.35)
    low = dataclasses.replace(sensors(0.3), solar_w=0.0)
    assert not judge.may_step(low, STEP_W, 10.0, 100 * S).allowed
    assert judge.may_step(sensors(0.9), STEP_W, 10.0, 100 * S).allowed
