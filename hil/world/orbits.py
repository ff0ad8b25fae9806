"""Orbits: constellations of satellites that SGP4 moves, and the usual ways to lay one out.

Generated satellites carry mean elements of SGP4: circular up to `ECCENTRICITY`, altitude above the equatorial radius,
no drag. Their true altitude swings by some 10 km with the Earth's oblateness, as a real one does. Nothing holds
station: a constellation drifts as its elements say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, cos, hypot, isfinite, pi, radians, sin, sqrt, tau
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sgp4.api import SGP4_ERRORS, WGS72, Satrec, SatrecArray

from flightsw.errors import ConfigError
from hil.world.elements import read_omm, read_tle
from hil.world.frames import NS_PER_DAY, UNIX_EPOCH_JD, julian_dates

LIGHT_KM_S: Final = 299_792.458
"""Speed of light in vacuum [km/s]. Source: SI."""
SGP4_RADIUS_KM: Final = 6378.135
"""Equatorial radius of the Earth in SGP4 [km]. Source: WGS72 (Spacetrack Report 3)."""
SGP4_MU_KM3_S2: Final = 398_600.8
"""Gravitational parameter of the Earth in SGP4 [km3/s2]. Source: WGS72 (Spacetrack Report 3)."""
SGP4_EPOCH_JD: Final = 2_433_281.5
"""SGP4 counts days from 1949-12-31T00:00:00Z [Julian date]."""
ECCENTRICITY: Final = 0.0001
"""Eccentricity of generated orbits, where the name of a circular orbit still leaves SGP4 a defined perigee."""
ALTITUDE_KM_MIN: Final = 150.0
"""Lowest generated orbit [km]: below it the air ends an orbit within a day, and drag is not modelled."""
ALTITUDE_KM_MAX: Final = 5_000.0
"""Highest generated orbit [km]: soon above it SGP4 turns to its deep-space theory."""
GOLDEN_ANGLE_RAD: Final = pi * (3 - sqrt(5))
"""Turn between neighbours on a sunflower spiral, which fills a disc evenly (Vogel, Math. Biosciences 44, 1979)."""
_CHUNK_STEPS: Final = 64
"""Instants propagated at once; SGP4 also returns velocities, and this bounds the memory that they take."""


@dataclass(frozen=True, slots=True)
class Constellation:
    """Satellites with their orbits.

    Attributes:
        names: (n,) unique names.
        satrecs: (n,) SGP4 propagators.
        epoch_utc_ns: when the constellation's seconds start [ns since 1970-01-01T00:00:00Z].
    """

    names: tuple[str, ...]
    satrecs: tuple[Satrec, ...]
    epoch_utc_ns: int

    def __post_init__(self) -> None:
        """Check that names and orbits pair.

        Raises:
            ConfigError: a name is used twice.
        """
        assert len(self.names) == len(self.satrecs), "every satellite has one name and one orbit"
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise ConfigError(f"constellation: name {name!r} is used twice, expected unique names")
            seen.add(name)

    def positions_km(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (n, t, 3) km, TEME, at (t,) seconds after the epoch.

        Raises:
            ConfigError: SGP4 cannot propagate a satellite to one of the instants.
        """
        jd, days = julian_dates(self.epoch_utc_ns, times_s)
        positions = np.empty((len(self.satrecs), len(days), 3))
        satellites = SatrecArray(self.satrecs)
        for start in range(0, len(days), _CHUNK_STEPS):
            chunk = slice(start, start + _CHUNK_STEPS)
            errors, positions[:, chunk], _ = satellites.sgp4(np.full(len(days[chunk]), jd), days[chunk])
            if errors.any():
                satellite, step = (int(index) for index in np.argwhere(errors)[0])
                reason = SGP4_ERRORS.get(int(errors[satellite, step]), "unknown error")
                raise ConfigError(
                    f"constellation: {self.names[satellite]}: no position {times_s[start + step]:.0f} s after the "
                    f"epoch: {reason}; expected elements that are valid then"
                )
        return positions


def period_s(altitude_km: float) -> float:
    """Period of a circular orbit by Kepler's third law [s]."""
    return tau / _mean_motion_rad_s(altitude_km)


