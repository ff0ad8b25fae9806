"""Trapped protons: shipped AP-8 maps, the flux along an orbit, and the upset rates that follow.

Maps are integral fluxes of the AP-8 model (Sawyer and Vette 1976, NSSDC/WDC-A-R&S 76-06) for solar minimum and maximum, on a
grid of 5 degrees at altitudes of 400 to 1,200 km, as `scripts/make_proton_maps.py` computed them. AP-8 uses the field of its
epoch, so the South Atlantic Anomaly lies where it lay about 1970; it has drifted west by about 0.3 degree a year since, which
`drift_deg` can apply. Electrons, solar protons and heavy ions are not in them.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hil.world.frames import Floats, geodetic_deg_km, gmst_rad, julian_dates

CELL_DEG: Final = 5.0
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
        """A shipped map: AP-8 for solar minimum or maximum, protons above 10, 30 or 50 MeV."""
        maps = _maps()
        return ProtonMap(maps["altitudes_km"].astype(np.float64), maps[f"{solar}_{energy_mev}"], drift_deg)

    def flux(self, positions_km: Floats, times_s: Floats, epoch_utc_ns: int) -> Floats:
        """Flux (n, t) [1/cm2/s] along (n, t, 3) TEME positions.

        Bilinear over the sphere, linear in altitude; outside the shipped altitudes the nearest map holds.
        """
        whole, fraction = julian_dates(epoch_utc_ns, times_s)
        latitude, longitude, altitude_km = geodetic_deg_km(positions_km, gmst_rad(whole, fraction))
        return self.at(latitude, longitude, altitude_km)

    def at(self, latitude_deg: Floats, longitude_deg: Floats, altitude_km: Floats) -> Floats:
        """Flux [1/cm2/s] at places."""
        rows, columns = self.flux_cm2_s.shape[1:]
        row = np.clip((latitude_deg + 90.0) / CELL_DEG - 0.5, 0.0, rows - 1.0)
        column = ((longitude_deg + self.drift_deg + 180.0) / CELL_DEG - 0.5) % columns
        level = np.interp(altitude_km, self.altitudes_km, np.arange(len(self.altitudes_km), dtype=np.float64))
        row0, column0, level0 = (np.floor(x).astype(int) for x in (row, column, level))
        row1 = np.minimum(row0 + 1, rows - 1)
        column1, column0 = (column0 + 1) % columns, column0 % columns
        level1 = np.minimum(level0 + 1, len(self.altitudes_km) - 1)
        wr, wc, wl = row - row0, column - np.floor(column), level - level0
        total = np.zeros_like(row)
        for levels, weight_l in ((level0, 1 - wl), (level1, wl)):
            grid = self.flux_cm2_s
            low = grid[levels, row0, column0] * (1 - wc) + grid[levels, row0, column1] * wc
            high = grid[levels, row1, column0] * (1 - wc) + grid[levels, row1, column1] * wc
            total += weight_l * (low * (1 - wr) + high * wr)
        return total


def upset_rate_hz(flux_cm2_s: float, cross_section_cm2: float) -> float:
    """Upsets a second: flux times cross section."""
    return flux_cm2_s * cross_section_cm2


@lru_cache(maxsize=1)
def _maps() -> dict[str, NDArray[np.float32]]:
    with (resources.files("hil.world") / "data" / MAPS_FILE).open("rb") as file, np.load(file) as stored:
        return {name: stored[name] for name in stored.files}
