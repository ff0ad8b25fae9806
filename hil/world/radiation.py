"""Trapped protons: shipped AP-8 maps, the flux along an orbit, and the upset rates that follow.

Maps are integral fluxes of the AP-8 model (Sawyer and Vette 1976, NSSDC/WDC-A-R&S 76-06) for solar minimum and maximum,
on a grid of 5 degrees at altitudes of 400 to 1,200 km, as `scripts/make_proton_maps.py` computed them. AP-8 uses the
field of its epoch, so the South Atlantic Anomaly lies where it lay about 1970; it has drifted west by about 0.3 degree
a year since (unverified), which `drift_deg` can apply. Electrons, solar protons and heavy ions are not in the maps.
Provenance: `data/ap8_protons.md`.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import ConfigError
from hil.world.frames import Floats, geodetic_deg_km, gmst_rad, julian_dates
from hil.world.intervals import blocks

FloatOrArray = TypeVar("FloatOrArray", float, Floats)

CELL_DEG: Final = 5.0
"""Width of a map's cell in latitude and longitude; values are those of the cells' centres."""
MAPS_FILE: Final = "ap8_protons.npz"


@dataclass(frozen=True, slots=True)
class ProtonMap:
    """One model and energy.

    Attributes:
        altitudes_km: (a,) rising.
        flux_cm2_s: (a, 36, 72) protons above the energy [1/cm2/s]; rows from 87.5 S, columns from 177.5 W.
        drift_deg: how far west the map is moved.
    """

    altitudes_km: Floats
    flux_cm2_s: NDArray[np.float32]
    drift_deg: float = 0.0

    @staticmethod
    def load(solar: Literal["min", "max"] = "min", energy_mev: int = 30, drift_deg: float = 0.0) -> "ProtonMap":
        """A shipped map: AP-8 for solar minimum or maximum, protons above 10, 30 or 50 MeV.

        Raises:
            ConfigError: no such map is shipped.
        """
        maps = _maps()
        if f"{solar}_{energy_mev}" not in maps:
            shipped = ", ".join(name.replace("_", " ") for name in maps if name != "altitudes_km")
            raise ConfigError(f"radiation: no map for {solar!r}, {energy_mev} MeV; expected one of {shipped}")
        return ProtonMap(maps["altitudes_km"].astype(np.float64), maps[f"{solar}_{energy_mev}"], drift_deg)

    def flux(self, positions_km: Floats, times_s: Floats, epoch_utc_ns: int) -> Floats:
        """Flux (n, t) [1/cm2/s] along (n, t, 3) TEME positions.

        Bilinear in latitude and longitude; between two altitudes linear in the logarithm, as the belt's edge falls off,
        and linear where one of them has no flux. Outside the shipped altitudes the nearest map holds.
        """
        whole, fraction = julian_dates(epoch_utc_ns, times_s)
        sidereal_rad = gmst_rad(whole, fraction)
        result = np.empty(positions_km.shape[:2])
        for block in blocks(positions_km.shape):
            result[block] = self.at(*geodetic_deg_km(positions_km[block], sidereal_rad))
        return result

    def at(self, latitude_deg: Floats, longitude_deg: Floats, altitude_km: Floats) -> Floats:
        """Flux [1/cm2/s] at places given by arrays of one shape."""
        rows, columns = self.flux_cm2_s.shape[1:]
        row = np.clip((latitude_deg + 90.0) / CELL_DEG - 0.5, 0.0, rows - 1.0)
        column = ((longitude_deg + self.drift_deg + 180.0) / CELL_DEG - 0.5) % columns
        level = np.interp(altitude_km, self.altitudes_km, np.arange(len(self.altitudes_km), dtype=np.float64))
        row0, column0, level0 = row.astype(np.intp), column.astype(np.intp), level.astype(np.intp)
        row1, column1 = np.minimum(row0 + 1, rows - 1), (column0 + 1) % columns
        level1 = np.minimum(level0 + 1, len(self.altitudes_km) - 1)
        row_share, column_share, level_share = row - row0, column - column0, level - level0
        layers = []
        for layer in (level0, level1):
            southern, northern = (layer * rows + row0) * columns, (layer * rows + row1) * columns
            flat = self.flux_cm2_s.reshape(-1)
            south = flat[southern + column0] * (1 - column_share) + flat[southern + column1] * column_share
            north = flat[northern + column0] * (1 - column_share) + flat[northern + column1] * column_share
            layers.append(south * (1 - row_share) + north * row_share)
        low, high = layers
        mixed = low + (high - low) * level_share
        curved = np.flatnonzero((low > 0) & (high > 0))
        log_low, log_high = np.log(low.flat[curved]), np.log(high.flat[curved])
        mixed.flat[curved] = np.exp(log_low + (log_high - log_low) * level_share.flat[curved])
        return np.asarray(mixed)


def upset_rate_hz(flux_cm2_s: FloatOrArray, cross_section_cm2: float) -> FloatOrArray:
    """Upsets a second of one device (or bit) with a cross section [cm2]: flux times cross section."""
    return flux_cm2_s * cross_section_cm2


@lru_cache(maxsize=1)
def _maps() -> dict[str, NDArray[np.float32]]:
    with (resources.files("hil.world") / "data" / MAPS_FILE).open("rb") as file, np.load(file) as stored:
        return {name: stored[name] for name in stored.files}
