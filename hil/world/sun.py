"""Sunlight: the direction of the sun, and how much of its disc a satellite sees past the Earth.

The Earth's shadow is a cone. Seen from the satellite, sun and Earth are discs; light is full while they do not touch,
falls while the Earth's limb crosses the sun (penumbra, about 8 s in low orbit) and is zero in the umbra. The Earth is a
sphere of its equatorial radius without air, and light falls linearly through the penumbra.

```text
       sun         penumbra: 0 ... 1
  ( )  ─────────────(   Earth   )────── umbra: 0
```
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hil.world.frames import EARTH_RADIUS_KM, J2000_JD, julian_dates
from hil.world.intervals import blocks, positive_intervals

SUN_RADIUS_KM: Final = 695_700.0
"""Nominal radius of the sun [km]. Source: IAU 2015 resolution B3."""
ASTRONOMICAL_UNIT_KM: Final = 149_597_870.7
"""Mean distance of the sun [km]; the true one stays within 1.7 %. Source: IAU 2012 resolution B2."""
SUN_ANGLE_RAD: Final = float(np.arcsin(SUN_RADIUS_KM / ASTRONOMICAL_UNIT_KM))
"""Half the angle that the sun's disc spans [rad], 0.27 degree."""


def sun_direction(jd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors from the Earth to the sun, (..., 3), mean equator and equinox of date, right to 0.01 degree.

    Source: low-precision formulas of the Astronomical Almanac (page C5), good from 1950 to 2050.

    Args:
        jd: (...) Julian dates.
    """
    days = np.asarray(jd, np.float64) - J2000_JD
    longitude = np.radians(280.460 + 0.9856474 * days)
    anomaly = np.radians(357.528 + 0.9856003 * days)
    longitude = longitude + np.radians(1.915) * np.sin(anomaly) + np.radians(0.020) * np.sin(2 * anomaly)
    obliquity = np.radians(23.439 - 0.0000004 * days)
    sine = np.sin(longitude)
    return np.stack([np.cos(longitude), np.cos(obliquity) * sine, np.sin(obliquity) * sine], -1)


def sunlight(positions_km: NDArray[np.float64], times_s: NDArray[np.float64], epoch_utc_ns: int) -> NDArray[np.float32]:
    """Share of the sun's disc in view.

    Args:
        positions_km: (n, t, 3) km, TEME.
        times_s: (t,) seconds after the epoch.
        epoch_utc_ns: ns since 1970-01-01T00:00:00Z.

    Returns:
        (n, t), 1 in full light, 0 in the umbra, linear in between.
    """
    sun = _sun_at(times_s, epoch_utc_ns)
    light = np.empty(positions_km.shape[:2], np.float32)
    for block in blocks(positions_km.shape):
        share = _above_umbra_rad(positions_km[block], sun)
        share /= 2 * SUN_ANGLE_RAD
        np.clip(share, 0.0, 1.0, out=light[block], casting="same_kind")
    return light


def sunlit_intervals(
    positions_km: NDArray[np.float64], times_s: NDArray[np.float64], epoch_utc_ns: int
) -> list[list[tuple[float, float]]]:
    """When each satellite has full or partial light, in order, with ends right to a second for samples to 30 s apart.

    Args:
        positions_km: (n, t, 3) km, TEME.
        times_s: (t,) seconds after the epoch, ascending.
        epoch_utc_ns: ns since 1970-01-01T00:00:00Z.

    Returns:
        Per satellite, (start_s, end_s) of each interval; the first may start and the last may end with the samples.
    """
    sun = _sun_at(times_s, epoch_utc_ns)
    rows: list[list[tuple[float, float]]] = [[] for _ in range(positions_km.shape[0])]
    for block in blocks(positions_km.shape):
        lit = positive_intervals(_above_umbra_rad(positions_km[block], sun), times_s)
        for row, start_s, end_s in zip(lit.rows.tolist(), lit.start_s.tolist(), lit.end_s.tolist(), strict=True):
            rows[block.start + row].append((start_s, end_s))
    return rows


def _sun_at(times_s: NDArray[np.float64], epoch_utc_ns: int) -> NDArray[np.float64]:
    jd, days = julian_dates(epoch_utc_ns, times_s)
    return sun_direction(jd + days)


def _above_umbra_rad(positions_km: NDArray[np.float64], sun: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, t) angle of the sun's upper limb above the Earth's limb: 0 at the umbra, a sun's width in full light."""
    radius_km = np.sqrt(np.einsum("ijk,ijk->ij", positions_km, positions_km))
    towards_km = np.einsum("ijk,jk->ij", positions_km, sun)
    from_centre_rad = np.arccos(np.clip(-towards_km / radius_km, -1.0, 1.0))
    earth_rad = np.arcsin(np.minimum(EARTH_RADIUS_KM / radius_km, 1.0))
    return np.asarray(from_centre_rad - earth_rad + SUN_ANGLE_RAD)