def ring(
    names: Sequence[str],
    altitude_km: float,
    inclination_deg: float,
    raan_deg: float,
    phase_deg: float,
    epoch_utc_ns: int,
) -> Constellation:
    """Satellites evenly spaced in one plane, each ahead of the one before it in `names`.

    Args:
        names: names of the satellites.
        altitude_km: mean altitude above the equatorial radius.
        inclination_deg: of the plane.
        raan_deg: right ascension of the plane's ascending node.
        phase_deg: angle of the first satellite past the ascending node.
        epoch_utc_ns: epoch of the elements.

    Raises:
        ConfigError: an element is out of range, or a name is used twice.
    """
    _check("ring", altitude_km, inclination_deg, raan_deg=raan_deg, phase_deg=phase_deg)
    if not names:
        raise ConfigError("ring: names is empty, expected at least one satellite")
    satrecs = tuple(
        _circular(altitude_km, inclination_deg, raan_deg, phase_deg + 360.0 * i / len(names), epoch_utc_ns)
        for i in range(len(names))
    )
    return Constellation(tuple(names), satrecs, epoch_utc_ns)


def walker(
    total: int,
    planes: int,
    phasing: int,
    inclination_deg: float,
    altitude_km: float,
    epoch_utc_ns: int,
    name_prefix: str = "sat-",
    raan_spread_deg: float = 360.0,
) -> Constellation:
    """A Walker pattern total/planes/phasing (Walker, J. Brit. Interplanetary Soc. 37, 1984).

    Satellites are numbered plane by plane, from 1. A spread of 360 degrees is the delta pattern, one of 180 degrees
    the star pattern of near-polar constellations.

    Args:
        total: number of satellites.
        planes: number of planes, a divisor of `total`.
        phasing: a satellite leads its neighbour in the plane before by `phasing * 360 / total` degrees.
        inclination_deg: of all planes.
        altitude_km: mean altitude above the equatorial radius.
        epoch_utc_ns: epoch of the elements.
        name_prefix: what precedes the number in a name.
        raan_spread_deg: range of right ascension over which the planes are spread.

    Raises:
        ConfigError: a number is out of range, or the planes do not divide the total.
    """
    _check("walker", altitude_km, inclination_deg, raan_spread_deg=raan_spread_deg)
    if total < 1:
        raise ConfigError(f"walker: total is {total}, expected at least 1")
    if planes < 1 or total % planes:
        raise ConfigError(f"walker: planes is {planes}, expected a divisor of the {total} satellites")
    if not 0 <= phasing < planes:
        raise ConfigError(f"walker: phasing is {phasing}, expected 0 to {planes - 1}")
    per_plane = total // planes
    satrecs = tuple(
        _circular(
            altitude_km,
            inclination_deg,
            raan_spread_deg * plane / planes,
            360.0 * place / per_plane + 360.0 * phasing * plane / total,
            epoch_utc_ns,
        )
        for plane in range(planes)
        for place in range(per_plane)
    )
    return Constellation(_numbered(name_prefix, total), satrecs, epoch_utc_ns)


def formation(
    total: int,
    radius_km: float,
    inclination_deg: float,
    altitude_km: float,
    epoch_utc_ns: int,
    name_prefix: str = "sat-",
    raan_deg: float = 0.0,
    phase_deg: float = 0.0,
) -> Constellation:
    """A cluster of satellites within a radius around a reference orbit.

    All fly on general circular orbits (Clohessy and Wiltshire 1960; Sabol, Burns and McLaughlin 2001): equal periods,
    an eccentricity of rho / 2a and a tilt of sqrt(3) rho / 2a keep a satellite at the distance rho from the centre, in
    one common plane that turns with the orbit. The cluster therefore turns as a rigid disc, and the distances between
    neighbours hold to about a tenth over some orbits; then the oblateness of the Earth shears the disc.

    Args:
        total: number of satellites, spread evenly over the disc, about `radius_km * sqrt(3 / total)` apart.
        radius_km: radius of the disc.
        inclination_deg: of the reference orbit; away from 0 and 180 degrees, where a tilt has no node.
        altitude_km: mean altitude of the reference orbit above the equatorial radius.
        epoch_utc_ns: epoch of the elements.
        name_prefix: what precedes the number in a name.
        raan_deg: right ascension of the reference orbit's ascending node.
        phase_deg: angle of the centre past the ascending node.

    Raises:
        ConfigError: a number is out of range.
    """
    _check("formation", altitude_km, inclination_deg, raan_deg=raan_deg, phase_deg=phase_deg)
    if total < 1:
        raise ConfigError(f"formation: total is {total}, expected at least 1")
    if not 0 < radius_km <= 100:
        raise ConfigError(f"formation: radius_km is {radius_km}, expected above 0 and at most 100")
    if not 1 <= inclination_deg <= 179:
        raise ConfigError(f"formation: inclination_deg is {inclination_deg}, expected 1 to 179")
    semi_axis_km = SGP4_RADIUS_KM + altitude_km
    inclination = radians(inclination_deg)
    satrecs = []
    for i in range(total):
        distance = radius_km * sqrt((i + 0.5) / total) / (2 * semi_axis_km)
        angle = i * GOLDEN_ANGLE_RAD
        tilt = sqrt(3) * distance  # a quarter turn behind the perigee, so that height and side swing together
        raan_offset = tilt * sin(angle - pi / 2) / sin(inclination)
        # The reference eccentricity vector (ECCENTRICITY along the node) is added so that all perigees move alike.
        ex, ey = ECCENTRICITY + distance * cos(angle), distance * sin(angle)
        perigee = atan2(ey, ex)
        argument = radians(phase_deg) - raan_offset * cos(inclination)
        satrecs.append(
            _satrec(
                altitude_km,
                hypot(ex, ey),
                inclination + tilt * cos(angle - pi / 2),
                radians(raan_deg) + raan_offset,
                perigee,
                argument - perigee,
                epoch_utc_ns,
            )
        )
    return Constellation(_numbered(name_prefix, total), tuple(satrecs), epoch_utc_ns)


