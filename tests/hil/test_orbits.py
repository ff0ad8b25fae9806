"""Orbits: constellations have their shape, files their errors, and frames agree with an independent implementation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sgp4.api import jday
from skyfield.api import wgs84
from skyfield.sgp4lib import theta_GMST1982

from flightsw.errors import ConfigError
from hil.world import frames, orbits

EPOCH_UTC_NS = 1_790_812_800_000_000_000  # 2026-10-01T00:00:00Z
NAMES = tuple(f"sat-{i:02d}" for i in range(1, 13))
ISS = (
    "ISS (ZARYA)\n"
    "1 25544U 98067A   08264.51782528 -.00002182  00000-0 -11606-4 0  2927\n"
    "2 25544  51.6416 247.4627 0006703 130.5360 325.0288 15.72125391563537\n"
)
"""A published example of the format."""
OMM = {
    "OBJECT_NAME": "ISS (ZARYA)",
    "OBJECT_ID": "1998-067A",
    "EPOCH": "2008-09-20T12:25:40.104192",
    "MEAN_MOTION": 15.72125391,
    "ECCENTRICITY": 0.0006703,
    "INCLINATION": 51.6416,
    "RA_OF_ASC_NODE": 247.4627,
    "ARG_OF_PERICENTER": 130.5360,
    "MEAN_ANOMALY": 325.0288,
    "NORAD_CAT_ID": 25544,
    "BSTAR": -0.11606e-4,
    "MEAN_MOTION_DOT": -0.00002182,
    "MEAN_MOTION_DDOT": 0,
}


def test_a_ring_is_even_and_keeps_its_altitude() -> None:
    ring = orbits.ring(NAMES, 500.0, 97.4, 30.0, 0.0, EPOCH_UTC_NS)
    positions_km = ring.positions_km(np.arange(0.0, 5700.0, 60.0))
    assert positions_km.shape == (12, 95, 3)
    spacing_km = np.linalg.norm(positions_km - np.roll(positions_km, -1, axis=0), axis=-1)
    assert spacing_km == pytest.approx(2 * 6878 * math.sin(math.radians(15)), rel=0.01)  # presets.md: 3,560 km
    assert np.abs(np.linalg.norm(positions_km, axis=-1) - 6878).max() < 20


def test_each_satellite_of_a_ring_leads_the_one_before() -> None:
    ring = orbits.ring(NAMES, 500.0, 50.0, 0.0, 0.0, EPOCH_UTC_NS)
    lag_s = orbits.period_s(500.0) / 12
    ahead_km = ring.positions_km(np.array([0.0]))[1, 0]
    later_km = ring.positions_km(np.array([lag_s]))[0, 0]
    assert np.linalg.norm(ahead_km - later_km) < 40


def test_an_orbit_takes_its_period() -> None:
    assert orbits.period_s(500.0) / 60 == pytest.approx(94.6, abs=0.05)  # presets.md section 2
    positions_km = orbits.ring(("a",), 500.0, 51.0, 0.0, 0.0, EPOCH_UTC_NS).positions_km(
        np.array([0.0, orbits.period_s(500.0) / 2, orbits.period_s(500.0)])
    )[0]
    assert np.linalg.norm(positions_km[2] - positions_km[0]) < 60
    assert np.linalg.norm(positions_km[1] + positions_km[0]) < 60


def test_a_walker_pattern_spreads_planes_and_phases() -> None:
    pattern = orbits.walker(24, 6, 2, 53.0, 550.0, EPOCH_UTC_NS)
    assert pattern.names[0] == "sat-01"
    assert len(pattern.names) == 24
    nodes_deg = [math.degrees(satrec.nodeo) for satrec in pattern.satrecs]
    assert nodes_deg[::4] == pytest.approx([0, 60, 120, 180, 240, 300])
    phases_deg = [math.degrees(satrec.mo) for satrec in pattern.satrecs]
    assert phases_deg[:4] == pytest.approx([0, 90, 180, 270])
    assert phases_deg[4] == pytest.approx(2 * 360 / 24)
    star = orbits.walker(24, 6, 2, 87.0, 550.0, EPOCH_UTC_NS, raan_spread_deg=180.0)
    assert math.degrees(star.satrecs[-1].nodeo) == pytest.approx(150)


def test_a_formation_stays_within_its_radius_and_apart() -> None:
    cluster = orbits.formation(81, 1.0, 97.98, 650.0, EPOCH_UTC_NS, phase_deg=77.0)
    positions_km = cluster.positions_km(np.arange(0.0, 2 * orbits.period_s(650.0), 120.0))
    centre_km = positions_km.mean(axis=0)
    assert np.linalg.norm(positions_km - centre_km, axis=-1).max() < 1.1
    apart_km = np.linalg.norm(positions_km[:, None] - positions_km[None], axis=-1)
    nearest_km = (apart_km + np.where(np.eye(81) > 0, np.inf, 0)[..., None]).min(axis=1)
    assert nearest_km.min() > 0.1  # presets.md section 4: 100 to 200 m
    assert nearest_km.max() < 0.25


def test_positions_do_not_depend_on_how_many_are_asked_for_at_once() -> None:
    pattern = orbits.walker(6, 3, 1, 53.0, 550.0, EPOCH_UTC_NS)
    times_s = np.arange(0.0, 1500.0, 10.0)
    assert np.array_equal(pattern.positions_km(times_s)[:, 97:99], pattern.positions_km(times_s[97:99]))


def test_the_epoch_of_generated_elements_is_the_constellation_s() -> None:
    satrec = orbits.ring(("a",), 500.0, 51.0, 0.0, 0.0, EPOCH_UTC_NS).satrecs[0]
    assert satrec.jdsatepoch + satrec.jdsatepochF == pytest.approx(sum(jday(2026, 10, 1, 0, 0, 0)), abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "expectation"),
    [
        ((24, 5, 0, 53.0, 550.0), "planes is 5, expected a divisor of the 24"),
        ((24, 6, 6, 53.0, 550.0), "phasing is 6, expected 0 to 5"),
        ((0, 1, 0, 53.0, 550.0), "total is 0"),
        ((24, 6, 1, 181.0, 550.0), "inclination_deg is 181"),
        ((24, 6, 1, 53.0, 35_786.0), "altitude_km is 35786"),
    ],
)
def test_a_walker_pattern_out_of_range_is_refused(
    arguments: tuple[int, int, int, float, float], expectation: str
) -> None:
    with pytest.raises(ConfigError, match=expectation):
        orbits.walker(*arguments, epoch_utc_ns=EPOCH_UTC_NS)


def test_a_name_used_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sat-01' is used twice"):
        orbits.ring(("sat-01", "sat-01"), 500.0, 97.4, 0.0, 0.0, EPOCH_UTC_NS)


def test_an_orbit_that_sgp4_cannot_propagate_is_reported_with_its_name(tmp_path: Path) -> None:
    decaying = dict(OMM, BSTAR=1.0)
    file = tmp_path / "decaying.json"
    file.write_text(json.dumps([decaying]))
    constellation = orbits.load_omm(file)
    with pytest.raises(ConfigError, match=r"ISS \(ZARYA\): no position 8640000 s after the epoch"):
        constellation.positions_km(np.array([0.0, 8_640_000.0]))


def test_a_two_line_set_gives_name_epoch_and_orbit(tmp_path: Path) -> None:
    file = tmp_path / "iss.tle"
    file.write_text(ISS)
    constellation = orbits.load_tle(file)
    assert constellation.names == ("ISS (ZARYA)",)
    assert constellation.epoch_utc_ns == pytest.approx(
        1_221_913_540_104_192_000, abs=5_000
    )  # 2008-09-20T12:25:40.104192
    radius_km = np.linalg.norm(constellation.positions_km(np.arange(0.0, 5400.0, 60.0)), axis=-1)
    assert 6_700 < radius_km.min() < radius_km.max() < 6_745
    later = orbits.load_tle(file, constellation.epoch_utc_ns + 60_000_000_000)
    assert later.positions_km(np.array([0.0])) == pytest.approx(constellation.positions_km(np.array([60.0])), abs=1e-3)


def test_an_element_set_without_a_name_gets_its_catalogue_number(tmp_path: Path) -> None:
    file = tmp_path / "iss.tle"
    file.write_text(ISS.split("\n", 1)[1])
    assert orbits.load_tle(file).names == ("norad-25544",)


@pytest.mark.parametrize(
    ("damage", "expectation"),
    [
        (lambda text: text.replace("51.6416", "51.6417"), r"iss\.tle:3: checksum '7', expected '8'"),
        (lambda text: text.replace("2 25544", "2 25545"), r"iss\.tle:3: checksum"),
        (lambda text: text.rsplit("\n", 2)[0] + "\n", "ends within the element set"),
        (lambda text: text.replace("563537", "56"), r"iss\.tle:3: .*69 columns"),
        (lambda text: text + "FIRST\nSECOND\n", r"iss\.tle:5: 'SECOND', expected element line 1 of 'FIRST'"),
        (lambda _: "", "holds no satellite"),
        (lambda text: text + text, "used twice"),
    ],
)
def test_a_damaged_two_line_set_is_refused_with_file_and_line(tmp_path: Path, damage, expectation: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "iss.tle"
    file.write_text(damage(ISS))
    with pytest.raises(ConfigError, match=expectation):
        orbits.load_tle(file)


def _as_csv(record: dict[str, object]) -> str:
    return ",".join(record) + "\n" + ",".join(str(value) for value in record.values()) + "\n"


def _as_xml(record: dict[str, object]) -> str:
    fields = "".join(f"<{key}>{value}</{key}>" for key, value in record.items())
    return f"<ndm><omm><body><segment><data>{fields}</data></segment></body></omm></ndm>"


@pytest.mark.parametrize(("suffix", "write"), [("json", json.dumps), ("csv", _as_csv), ("xml", _as_xml)])
def test_all_forms_of_an_omm_give_the_orbit_of_the_two_line_set(tmp_path: Path, suffix: str, write) -> None:  # type: ignore[no-untyped-def]
    tle, file = tmp_path / "iss.tle", tmp_path / f"iss.{suffix}"
    tle.write_text(ISS)
    file.write_text(write(OMM))
    times_s = np.array([0.0, 3000.0])
    assert orbits.load_omm(file).names == ("ISS (ZARYA)",)
    assert orbits.load_omm(file, EPOCH_UTC_NS // 2).positions_km(times_s) == pytest.approx(
        orbits.load_tle(tle, EPOCH_UTC_NS // 2).positions_km(times_s), abs=1.0
    )


@pytest.mark.parametrize(
    ("name", "text", "expectation"),
    [
        ("a.json", "[{]", r"a\.json:1: not JSON"),
        ("a.json", "[3]", "record 1: 3, expected an object"),
        ("a.json", json.dumps([OMM, dict(OMM, BSTAR="x")]), "record 2: BSTAR is 'x', expected a number"),
        ("a.json", json.dumps({k: v for k, v in OMM.items() if k != "EPOCH"}), "EPOCH is missing"),
        ("a.json", json.dumps(dict(OMM, EPOCH="yesterday")), "record 1: .*yesterday"),
        ("a.json", json.dumps(dict(OMM, MEAN_MOTION=-1)), "mean motion"),
        ("a.csv", _as_csv(dict(OMM, ECCENTRICITY="nan")), r"a\.csv:2: ECCENTRICITY is 'nan'"),
        ("a.xml", "<ndm>", r"a\.xml:1: not XML"),
        ("a.kvn", "", r"suffix '\.kvn', expected one of"),
    ],
)
def test_a_damaged_omm_is_refused_with_file_and_field(tmp_path: Path, name: str, text: str, expectation: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=expectation):
        orbits.load_omm(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.tle: cannot be read"):
        orbits.load_tle(tmp_path / "none.tle")


def test_sidereal_time_agrees_with_skyfield() -> None:
    whole, days = frames.julian_dates(EPOCH_UTC_NS + 123_456_789, np.arange(0.0, 86_400.0, 977.0))
    theirs = np.array([theta_GMST1982(whole, day)[0] for day in days])
    difference = (frames.gmst_rad(whole, days) - theirs + math.pi) % math.tau - math.pi
    assert np.abs(difference).max() < 1e-9


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (78.2, 15.4, 500e3), (-33.3, -70.6, 1.2e6), (89.9, 10.0, 4e5)])
def test_geodetic_places_agree_with_skyfield_and_come_back(place: tuple[float, float, float]) -> None:
    latitude_deg, longitude_deg, altitude_m = place
    ours_km = frames.earth_fixed_km(*place)
    theirs_km = wgs84.latlon(latitude_deg, longitude_deg, altitude_m).itrs_xyz.km
    assert ours_km == pytest.approx(tuple(theirs_km), abs=1e-6)
    back = frames.geodetic_deg_km(np.array([ours_km]), np.array([0.0]))
    assert [float(value[0]) for value in back] == pytest.approx(
        [latitude_deg, longitude_deg, altitude_m / 1000], abs=1e-5
    )
