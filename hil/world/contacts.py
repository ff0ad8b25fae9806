"""Contacts: when a satellite sees a station or another satellite, how far away it is, and who gets the antenna.

A station sees a satellite while it stands higher than the station's least elevation above the WGS84 horizon (refraction
is left out). Two satellites see each other within a range and while the line between them clears the Earth and the
dense air above it. Windows end between the samples (`hil.world.intervals`), hence acquisition (AOS) and loss of
signal (LOS) are right to a second for samples to 30 s apart; a contact wholly between two samples is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cos, hypot, isfinite, radians, sin
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import ConfigError
from hil.world.frames import EARTH_RADIUS_KM, earth_fixed_km, gmst_rad, julian_dates
from hil.world.intervals import Cubics, blocks, positive_intervals
from hil.world.orbits import LIGHT_KM_S

GRAZING_ALTITUDE_KM: Final = 80.0
"""A laser link must clear the ground by this much [km]: below it the air bends and absorbs the beam. Our choice."""
_LIGHT_NS_PER_KM: Final = 1e9 / LIGHT_KM_S


@dataclass(frozen=True, slots=True)
class Station:
    """A ground station.

    Attributes:
        name: unique name.
        latitude_deg: geodetic latitude, north positive.
        longitude_deg: east positive.
        altitude_m: above the WGS84 ellipsoid.
        min_elevation_deg: least elevation at which it works.
        antennas: number of satellites that it serves at a time.
    """

    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    min_elevation_deg: float
    antennas: int

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a field is out of its range.
        """
        for name, value, low, high in (
            ("latitude_deg", self.latitude_deg, -90.0, 90.0),
            ("longitude_deg", self.longitude_deg, -360.0, 360.0),
            ("altitude_m", self.altitude_m, -500.0, 9_000.0),
            ("min_elevation_deg", self.min_elevation_deg, 0.0, 89.0),
        ):
            if not low <= value <= high:
                raise ConfigError(f"station {self.name}: {name} is {value}, expected {low:g} to {high:g}")
        if self.antennas < 1:
            raise ConfigError(f"station {self.name}: antennas is {self.antennas}, expected at least 1")


@dataclass(slots=True, eq=False)
class Window:
    """A span in which two ends see each other.

    Attributes:
        a: index of a satellite.
        b: index of a station, or of the other satellite.
        start_s, end_s: AOS and LOS, seconds after the epoch.
        times_s: (m,) ascending, from AOS to LOS.
        range_km: (m,) distance at these instants.
    """

    a: int
    b: int
    start_s: float
    end_s: float
    times_s: NDArray[np.float64]
    range_km: NDArray[np.float64]
    _piece: tuple[float, float, float, float] = field(default=(np.inf, -np.inf, 0.0, 0.0), init=False, repr=False)
    """The piece of the range that was asked for last: from, to, range at `from`, km per s. Frames come in time order,
    so that nearly all find theirs here."""

    def range_at_km(self, t_s: float) -> float:
        """Distance at an instant, linear between the samples; outside the window, that of its nearer end [km]."""
        from_s, to_s, range_km, rate_km_s = self._piece
        if not from_s <= t_s <= to_s:
            from_s, to_s, range_km, rate_km_s = self._piece = self._piece_at(t_s)
        return range_km + (t_s - from_s) * rate_km_s

    def one_way_light_time_ns(self, t_s: float) -> int:
        """Time that light needs over the distance at an instant, in whole nanoseconds."""
        return round(self.range_at_km(t_s) * _LIGHT_NS_PER_KM)

    def starting_at(self, start_s: float) -> "Window":
        """The rest of the window from an instant inside it."""
        assert self.start_s <= start_s < self.end_s, "a window is cut inside itself"
        if start_s == self.start_s:
            return self
        keep = int(np.searchsorted(self.times_s, start_s, side="right"))
        return Window(
            self.a,
            self.b,
            start_s,
            self.end_s,
            np.concatenate([[start_s], self.times_s[keep:]]),
            np.concatenate([[self.range_at_km(start_s)], self.range_km[keep:]]),
        )

    def _piece_at(self, t_s: float) -> tuple[float, float, float, float]:
        times_s, ranges_km = self.times_s, self.range_km
        right = int(np.searchsorted(times_s, t_s, side="right"))
        if right == 0:
            return t_s, float(times_s[0]), float(ranges_km[0]), 0.0
        if right == len(times_s):
            return float(times_s[-1]), np.inf, float(ranges_km[-1]), 0.0
        from_s, to_s = float(times_s[right - 1]), float(times_s[right])
        range_km = float(ranges_km[right - 1])
        return from_s, to_s, range_km, (float(ranges_km[right]) - range_km) / (to_s - from_s)