def load_tle(path: Path, epoch_utc_ns: int | None = None) -> Constellation:
    """The satellites of a TLE file; without an epoch, seconds start at the newest element set.

    Raises:
        ConfigError: names file, line, what is there and what was expected.
    """
    return _loaded(path, read_tle(path), epoch_utc_ns)


def load_omm(path: Path, epoch_utc_ns: int | None = None) -> Constellation:
    """The satellites of an OMM file in JSON, CSV or XML; without an epoch, seconds start at the newest element set.

    Raises:
        ConfigError: names file, line or record, field, value and what was expected.
    """
    return _loaded(path, read_omm(path), epoch_utc_ns)


def _loaded(path: Path, satellites: list[tuple[str, Satrec]], epoch_utc_ns: int | None) -> Constellation:
    if not satellites:
        raise ConfigError(f"{path}: holds no satellite, expected at least one element set")
    if epoch_utc_ns is None:
        epoch_utc_ns = max(_element_epoch_utc_ns(satrec) for _, satrec in satellites)
    names = tuple(name for name, _ in satellites)
    try:
        return Constellation(names, tuple(satrec for _, satrec in satellites), epoch_utc_ns)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _element_epoch_utc_ns(satrec: Satrec) -> int:
    days, fraction = divmod(float(satrec.jdsatepoch) - UNIX_EPOCH_JD, 1.0)
    return int(days) * NS_PER_DAY + round((fraction + float(satrec.jdsatepochF)) * NS_PER_DAY)


def _numbered(prefix: str, total: int) -> tuple[str, ...]:
    width = max(2, len(str(total)))
    return tuple(f"{prefix}{number:0{width}d}" for number in range(1, total + 1))


def _mean_motion_rad_s(altitude_km: float) -> float:
    return sqrt(SGP4_MU_KM3_S2 / (SGP4_RADIUS_KM + altitude_km) ** 3)


def _circular(
    altitude_km: float, inclination_deg: float, raan_deg: float, phase_deg: float, epoch_utc_ns: int
) -> Satrec:
    return _satrec(
        altitude_km, ECCENTRICITY, radians(inclination_deg), radians(raan_deg), 0.0, radians(phase_deg), epoch_utc_ns
    )


def _satrec(
    altitude_km: float,
    eccentricity: float,
    inclination_rad: float,
    raan_rad: float,
    perigee_rad: float,
    anomaly_rad: float,
    epoch_utc_ns: int,
) -> Satrec:
    days, ns_of_day = divmod(epoch_utc_ns, NS_PER_DAY)
    satrec = Satrec()
    satrec.sgp4init(
        WGS72,
        "i",  # the improved mode, as opposed to that of the old AFSPC code
        0,  # no catalogue number
        UNIX_EPOCH_JD - SGP4_EPOCH_JD + days + ns_of_day / NS_PER_DAY,
        0.0,  # drag
        0.0,  # first and second derivative of the mean motion, which SGP4 does not use
        0.0,
        eccentricity,
        perigee_rad % tau,
        inclination_rad,
        anomaly_rad % tau,
        _mean_motion_rad_s(altitude_km) * 60,
        raan_rad % tau,
    )
    return satrec


def _check(kind: str, altitude_km: float, inclination_deg: float, **angles_deg: float) -> None:
    if not ALTITUDE_KM_MIN <= altitude_km <= ALTITUDE_KM_MAX:
        raise ConfigError(
            f"{kind}: altitude_km is {altitude_km}, expected {ALTITUDE_KM_MIN:.0f} to {ALTITUDE_KM_MAX:.0f}"
        )
    if not 0 <= inclination_deg <= 180:
        raise ConfigError(f"{kind}: inclination_deg is {inclination_deg}, expected 0 to 180")
    for field, value in angles_deg.items():
        if not isfinite(value):
            raise ConfigError(f"{kind}: {field} is {value}, expected a finite angle")
