"""The benchmark gives back the constants of a board that has known ones, and says what it could not measure."""

import asyncio
import tomllib

import msgspec
import numpy as np
import pytest

from boards import profiles
from boards.benchmark import RUNS, WARM_RUNS, Measured, measure, measured_profile, profile_text
from boards.simulated.board import SimulatedBoard
from boards.support.readings import BoardReading
from boards.thermal_fit import fit
from flightsw.errors import BoardError, ConfigError
from flightsw.ports import Random

S = 1_000_000_000
MINUTES = 60.0
TAU_S = 500.0
"""Of the board below: 250 J/K over 0.5 W/K."""


def known(**numbers):
    """A profile with known constants on a wall that stays at its temperature."""
    base = profiles.load("raspberry-pi-5")
    numbers = {"radiator_heat_capacity_j_k": 1e9, **numbers}
    changed = {
        name: msgspec.structs.replace(getattr(base, name), value=float(value)) for name, value in numbers.items()
    }
    return msgspec.structs.replace(base, **changed)


class Table:
    """A board on a table, in simulated time: one step of the model every 0.2 s or so.

    Args:
        profile: its constants.
        die_k_w: how much hotter the sensor is for each watt of the board.
        noise_k: of the sensor.
        measures_w: whether a sensor covers its input.
    """

    def __init__(self, profile, *, die_k_w=1.5, noise_k=0.2, measures_w=True):
        self.profile = profile
        self.time_ns = 0
        self.board = SimulatedBoard(profile, self, lambda _: 1.0)
        self.random = Random(7)
        self.die_k_w, self.noise_k, self.measures_w = die_k_w, noise_k, measures_w
        self.computed_count = 0

    def now_ns(self):
        return self.time_ns

    monotonic_ns = utc_ns = now_ns

    async def rest(self, seconds):
        self.board.set_compute_load_w(0.0)
        self.time_ns += round(seconds * S)

    async def compute(self):
        self.board.set_compute_load_w(self.profile.compute_w.value)
        self.computed_count += 1
        slow = 3.0 if self.computed_count <= WARM_RUNS else self.random.uniform(0.98, 1.02)
        self.time_ns += round(slow * S / self.profile.mpix_per_s.value)
        return 1.0

    def _board_w(self):
        return self.board.truth().load_w - self.profile.bus_w.value

    def read(self):
        exact = self.board.truth().electronics_degc + self.die_k_w * self._board_w()
        degc = round((exact + self.random.gauss(0, self.noise_k)) * 2) / 2  # steps of half a kelvin
        input_w = self._board_w() if self.measures_w else None
        return BoardReading(sampled_ns=self.time_ns, soc_degc=degc, input_w=input_w)


def settled(table):
    """The table after hours at rest."""
    asyncio.run(table.rest(20 * TAU_S))
    return table


def measured(table, **options):
    return asyncio.run(measure(settled(table), **{"minutes": MINUTES, **options}))


def test_known_constants_come_back():
    """Power is exact, the rate to 2 %, the thermal constants to 5 %."""
    table = Table(known())
    found = measured(table)
    assert found.notes == ()
    assert found.runs_count == RUNS
    assert found.mpix_per_s == pytest.approx(table.profile.mpix_per_s.value, rel=0.02), "what was warm does not count"
    assert found.idle_w == pytest.approx(table.profile.idle_w.value)
    assert found.compute_w == pytest.approx(table.profile.compute_w.value)
    assert found.thermal.tau_s == pytest.approx(TAU_S, rel=0.05)
    assert found.thermal.conductance_w_k(found.compute_w) == pytest.approx(0.5, rel=0.05)
    assert found.thermal.heat_capacity_j_k(found.compute_w) == pytest.approx(250.0, rel=0.05)
    assert found.thermal.die_k == pytest.approx(1.5 * found.compute_w, rel=0.05)


@pytest.mark.parametrize(("capacity_j_k", "conductance_w_k"), [(40.0, 0.2), (120.0, 0.1), (400.0, 2.0)])
def test_constants_of_other_boards_come_back_too(capacity_j_k, conductance_w_k):
    profile = known(
        electronics_heat_capacity_j_k=capacity_j_k, conductance_w_k=conductance_w_k, compute_w=12.0, array_w=100.0
    )
    found = measured(Table(profile), minutes=90.0)
    assert found.thermal.conductance_w_k(found.compute_w) == pytest.approx(conductance_w_k, rel=0.05)
    assert found.thermal.heat_capacity_j_k(found.compute_w) == pytest.approx(capacity_j_k, rel=0.1)


