"""Sunlight: the shadow is a cone, its edges lie where an independent ephemeris puts them."""

import warnings
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from skyfield.api import EarthSatellite, Loader, Timescale
from skyfield.jpllib import SpiceKernel
from skyfield_data import get_skyfield_data_path

from hil.world import orbits
from hil.world.frames import EARTH_RADIUS_KM, NS_PER_DAY, UNIX_EPOCH_JD, julian_dates
from hil.world.sun import SUN_ANGLE_RAD, sun_direction, sunlight, sunlit_intervals

EPOCH_UTC_NS = 1_790_812_800_000_000_000  # 2026-10-01T00:00:00Z


@pytest.fixture(scope="module")
def sky() -> Iterator[tuple[Timescale, SpiceKernel]]:
    """Time scale and ephemeris from files that come with the tests' packages; nothing is fetched."""
    with warnings.catch_warnings():
        # The package warns that its table of UT1 is old; the time scale that is built in stands in for it here.
        warnings.filterwarnings("ignore", message="The file finals2000A.all has expired", category=RuntimeWarning)
        loader = Loader(get_skyfield_data_path(), expire=False)
    ephemeris = loader("de421.bsp")
    yield loader.timescale(builtin=True), ephemeris
    ephemeris.close()


def test_the_sun_stands_where_the_ephemeris_has_it(sky: tuple[Timescale, SpiceKernel]) -> None:
    timescale, ephemeris = sky
    whole, days = julian_dates(EPOCH_UTC_NS, np.linspace(0, 365 * 86_400, 40))
    time = timescale.ut1_jd(whole + days)
    right_ascension, declination, _ = ephemeris["earth"].at(time).observe(ephemeris["sun"]).apparent().radec("date")
    theirs = np.stack(
        [
            np.cos(declination.radians) * np.cos(right_ascension.radians),
            np.cos(declination.radians) * np.sin(right_ascension.radians),
            np.sin(declination.radians),
        ],
        -1,
    )
    ours = sun_direction(whole + days)
    assert np.linalg.norm(ours, axis=-1) == pytest.approx(1.0)
    assert np.degrees(np.arccos(np.clip((ours * theirs).sum(-1), -1, 1))).max() < 0.02


def test_shadow_agrees_with_skyfield(sky: tuple[Timescale, SpiceKernel]) -> None:
    timescale, ephemeris = sky
    times_s = np.arange(0.0, 5700.0, 5.0)
    pattern = orbits.walker(8, 8, 1, 53.0, 550.0, EPOCH_UTC_NS)
    light = sunlight(pattern.positions_km(times_s), times_s, EPOCH_UTC_NS)
    time = timescale.utc(2026, 10, 1, 0, 0, times_s)
    disagreed = 0
    for row, satrec in zip(light, pattern.satrecs, strict=True):
        theirs = EarthSatellite.from_satrec(satrec, timescale).at(time).is_sunlit(ephemeris)
        assert 0.2 < 1 - theirs.mean() < 0.45
        disagreed += int(((row > 0.5) != theirs).sum())
    assert disagreed / light.size < 1e-3


def _at_angle(angle_rad: float, radius_km: float) -> np.ndarray:
    """A position (1, 1, 3) whose nadir is `angle_rad` away from the sun."""
    sun = sun_direction(np.array([UNIX_EPOCH_JD + EPOCH_UTC_NS / NS_PER_DAY]))[0]
    across = np.cross(sun, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    return (radius_km * (-np.cos(angle_rad) * sun + np.sin(angle_rad) * across))[None, None]


@pytest.mark.parametrize(("share", "expected"), [(-0.01, 0.0), (0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (1.01, 1.0)])
def test_light_is_linear_through_the_penumbra(share: float, expected: float) -> None:
    limb_rad = np.arcsin(EARTH_RADIUS_KM / 6928)
    position_km = _at_angle(limb_rad + (2 * share - 1) * SUN_ANGLE_RAD, 6928.0)
    assert sunlight(position_km, np.array([0.0]), EPOCH_UTC_NS)[0, 0] == pytest.approx(expected, abs=1e-5)


def test_the_side_towards_the_sun_is_lit_and_the_middle_of_the_shadow_dark() -> None:
    assert sunlight(_at_angle(np.pi, 6928.0), np.array([0.0]), EPOCH_UTC_NS).item() == 1.0
    assert sunlight(_at_angle(0.0, 6928.0), np.array([0.0]), EPOCH_UTC_NS).item() == 0.0


def test_sunlit_intervals_end_within_a_second_of_fine_sampling() -> None:
    pattern = orbits.walker(6, 6, 1, 53.0, 550.0, EPOCH_UTC_NS)
    coarse_s, fine_s = np.arange(0.0, 12_001.0, 30.0), np.arange(0.0, 12_000.5, 0.5)
    light = sunlight(pattern.positions_km(fine_s), fine_s, EPOCH_UTC_NS)
    rows = sunlit_intervals(pattern.positions_km(coarse_s), coarse_s, EPOCH_UTC_NS)
    for lit, intervals in zip(light > 0, rows, strict=True):
        edges_s = fine_s[1:][lit[1:] != lit[:-1]]
        ours_s = [edge_s for interval in intervals for edge_s in interval if 0.0 < edge_s < 12_000.0]
        assert len(edges_s) >= 4
        assert ours_s == pytest.approx(edges_s - 0.25, abs=0.35)


def test_sunlit_intervals_are_in_order_and_within_the_samples() -> None:
    times_s = np.arange(100.0, 12_000.0, 10.0)
    pattern = orbits.walker(6, 6, 1, 53.0, 550.0, EPOCH_UTC_NS)
    for intervals in sunlit_intervals(pattern.positions_km(times_s), times_s, EPOCH_UTC_NS):
        edges_s = [edge_s for interval in intervals for edge_s in interval]
        assert all(before_s < after_s for before_s, after_s in pairwise(edges_s))
        assert times_s[0] <= edges_s[0] < edges_s[-1] <= times_s[-1]


def test_a_dawn_dusk_orbit_at_equinox_is_lit_throughout() -> None:
    equinox_utc_ns = 1_774_051_200_000_000_000  # 2026-03-21T00:00:00Z
    times_s = np.arange(0.0, 6000.0, 10.0)
    ring = orbits.ring(("a",), 650.0, 97.98, 90.0, 0.0, equinox_utc_ns)
    positions_km = ring.positions_km(times_s)
    assert sunlit_intervals(positions_km, times_s, equinox_utc_ns) == [[(0.0, times_s[-1])]]
    assert sunlight(positions_km, times_s, equinox_utc_ns).dtype == np.float32
