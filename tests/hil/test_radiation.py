"""Trapped protons: the South Atlantic Anomaly is where AP-8 has it, and interpolation stays between its maps."""

from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from hil.world import orbits
from hil.world.radiation import ProtonMap, upset_rate_hz

EPOCH_UTC_NS = 1_790_812_800_000_000_000  # 2026-10-01T00:00:00Z
DATA_BYTES_MAX = 100_000  # the maps travel in every wheel
LATITUDES_DEG, LONGITUDES_DEG = np.meshgrid(np.arange(-87.5, 90, 5.0), np.arange(-177.5, 180, 5.0), indexing="ij")


def _at(protons: ProtonMap, latitude_deg: float, longitude_deg: float, altitude_km: float) -> float:
    return float(protons.at(np.array([latitude_deg]), np.array([longitude_deg]), np.array([altitude_km]))[0])


@pytest.mark.parametrize("solar", ["min", "max"])
@pytest.mark.parametrize("energy_mev", [10, 30, 50])
def test_the_anomaly_peaks_over_the_south_atlantic(solar, energy_mev: int) -> None:  # type: ignore[no-untyped-def]
    flux = ProtonMap.load(solar, energy_mev).at(LATITUDES_DEG, LONGITUDES_DEG, np.full(LATITUDES_DEG.shape, 550.0))
    peak = np.unravel_index(flux.argmax(), flux.shape)
    assert LATITUDES_DEG[peak] == pytest.approx(-30, abs=15)
    assert LONGITUDES_DEG[peak] == pytest.approx(-40, abs=15)


def test_mean_and_peak_agree_with_the_figures_of_the_model() -> None:
    flux = ProtonMap.load("min", 10).at(LATITUDES_DEG, LONGITUDES_DEG, np.full(LATITUDES_DEG.shape, 550.0))
    inside = np.abs(LATITUDES_DEG) < 53
    assert flux[inside].mean() == pytest.approx(47, rel=0.2)  # hazards.md section 2
    assert flux.max() == pytest.approx(2.0e3, rel=0.3)
    assert (flux[inside] > 0).mean() == pytest.approx(0.12, abs=0.03)


def test_flux_falls_with_energy_and_at_solar_maximum_and_rises_with_altitude() -> None:
    place = (-30.0, -40.0)
    by_energy = [_at(ProtonMap.load("min", energy), *place, 550.0) for energy in (10, 30, 50)]
    assert by_energy == sorted(by_energy, reverse=True)
    assert _at(ProtonMap.load("max", 30), *place, 550.0) < by_energy[1]
    by_altitude = [_at(ProtonMap.load("min", 30), *place, altitude_km) for altitude_km in range(400, 1201, 50)]
    assert by_altitude == sorted(by_altitude)


def test_a_cell_s_centre_has_the_value_of_the_map() -> None:
    protons = ProtonMap.load("min", 30)
    for level, altitude_km in enumerate(protons.altitudes_km):
        flux = protons.at(LATITUDES_DEG, LONGITUDES_DEG, np.full(LATITUDES_DEG.shape, altitude_km))
        assert flux == pytest.approx(protons.flux_cm2_s[level].astype(float), rel=1e-6)


def test_between_altitudes_the_logarithm_is_linear() -> None:
    protons = ProtonMap.load("min", 30)
    low, middle, high = (_at(protons, -32.5, -42.5, altitude_km) for altitude_km in (600.0, 700.0, 800.0))
    assert middle == pytest.approx((low * high) ** 0.5, rel=1e-6)


def test_beside_flux_that_is_zero_altitude_is_linear() -> None:
    grids = np.zeros((2, 36, 72), np.float32)
    grids[1] = 8.0
    protons = ProtonMap(np.array([400.0, 500.0]), grids)
    assert _at(protons, 0.0, 0.0, 425.0) == pytest.approx(2.0)


def test_outside_the_shipped_altitudes_the_nearest_map_holds() -> None:
    protons = ProtonMap.load("min", 30)
    assert _at(protons, -30.0, -40.0, 325.0) == _at(protons, -30.0, -40.0, 400.0)
    assert _at(protons, -30.0, -40.0, 1_500.0) == _at(protons, -30.0, -40.0, 1_200.0)


def test_the_map_closes_at_the_date_line() -> None:
    grids = np.zeros((1, 36, 72), np.float32)
    grids[..., 71], grids[..., 0] = 2.0, 6.0  # the cells on both sides of it
    protons = ProtonMap(np.array([400.0]), grids)
    flux = [_at(protons, 0.0, longitude_deg, 400.0) for longitude_deg in (178.75, 180.0, -180.0, -178.75)]
    assert flux == pytest.approx([3.0, 4.0, 4.0, 5.0])


def test_drift_moves_the_anomaly_west() -> None:
    assert _at(ProtonMap.load("min", 30, drift_deg=15.0), -30.0, -55.0, 550.0) == pytest.approx(
        _at(ProtonMap.load("min", 30), -30.0, -40.0, 550.0)
    )


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(200, 2_000))
@settings(max_examples=60)
def test_flux_is_never_negative_nor_above_the_map(
    latitude_deg: float, longitude_deg: float, altitude_km: float
) -> None:
    protons = ProtonMap.load("max", 10)
    flux = _at(protons, latitude_deg, longitude_deg, altitude_km)
    assert 0 <= flux <= protons.flux_cm2_s.max() * (1 + 1e-6)


def test_flux_along_an_orbit_is_that_of_the_places_below() -> None:
    times_s = np.arange(0.0, 11_400.0, 10.0)
    positions_km = orbits.walker(40, 8, 1, 53.0, 550.0, EPOCH_UTC_NS).positions_km(times_s)
    flux = ProtonMap.load("min", 10).flux(positions_km, times_s, EPOCH_UTC_NS)
    assert flux.shape == (40, len(times_s))
    assert flux.dtype == np.float64
    assert 0.05 < (flux > 0).mean() < 0.25
    assert 30 < flux.mean() < 150
    split = ProtonMap.load("min", 10).flux(positions_km[7:8], times_s, EPOCH_UTC_NS)
    assert np.array_equal(split[0], flux[7])


def test_upsets_are_flux_times_cross_section() -> None:
    assert upset_rate_hz(2_000.0, 1e-9) == pytest.approx(2e-6)
    assert upset_rate_hz(np.array([0.0, 100.0]), 1e-8) == pytest.approx([0.0, 1e-6])


def test_a_map_that_is_not_shipped_is_refused() -> None:
    with pytest.raises(ConfigError, match="no map for 'min', 20 MeV; expected one of min 10"):
        ProtonMap.load("min", 20)


def test_the_shipped_maps_are_small_and_their_origin_is_beside_them() -> None:
    data = resources.files("hil.world") / "data"
    assert len((data / "ap8_protons.npz").read_bytes()) < DATA_BYTES_MAX
    assert "AP-8" in (data / "ap8_protons.md").read_text(encoding="utf-8")