def station_windows(
    positions_km: NDArray[np.float64],
    times_s: NDArray[np.float64],
    epoch_utc_ns: int,
    stations: Sequence[Station],
) -> list[Window]:
    """When stations see satellites: `a` is the index of the satellite, `b` that of the station.

    Args:
        positions_km: (n, t, 3) km, TEME.
        times_s: (t,) seconds after the epoch, ascending.
        epoch_utc_ns: ns since 1970-01-01T00:00:00Z.
        stations: the stations.

    Returns:
        The windows by start, then satellite, then station.
    """
    observers = [_Observer(station, times_s, epoch_utc_ns) for station in stations]
    windows: list[Window] = []
    for block in blocks(positions_km.shape):
        x, y, z = (np.ascontiguousarray(positions_km[block, :, axis]) for axis in range(3))
        square_km2 = x * x + y * y + z * z
        for b, (station, observer) in enumerate(zip(stations, observers, strict=True)):
            height_km, range_km = observer.look(x, y, z, square_km2)
            height_km -= sin(radians(station.min_elevation_deg)) * range_km
            windows += _windows(height_km, range_km, times_s, [(a, b) for a in range(block.start, block.stop)])
    return sorted(windows, key=_order)


def elevation_deg(
    positions_km: NDArray[np.float64], times_s: NDArray[np.float64], epoch_utc_ns: int, station: Station
) -> NDArray[np.float64]:
    """(n, t) elevation of satellites above a station's horizon [deg], without refraction.

    Args:
        positions_km: (n, t, 3) km, TEME.
        times_s: (t,) seconds after the epoch.
        epoch_utc_ns: ns since 1970-01-01T00:00:00Z.
        station: the observer.
    """
    x, y, z = positions_km[..., 0], positions_km[..., 1], positions_km[..., 2]
    height_km, range_km = _Observer(station, times_s, epoch_utc_ns).look(x, y, z, x * x + y * y + z * z)
    return np.asarray(np.degrees(np.arcsin(np.clip(height_km / range_km, -1.0, 1.0))))


def isl_windows(
    positions_km: NDArray[np.float64],
    times_s: NDArray[np.float64],
    pairs: Sequence[tuple[int, int]],
    range_km_max: float,
    grazing_altitude_km: float = GRAZING_ALTITUDE_KM,
) -> list[Window]:
    """When pairs of satellites see each other: `a` and `b` are the indices of the pair, in its order.

    Args:
        positions_km: (n, t, 3) km, TEME.
        times_s: (t,) seconds after the epoch, ascending.
        pairs: the links.
        range_km_max: reach of the terminals [km].
        grazing_altitude_km: least height of the line of sight above the equatorial radius.

    Returns:
        The windows by start, then pair.

    Raises:
        ConfigError: the range is not above zero, or a pair names a satellite twice.
    """
    if not (isfinite(range_km_max) and range_km_max > 0):
        raise ConfigError(f"inter-satellite links: range_km_max is {range_km_max}, expected above 0")
    for pair in pairs:
        if pair[0] == pair[1]:
            raise ConfigError(f"inter-satellite links: {pair} joins a satellite with itself, expected two satellites")
    least_km = EARTH_RADIUS_KM + grazing_altitude_km
    ends = np.asarray(pairs, np.intp).reshape(-1, 2)
    windows: list[Window] = []
    for block in blocks((len(ends), len(times_s))):
        near_km = positions_km[ends[block, 0]]
        line_km = positions_km[ends[block, 1]] - near_km
        square_km2 = np.einsum("ijk,ijk->ij", line_km, line_km)
        along_km2 = np.einsum("ijk,ijk->ij", near_km, line_km)
        # The point of the line that is nearest to the Earth's centre, as a share of the way from a to b.
        share = np.clip(-along_km2 / np.maximum(square_km2, 1e-12), 0.0, 1.0)
        lowest_km2 = np.einsum("ijk,ijk->ij", near_km, near_km) + share * (2 * along_km2 + share * square_km2)
        range_km = np.sqrt(square_km2)
        clear_km = np.minimum(range_km_max - range_km, np.sqrt(np.maximum(lowest_km2, 0.0)) - least_km)
        windows += _windows(clear_km, range_km, times_s, pairs[block])
    return sorted(windows, key=_order)


def assign_antennas(windows: Sequence[Window], stations: Sequence[Station]) -> list[Window]:
    """Give antennas to satellites: an antenna serves one satellite at a time, and a radio one station at a time.

    A service is kept until loss of signal. Whenever an antenna and a satellite in its view are both free, the contact
    with the longest time left begins, at a tie that of the lower satellite and then the lower station.

    Args:
        windows: windows of `station_windows`.
        stations: the stations that their `b` counts.

    Returns:
        The windows that get an antenna, cut to start when they get it, by start, satellite and station.
    """
    free = [station.antennas for station in stations]
    radio_is_busy: dict[int, bool] = {}
    waiting: list[list[Window]] = [[] for _ in stations]
    serving: list[Window] = []
    served: list[Window] = []
    arrivals = sorted(windows, key=_order, reverse=True)
    for now_s in sorted({edge_s for window in windows for edge_s in (window.start_s, window.end_s)}):
        for window in serving:
            if window.end_s <= now_s:
                free[window.b] += 1
                radio_is_busy[window.a] = False
        serving = [window for window in serving if window.end_s > now_s]
        while arrivals and arrivals[-1].start_s <= now_s:
            window = arrivals.pop()
            waiting[window.b].append(window)
        candidates: list[Window] = []
        for b, queue in enumerate(waiting):
            if free[b]:
                waiting[b] = [window for window in queue if window.end_s > now_s]
                candidates += waiting[b]
        for window in sorted(candidates, key=lambda window: (-window.end_s, window.a, window.b)):
            if free[window.b] and not radio_is_busy.get(window.a, False):
                free[window.b] -= 1
                radio_is_busy[window.a] = True
                waiting[window.b].remove(window)
                serving.append(window)
                served.append(window.starting_at(now_s))
    return sorted(served, key=_order)


