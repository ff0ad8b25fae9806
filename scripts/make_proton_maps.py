"""Makes hil/world/data/ap8_protons.npz from the AP-8 model. Needs aep8 and astropy, which flatrack itself does not.

Run: pip install aep8 && python scripts/make_proton_maps.py
"""

from pathlib import Path
from typing import Final

import aep8
import numpy as np
from astropy import units
from astropy.coordinates import EarthLocation
from astropy.time import Time
from astropy.utils import iers

ALTITUDES_KM: Final = (400, 500, 600, 800, 1000, 1200)
ENERGIES_MEV: Final = (10, 30, 50)
OUT: Final = Path(__file__).resolve().parents[1] / "hil" / "world" / "data" / "ap8_protons.npz"


def main() -> None:
    """Compute every map and write them, compressed."""
    iers.conf.auto_download = False
    longitude, latitude = np.meshgrid(np.arange(-177.5, 180, 5.0), np.arange(-87.5, 90, 5.0))
    when = Time("2025-01-01") + np.zeros(longitude.size) * units.s
    maps: dict[str, np.ndarray] = {"altitudes_km": np.array(ALTITUDES_KM, np.float32)}
    for solar in ("min", "max"):
        model = aep8.model(solar=solar, particle="p")
        for energy in ENERGIES_MEV:
            levels = []
            for altitude in ALTITUDES_KM:
                places = EarthLocation.from_geodetic(
                    longitude.ravel() * units.deg, latitude.ravel() * units.deg, altitude * units.km
                )
                flux = model.integral_flux(places, when, energy * units.MeV)
                levels.append(flux.value.reshape(longitude.shape))
            # three significant digits: the model is no better, and the file is a third
            stack = np.stack(levels)
            with np.errstate(divide="ignore"):
                scale = 10.0 ** (2 - np.floor(np.log10(np.where(stack > 0, stack, 1.0))))
            maps[f"{solar}_{energy}"] = (np.round(stack * scale) / scale).astype(np.float32)
            print(solar, energy, "MeV: peak", float(stack.max()), "1/cm2/s")
    np.savez_compressed(OUT, **maps)
    print(OUT.name, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
