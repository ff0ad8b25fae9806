"""Frames: sidereal time, the WGS84 ellipsoid, and the way from the inertial frame of SGP4 to latitude and longitude.

SGP4 gives positions in TEME (true equator, mean equinox of date). Turned back by Greenwich mean sidereal time they are
Earth-fixed, up to polar motion (15 m on the ground) and UT1 - UTC (below 0.9 s, hence 0.004 degree), both left out.
UTC stands for UT1 throughout, and a day has 86,400 s.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
"""An array of 64-bit floats."""

EARTH_RADIUS_KM: Final = 6378.137
"""Equatorial radius of the Earth [km]. Source: WGS84 (NGA.STND.0036 1.0.0, table 3.1)."""
FLATTENING: Final = 1 / 298.257223563
"""Flattening of the Earth's ellipsoid. Source: WGS84 (NGA.STND.0036 1.0.0, table 3.1)."""
_ECCENTRICITY_SQUARED: Final = FLATTENING * (2 - FLATTENING)
_POLAR_RADIUS_KM: Final = EARTH_RADIUS_KM * (1 - FLATTENING)
_SECOND_ECCENTRICITY_SQUARED: Final = _ECCENTRICITY_SQUARED / (1 - _ECCENTRICITY_SQUARED)

NS_PER_DAY: Final = 86_400_000_000_000
S_PER_DAY: Final = 86_400.0
UNIX_EPOCH_JD: Final = 2_440_587.5
"""Julian date of 1970-01-01T00:00:00Z."""
J2000_JD: Final = 2_451_545.0
"""Julian date of 2000-01-01T12:00:00Z."""
DAYS_PER_CENTURY: Final = 36_525.0


def julian_dates(epoch_utc_ns: int, times_s: Floats) -> tuple[float, Floats]:
    """Julian date in two parts, so that nothing below a nanosecond is lost.

    Args:
        epoch_utc_ns: ns since 1970-01-01T00:00:00Z.
        times_s: (t,) seconds after the epoch.

    Returns:
        The Julian date of the epoch's midnight, and (t,) days after it.
    """
    days, ns_of_day = divmod(epoch_utc_ns, NS_PER_DAY)
    return UNIX_EPOCH_JD + days, ns_of_day / NS_PER_DAY + np.asarray(times_s, np.float64) / S_PER_DAY


def gmst_rad(whole: float, days: Floats) -> Floats:
    """Greenwich mean sidereal time in [0, 2 pi) of Julian date `whole + days`.

    Source: IAU 1982 (Aoki et al., Astron. Astrophys. 105, 1982), as in Vallado, Revisiting Spacetrack Report 3.
    """
    centuries = (whole - J2000_JD + days) / DAYS_PER_CENTURY
    excess_s = 67_310.54841 + centuries * (8_640_184.812866 + centuries * (0.093104 - centuries * 6.2e-6))
    turns = (whole - J2000_JD) % 1.0 + days + excess_s / S_PER_DAY
    return np.asarray(2 * np.pi * (turns % 1.0))


def earth_fixed_km(latitude_deg: float, longitude_deg: float, altitude_m: float) -> tuple[float, float, float]:
    """Earth-fixed position of a point above the WGS84 ellipsoid: (x, y, z) km."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    normal_km = EARTH_RADIUS_KM / np.sqrt(1 - _ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    equatorial_km = (normal_km + altitude_m / 1000) * np.cos(latitude)
    z_km = (normal_km * (1 - _ECCENTRICITY_SQUARED) + altitude_m / 1000) * np.sin(latitude)
    return float(equatorial_km * np.cos(longitude)), float(equatorial_km * np.sin(longitude)), float(z_km)


def geodetic_deg_km(positions_km: Floats, gmst: Floats) -> tuple[Floats, Floats, Floats]:
    """The point of the WGS84 ellipsoid below each position.

    Bowring's formula, one step: the latitude is within 1e-6 degree up to 2,000 km (Survey Review 28, 1985).

    Args:
        positions_km: (..., t, 3) km, TEME.
        gmst: (t,) Greenwich mean sidereal time [rad].

    Returns:
        Latitude [deg], longitude in [-180, 180) [deg] and altitude [km], each (..., t).
    """
    x, y, z = positions_km[..., 0], positions_km[..., 1], positions_km[..., 2]
    equatorial_km = np.hypot(x, y)
    longitude_deg = (np.degrees(np.arctan2(y, x) - gmst) + 180.0) % 360.0 - 180.0
    radius_km = np.hypot(equatorial_km, z)
    tangent = z / np.maximum(equatorial_km, 1e-9)
    tangent *= (1 - FLATTENING) * (1 + _SECOND_ECCENTRICITY_SQUARED * _POLAR_RADIUS_KM / radius_km)
    cosine = 1 / np.sqrt(1 + tangent * tangent)
    sine = tangent * cosine
    latitude = np.arctan2(
        z + _SECOND_ECCENTRICITY_SQUARED * _POLAR_RADIUS_KM * sine**3,
        equatorial_km - _ECCENTRICITY_SQUARED * EARTH_RADIUS_KM * cosine**3,
    )
    sine = np.sin(latitude)
    root = np.sqrt(1 - _ECCENTRICITY_SQUARED * sine * sine)
    altitude_km = equatorial_km * np.cos(latitude) + z * sine - EARTH_RADIUS_KM * root
    return np.degrees(latitude), longitude_deg, altitude_km