def plus_grid_pairs(planes: int, per_plane: int) -> list[tuple[int, int]]:
    """The +Grid: each satellite linked with its neighbours in the plane and with its like in the planes beside it.

    Satellites are numbered plane by plane, as `hil.world.orbits.walker` does. Each link appears once.

    Raises:
        ConfigError: a number is below 1.
    """
    if planes < 1 or per_plane < 1:
        raise ConfigError(f"+Grid: {planes} planes of {per_plane} satellites, expected at least 1 of 1")
    pairs: dict[tuple[int, int], None] = {}
    for plane in range(planes):
        for place in range(per_plane):
            here = plane * per_plane + place
            for other in (
                plane * per_plane + (place + 1) % per_plane,
                (plane + 1) % planes * per_plane + place,
            ):
                if other != here and (other, here) not in pairs:
                    pairs[here, other] = None
    return list(pairs)


def ring_pairs(n: int) -> list[tuple[int, int]]:
    """The links of a ring of n satellites, each to the next; two satellites have one link, one has none.

    Raises:
        ConfigError: the number is below 1.
    """
    return plus_grid_pairs(1, n)


class _Observer:
    """A station as the turning Earth carries it through TEME; all of it lies in the plane of its meridian."""

    def __init__(self, station: Station, times_s: NDArray[np.float64], epoch_utc_ns: int) -> None:
        x_km, y_km, self._z_km = earth_fixed_km(station.latitude_deg, station.longitude_deg, station.altitude_m)
        self._equatorial_km = hypot(x_km, y_km)
        self._cos_latitude = cos(radians(station.latitude_deg))
        self._sin_latitude = sin(radians(station.latitude_deg))
        meridian_rad = gmst_rad(*julian_dates(epoch_utc_ns, times_s)) + radians(station.longitude_deg)
        self._meridian_x, self._meridian_y = np.cos(meridian_rad), np.sin(meridian_rad)

    def look(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        z: NDArray[np.float64],
        square_km2: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Height above the station's horizontal plane and distance, both (n, t) km, of positions with their squares."""
        meridian_km = x * self._meridian_x
        meridian_km += y * self._meridian_y
        range_km = meridian_km * (-2 * self._equatorial_km)
        range_km += square_km2
        range_km -= (2 * self._z_km) * z
        range_km += self._equatorial_km**2 + self._z_km**2
        np.sqrt(range_km, out=range_km)
        height_km = meridian_km
        height_km *= self._cos_latitude
        height_km += self._sin_latitude * z
        height_km -= self._equatorial_km * self._cos_latitude + self._z_km * self._sin_latitude
        return height_km, range_km


def _windows(
    clear_km: NDArray[np.float64],
    range_km: NDArray[np.float64],
    times_s: NDArray[np.float64],
    ends: Sequence[tuple[int, int]],
) -> list[Window]:
    """The windows in which `clear_km` (n, t) is positive; `ends` are a and b of each row."""
    found = positive_intervals(clear_km, times_s)
    rows, first, last, start_s, end_s = found.rows, found.first, found.last, found.start_s, found.end_s
    start_km = Cubics(range_km, times_s, rows, np.maximum(first - 1, 0)).at(start_s)
    end_km = Cubics(range_km, times_s, rows, np.minimum(last, max(len(times_s) - 2, 0))).at(end_s)
    windows = []
    for i in range(len(rows)):
        if not start_s[i] < end_s[i]:
            continue  # in view at the first or last instant alone
        span = slice(first[i], last[i] + 1)
        times, ranges = [times_s[span]], [range_km[rows[i], span]]
        if start_s[i] < times_s[first[i]]:
            times.insert(0, start_s[i : i + 1])
            ranges.insert(0, start_km[i : i + 1])
        if end_s[i] > times_s[last[i]]:
            times.append(end_s[i : i + 1])
            ranges.append(end_km[i : i + 1])
        a, b = ends[int(rows[i])]
        windows.append(Window(a, b, float(start_s[i]), float(end_s[i]), np.concatenate(times), np.concatenate(ranges)))
    return windows


def _order(window: Window) -> tuple[float, int, int]:
    return window.start_s, window.a, window.b
