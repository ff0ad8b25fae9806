"""Contacts: windows have the right edges and ranges, and antennas serve one satellite at a time."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyfield.api import EarthSatellite, Loader, wgs84
from skyfield_data import get_skyfield_data_path

from flightsw.errors import ConfigError
from hil.world import orbits
from hil.world.contacts import (
    Station,
    Window,
    assign_antennas,
    elevation_deg,
    isl_windows,
    plus_grid_pairs,
    ring_pairs,
    station_windows,
)
from hil.world.frames import EARTH_RADIUS_KM

EPOCH_UTC_NS = 1_790_812_800_000_000_000  # 2026-10-01T00:00:00Z
BONN = Station("bonn", 50.0, 8.0, 200.0, 10.0, 1)
SVALBARD = Station("svalbard", 78.23, 15.41, 400.0, 5.0, 2)
TIMES_S = np.arange(0.0, 11_401.0, 10.0)
PATTERN = orbits.walker(24, 6, 1, 53.0, 550.0, EPOCH_UTC_NS)
POSITIONS_KM = PATTERN.positions_km(TIMES_S)


def test_elevation_agrees_with_skyfield() -> None:
    with warnings.catch_warnings():
        # The package warns that its table of UT1 is old; the time scale that is built in stands in for it here.
        warnings.filterwarnings("ignore", message="The file finals2000A.all has expired", category=RuntimeWarning)
        timescale = Loader(get_skyfield_data_path(), expire=False).timescale(builtin=True)
    time = timescale.utc(2026, 10, 1, 0, 0, TIMES_S[::10])
    ours_deg = elevation_deg(POSITIONS_KM[:4, ::10], TIMES_S[::10], EPOCH_UTC_NS, BONN)
    place = wgs84.latlon(BONN.latitude_deg, BONN.longitude_deg, BONN.altitude_m)
    for row_deg, satrec in zip(ours_deg, PATTERN.satrecs, strict=False):
        theirs_deg = (EarthSatellite.from_satrec(satrec, timescale) - place).at(time).altaz()[0].degrees
        assert np.abs(row_deg - theirs_deg).max() <= 0.02


def test_windows_begin_and_end_at_the_least_elevation_within_a_second() -> None:
    fine_s = np.arange(0.0, 11_400.5, 0.5)
    windows = station_windows(POSITIONS_KM, TIMES_S, EPOCH_UTC_NS, [BONN])
    assert len(windows) > 10
    for satellite in range(6):
        positions_km = orbits.Constellation(
            PATTERN.names[satellite : satellite + 1], PATTERN.satrecs[satellite : satellite + 1], EPOCH_UTC_NS
        ).positions_km(fine_s)
        in_view = elevation_deg(positions_km, fine_s, EPOCH_UTC_NS, BONN)[0] > 10.0
        edges_s = fine_s[1:][in_view[1:] != in_view[:-1]]
        own = [window for window in windows if window.a == satellite]
        ours_s = [t for window in own for t in (window.start_s, window.end_s) if 0.0 < t < TIMES_S[-1]]
        assert ours_s == pytest.approx(edges_s - 0.25, abs=0.35)


def test_coarse_samples_still_find_the_edges_within_a_second() -> None:
    coarse_s = TIMES_S[::3]
    fine = station_windows(POSITIONS_KM, TIMES_S, EPOCH_UTC_NS, [BONN, SVALBARD])
    by_pass = {(window.a, window.b, round(window.start_s / 300)): window for window in fine}
    coarse = station_windows(POSITIONS_KM[:, ::3], coarse_s, EPOCH_UTC_NS, [BONN, SVALBARD])
    assert len(coarse) >= 0.9 * len(fine)
    matched = 0
    for window in coarse:
        if other := by_pass.get((window.a, window.b, round(window.start_s / 300))):
            matched += 1
            assert abs(window.start_s - other.start_s) < 1.0
            assert abs(window.end_s - other.end_s) < 1.0 or window.end_s == coarse_s[-1]
    assert matched >= 0.9 * len(coarse)


def test_range_at_the_edges_is_the_true_distance() -> None:
    for window in station_windows(POSITIONS_KM, TIMES_S, EPOCH_UTC_NS, [BONN])[:20]:
        one = orbits.Constellation(("a",), PATTERN.satrecs[window.a : window.a + 1], EPOCH_UTC_NS)
        for t_s in (window.start_s, (window.start_s + window.end_s) / 2, window.end_s):
            instant_s = np.array([t_s, t_s + 1e-3, t_s + 2e-3, t_s + 3e-3])
            seen = station_windows(
                one.positions_km(instant_s), instant_s, EPOCH_UTC_NS, [Station("b", 50, 8, 200, 0, 1)]
            )
            assert window.range_at_km(t_s) == pytest.approx(float(seen[0].range_km[0]), abs=1.5)


def test_a_window_holds_its_samples_and_its_edges() -> None:
    for window in station_windows(POSITIONS_KM, TIMES_S, EPOCH_UTC_NS, [BONN, SVALBARD]):
        assert len(window.times_s) == len(window.range_km) >= 2
        assert (np.diff(window.times_s) > 0).all()
        assert (window.start_s, window.end_s) == (window.times_s[0], window.times_s[-1])
        assert 0 < np.diff(window.times_s).max() <= 10.0
        assert 500 < window.range_km.min() <= window.range_km.max() < 2_700


def test_windows_come_in_order() -> None:
    windows = station_windows(POSITIONS_KM, TIMES_S, EPOCH_UTC_NS, [BONN, SVALBARD])
    keys = [(window.start_s, window.a, window.b) for window in windows]
    assert keys == sorted(keys)


def _window(a: int, b: int, start_s: float, end_s: float) -> Window:
    return Window(a, b, start_s, end_s, np.array([start_s, end_s]), np.array([1_000.0, 2_000.0]))


def test_range_is_linear_between_samples_and_constant_outside() -> None:
    window = Window(0, 0, 0.0, 20.0, np.array([0.0, 10.0, 20.0]), np.array([1000.0, 900.0, 1100.0]))
    asked_s = (5.0, 10.0, 15.0, 0.0, 20.0, -3.0, 25.0, -1.0, 2.5)
    expected_km = [950.0, 900.0, 1000.0, 1000.0, 1100.0, 1000.0, 1100.0, 1000.0, 975.0]
    assert [window.range_at_km(t_s) for t_s in asked_s] == pytest.approx(expected_km)


def test_light_time_is_range_over_the_speed_of_light_in_whole_nanoseconds() -> None:
    window = Window(0, 1, 0.0, 10.0, np.array([0.0, 10.0]), np.array([3560.0, 3560.0]))
    light_time_ns = window.one_way_light_time_ns(3.0)
    assert isinstance(light_time_ns, int)
    assert light_time_ns == 11_874_882  # presets.md section 2: 11.9 ms between neighbours of the ring


def test_a_link_is_the_same_from_both_ends() -> None:
    pairs = plus_grid_pairs(6, 10)
    positions_km = orbits.walker(60, 6, 1, 53.0, 550.0, EPOCH_UTC_NS).positions_km(TIMES_S)
    there = isl_windows(positions_km, TIMES_S, pairs, 5_400.0)
    back = isl_windows(positions_km, TIMES_S, [(b, a) for a, b in pairs], 5_400.0)
    mirrored = {(window.b, window.a, window.start_s): window for window in back}
    assert len(there) == len(back) > len(pairs)
    for window in there:
        other = mirrored[window.a, window.b, window.start_s]
        assert window.end_s == pytest.approx(other.end_s, abs=1e-3)
        assert window.range_km == pytest.approx(other.range_km, abs=1e-6)


def test_neighbours_of_the_ring_see_each_other_always_and_the_far_side_never() -> None:
    ring = orbits.ring(tuple("abcdefghijkl"), 500.0, 97.4, 0.0, 0.0, EPOCH_UTC_NS)
    times_s = np.arange(0.0, 5_700.0, 10.0)
    positions_km = ring.positions_km(times_s)
    windows = isl_windows(positions_km, times_s, ring_pairs(12), 5_000.0)
    assert [(window.start_s, window.end_s) for window in windows] == [(0.0, 5_690.0)] * 12
    assert windows[0].range_km == pytest.approx(3_560, abs=30)
    assert isl_windows(positions_km, times_s, ring_pairs(12), 3_000.0) == []
    assert isl_windows(positions_km, times_s, [(0, 6), (0, 2)], 20_000.0) == []  # the Earth is in between


def _straight_line(height_km: float) -> np.ndarray:
    """Two satellites (2, 40, 3), the line between them rising 1 km a second past a height above the equator."""
    offset_km = np.arange(40.0) - 20 + height_km
    heights_km = EARTH_RADIUS_KM + offset_km
    side_km = np.full(40, 1_000.0)
    return np.stack(
        [np.stack([heights_km, side_km, 0 * side_km], -1), np.stack([heights_km, -side_km, 0 * side_km], -1)]
    )


@given(st.floats(0.0, 300.0))
@settings(max_examples=20)
def test_a_line_of_sight_opens_where_it_clears_the_grazing_altitude(grazing_km: float) -> None:
    times_s = np.arange(40.0)
    (window,) = isl_windows(_straight_line(grazing_km + 0.3), times_s, [(0, 1)], 5_000.0, grazing_km)
    assert window.start_s == pytest.approx(19.7, abs=1e-3)
    assert window.end_s == 39.0
    assert window.range_km == pytest.approx(2_000.0)


def test_a_link_ends_at_the_reach_of_its_terminals() -> None:
    times_s = np.arange(0.0, 100.0, 10.0)
    first_km = np.stack([np.full(10, 7_000.0), np.zeros(10), np.zeros(10)], -1)
    second_km = first_km + np.stack([np.zeros(10), 100.0 + times_s, np.zeros(10)], -1)
    (window,) = isl_windows(np.stack([first_km, second_km]), times_s, [(0, 1)], 143.0)
    assert window.end_s == pytest.approx(43.0, abs=1e-3)
    assert window.range_at_km(window.end_s) == pytest.approx(143.0, abs=1e-3)


def test_links_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="range_km_max is 0"):
        isl_windows(POSITIONS_KM, TIMES_S, [(0, 1)], 0.0)
    with pytest.raises(ConfigError, match="itself"):
        isl_windows(POSITIONS_KM, TIMES_S, [(3, 3)], 5_000.0)


def test_a_station_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="station x: latitude_deg is 91"):
        Station("x", 91.0, 0.0, 0.0, 10.0, 1)
    with pytest.raises(ConfigError, match="station x: antennas is 0"):
        Station("x", 9.0, 0.0, 0.0, 10.0, 0)


def test_an_antenna_keeps_its_satellite_to_loss_of_signal_and_then_takes_the_longest_left() -> None:
    windows = [_window(0, 0, 0, 100), _window(1, 0, 50, 400), _window(2, 0, 60, 500), _window(3, 0, 70, 90)]
    served = assign_antennas(windows, [BONN])
    assert [(w.a, w.start_s, w.end_s) for w in served] == [(0, 0, 100), (2, 100, 500)]
    assert served[1].range_km[0] == pytest.approx(1_000 + 1_000 * 40 / 440)


def test_a_second_antenna_serves_a_second_satellite() -> None:
    windows = [_window(0, 0, 0, 100), _window(1, 0, 50, 400), _window(2, 0, 60, 500)]
    served = assign_antennas(windows, [SVALBARD])
    assert [(w.a, w.start_s, w.end_s) for w in served] == [(0, 0, 100), (1, 50, 400), (2, 100, 500)]


def test_a_radio_in_use_waits_for_its_first_station_to_let_go() -> None:
    windows = [_window(0, 0, 0, 100), _window(0, 1, 50, 200)]
    served = assign_antennas(windows, [BONN, SVALBARD])
    assert [(w.b, w.start_s, w.end_s) for w in served] == [(0, 0, 100), (1, 100, 200)]


def test_a_tie_goes_to_the_lower_satellite() -> None:
    served = assign_antennas([_window(2, 0, 0, 100), _window(1, 0, 0, 100)], [BONN])
    assert [w.a for w in served] == [1]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 60), st.integers(1, 40)), max_size=25),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_no_antenna_and_no_radio_ever_serves_two_at_a_time(spans, shuffler) -> None:  # type: ignore[no-untyped-def]
    stations = [Station(f"s{b}", 0.0, 0.0, 0.0, 5.0, antennas) for b, antennas in enumerate((1, 2, 3))]
    last_s: dict[tuple[int, int], float] = {}
    windows = []
    for a, b, gap_s, length_s in spans:  # a satellite's passes over one station never overlap
        start_s = last_s.get((a, b), 0.0) + gap_s + 1
        last_s[a, b] = start_s + length_s
        windows.append(_window(a, b, start_s, start_s + length_s))
    served = assign_antennas(windows, stations)
    shuffled = list(windows)
    shuffler.shuffle(shuffled)
    again = assign_antennas(shuffled, stations)
    assert [(w.a, w.b, w.start_s) for w in again] == [(w.a, w.b, w.start_s) for w in served]
    for window in served:
        during = [w for w in served if w.start_s <= window.start_s < w.end_s]
        assert sum(w.b == window.b for w in during) <= stations[window.b].antennas
        assert sum(w.a == window.a for w in during) == 1
        assert any(
            (w.a, w.b, w.end_s) == (window.a, window.b, window.end_s) and w.start_s <= window.start_s for w in windows
        )


@pytest.mark.parametrize(("planes", "per_plane"), [(70, 40), (3, 3), (2, 5), (2, 2), (1, 12), (5, 1)])
def test_a_plus_grid_links_each_pair_once_and_each_satellite_to_its_neighbours(planes: int, per_plane: int) -> None:
    pairs = plus_grid_pairs(planes, per_plane)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    neighbours = min(per_plane - 1, 2) + min(planes - 1, 2)
    assert np.bincount(np.array(pairs).ravel(), minlength=planes * per_plane).tolist() == [neighbours] * (
        planes * per_plane
    )


def test_a_ring_closes() -> None:
    assert ring_pairs(4) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert ring_pairs(2) == [(0, 1)]
    assert ring_pairs(1) == []
    with pytest.raises(ConfigError, match="expected at least 1"):
        plus_grid_pairs(0, 4)