def test_without_a_power_sensor_speed_and_nothing_else_is_measured():
    found = measured(Table(known(), measures_w=False))
    assert (found.idle_w, found.compute_w) == (None, None)
    power, heat = found.notes
    assert power == "power: no sensor covers all that the board draws"
    assert heat.startswith("heat: time constant ")
    assert "need the power, which was not measured" in heat
    profile = measured_profile(known(), found, "mine", "a board", "2026-11-21")
    changed = [name for name, number in profiles.numbers(profile).items() if number.flag == "V"]
    assert changed == ["mpix_per_s"]


def test_a_rise_within_the_noise_is_refused():
    found = measured(Table(known(compute_w=0.3), die_k_w=0.0, noise_k=1.0))
    assert found.thermal is None
    assert len(found.notes) == 1
    assert found.notes[0].startswith("heat: the rise of ")
    assert "is within the noise, expected at least" in found.notes[0]


def test_a_load_that_does_not_show_at_the_input_is_said():
    class Flat(Table):
        def _board_w(self):
            return 3.0

    found = measured(Flat(known()))
    assert found.compute_w is None
    assert found.notes[0] == "power: 3.00 W under load, 3.00 W at rest: computing does not show"


@pytest.mark.parametrize(
    ("options", "why"), [({"minutes": 5.0}, "minutes is 5, expected at least 6"), ({"runs": 0}, "runs is 0, expected")]
)
def test_a_measurement_that_is_too_short_is_refused(options, why):
    with pytest.raises(ConfigError, match=why):
        measured(Table(known()), **options)


# The fit


def step(tau_s, *, rise_k=20.0, minutes=30.0, shape=None):
    """(times, temperatures) of a step of power after a tenth of the time, off at six tenths."""
    times_s = np.arange(0.0, 60 * minutes, 1.0)
    on_s, off_s = 6 * minutes, 36 * minutes
    heated_s, cooled_s = np.clip(times_s, on_s, off_s) - on_s, np.maximum(times_s, off_s) - off_s
    mass = -np.expm1(-heated_s / tau_s) * np.exp(-cooled_s / tau_s)
    return times_s, 40.0 + rise_k * (mass if shape is None else shape(times_s)), on_s, off_s


def test_a_board_that_was_not_seen_to_settle_is_refused():
    with pytest.raises(BoardError, match=r"time constant of some .* s is longer than the 900 s under load"):
        fit(*step(3000.0, rise_k=60.0))


def test_a_board_that_is_not_the_model_is_refused():
    with pytest.raises(BoardError, match="the board is not the model"):
        fit(*step(100.0, shape=lambda times_s: (times_s > 200) * (times_s < 1100) * (1.5 + np.sin(times_s / 60))))


def test_too_few_readings_are_refused():
    times_s, degc, on_s, off_s = step(100.0)
    with pytest.raises(BoardError, match="7 readings of the temperature in a phase, expected at least 30"):
        fit(times_s[::30][:49], degc[::30][:49], on_s, off_s)


def test_a_board_without_a_temperature_is_refused():
    with pytest.raises(BoardError, match="0 readings"):
        fit(np.array([]), np.array([]), 1.0, 2.0)


# The profile


def test_the_profile_has_what_was_measured_with_its_source_and_the_rest_as_it_was(tmp_path):
    base = known()
    found = measured(Table(base))
    profile = measured_profile(base, found, "mine", 'Board "5"\\', "2026-11-21")
    path = tmp_path / "mine.toml"
    path.write_text(profile_text(profile))
    again = profiles.load(path)
    assert again == profile
    numbers, before = profiles.numbers(again), profiles.numbers(base)
    changed = {name for name in numbers if numbers[name] != before[name]}
    assert changed == {
        "mpix_per_s",
        "idle_w",
        "compute_w",
        "electronics_heat_capacity_j_k",
        "conductance_w_k",
    }
    assert {numbers[name].flag for name in changed} == {"V"}
    assert numbers["mpix_per_s"].source == 'measured on Board "5"\\ at 2026-11-21, median of 50 runs in the worker'
    assert again.title == base.title + '; measured on Board "5"\\'


@pytest.mark.parametrize("name", profiles.names())
def test_every_shipped_profile_is_the_same_when_it_is_written_again(name, tmp_path):
    path = tmp_path / "again.toml"
    path.write_text(profile_text(profiles.load(name)))
    assert profiles.load(path) == profiles.load(name)
    assert tomllib.loads(path.read_text())["name"] == name


def test_nothing_measured_changes_nothing_but_the_speed():
    found = Measured(1.234567, 3, None, None, None, ())
    profile = measured_profile(known(), found, "mine", "b", "d")
    assert profile.mpix_per_s.value == 1.235
    assert profile.idle_w == known().idle_w
