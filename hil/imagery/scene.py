"""A scene: a picture of the ground in four or more bands, from the package or from a user's file.

The values are digital numbers as Sentinel-2 gives them: reflectance x 10000 in 16 bits, bands blue, green, red, near
infrared first. What can be read:

| file | what must be in it |
|---|---|
| `.npz` | an array `dn` `(height, width, bands)`; text `name` and `attribution` if it has them |
| `.npy` | one array `(height, width, bands)` |
| `.tif`, `.tiff` | one band a page (read by Pillow), or several bands in one page, as GeoTIFFs are (read by tifffile) |

Arrays are whole numbers (digital numbers) or floats (reflectance, 1.0 is a white diffuser). PNG and JPEG hold no fourth
band: the alpha channel of a picture is not near infrared.
"""

import importlib
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import ConfigError

BANDS_MIN: Final = 4
BANDS_MAX: Final = 16  # Sentinel-2 has 13; a longer last axis is most likely a picture stored as (bands, height, width)
REFLECTANCE_DN: Final = 10_000
"""Digital number of reflectance 1. Source: Sentinel-2 products specification, quantification value."""

REFLECTANCE_MAX: Final = 6.5535  # what 16 bits hold
SIDE_PX_MIN: Final = 16
SIDE_PX_MAX: Final = 11_000  # a whole Sentinel-2 granule is 10,980 px

SCENE_ASSET: Final = "sentinel2-scene.npz"
FORMATS: Final = ".npz or .npy with an array (height, width, bands >= 4), or .tif with at least 4 bands of 16 bits"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture of the ground.

    Attributes:
        dn: ``(height, width, bands)`` uint16 digital numbers; the first four bands are blue, green, red, near infrared.
        name: What it shows.
        attribution: Whom its licence wants named; empty if the file does not say.
    """

    dn: NDArray[np.uint16]
    name: str
    attribution: str


def default_scene() -> Scene:
    """Return the scene that comes with flatrack (see `hil/assets/SCENE.md`)."""
    with resources.as_file(resources.files("hil") / "assets" / SCENE_ASSET) as path:
        return load_scene(path)


def load_scene(path: Path) -> Scene:
    """Read a scene.

    Args:
        path: A file of one of the formats above.

    Returns:
        The scene; its name is the file's unless the file says otherwise.

    Raises:
        ConfigError: The file is not there, not of such a format, or does not hold such a picture.
    """
    if not path.is_file():
        raise ConfigError(f"scene {path}: no such file; expected {FORMATS}")
    name, attribution = path.name, ""
    match path.suffix.lower():
        case ".npz":
            values, name, attribution = _read_npz(path)
        case ".npy":
            values = _read_npy(path)
        case ".tif" | ".tiff":
            values = _read_tiff(path)
        case suffix:
            raise ConfigError(f"scene {path}: a {suffix or 'nameless'} file; expected {FORMATS}")
    return Scene(_digital_numbers(values, path), name, attribution)


def to_reflectance(dn: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the reflectance of digital numbers, as float32."""
    return dn.astype(np.float32) / np.float32(REFLECTANCE_DN)


def to_dn(reflectance: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the digital numbers of reflectances from 0 to 6.5535, rounded."""
    dn: NDArray[np.uint16] = np.rint(reflectance * np.float32(REFLECTANCE_DN)).astype(np.uint16)
    return dn


def _read_npz(path: Path) -> tuple[NDArray[Any], str, str]:
    """Return array, name and attribution of an npz file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if "dn" not in archive:
                found = ", ".join(archive.files) or "nothing"
                raise ConfigError(f"scene {path}: holds {found}; expected an array 'dn'")
            name = str(archive["name"]) if "name" in archive else path.name
            attribution = str(archive["attribution"]) if "attribution" in archive else ""
            return archive["dn"], name, attribution
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"scene {path}: not an npz file of plain arrays: {error}") from error


def _read_npy(path: Path) -> NDArray[Any]:
    """Return the array of an npy file."""
    try:
        with path.open("rb") as file:
            values: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            return values
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"scene {path}: not an npy file of plain numbers: {error}") from error


def _read_tiff(path: Path) -> NDArray[Any]:
    """Return the bands of a TIFF: by tifffile where it is installed, else by Pillow, which knows one band a page."""
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        return _read_tiff_pages(path)
    try:
        values = np.asarray(tifffile.imread(path))
    except (ValueError, OSError, tifffile.TiffFileError) as error:
        raise ConfigError(f"scene {path}: tifffile cannot read it: {error}") from error
    if values.ndim == 3 and values.shape[0] <= BANDS_MAX < values.shape[2]:
        values = np.moveaxis(values, 0, -1)  # pages and planes come first
    return values


def _read_tiff_pages(path: Path) -> NDArray[Any]:
    """Return the pages of a TIFF as bands, read by Pillow."""
    try:
        from PIL import Image, ImageSequence, UnidentifiedImageError
    except ImportError as error:
        raise ConfigError(f"scene {path}: reading TIFF needs Pillow; expected: pip install flatrack[ai]") from error
    try:
        with Image.open(path) as picture:
            pages = [(page.mode, np.asarray(page)) for page in ImageSequence.Iterator(picture)]
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ConfigError(
            f"scene {path}: Pillow cannot read it ({error}); several bands in one page need: pip install tifffile"
        ) from error
    if len(pages) < BANDS_MIN or any(not mode.startswith("I") for mode, _ in pages):
        found = ", ".join(mode for mode, _ in pages)
        raise ConfigError(
            f"scene {path}: {len(pages)} page(s) of mode {found}; expected at least {BANDS_MIN} pages of 16 bit grey, "
            "one band each (several bands in one page need: pip install tifffile)"
        )
    if len({page.shape for _, page in pages}) != 1:
        raise ConfigError(f"scene {path}: its pages differ in size; expected one picture a band")
    return np.stack([page for _, page in pages], axis=-1)


def _digital_numbers(values: NDArray[Any], path: Path) -> NDArray[np.uint16]:
    """Return checked digital numbers, ``(height, width, bands)``."""
    if values.ndim != 3 or not BANDS_MIN <= values.shape[2] <= BANDS_MAX:
        raise ConfigError(
            f"scene {path}: an array of shape {values.shape}; expected (height, width, bands) with {BANDS_MIN} to "
            f"{BANDS_MAX} bands, blue, green, red, near infrared first"
        )
    if not all(SIDE_PX_MIN <= side_px <= SIDE_PX_MAX for side_px in values.shape[:2]):
        raise ConfigError(
            f"scene {path}: {values.shape[0]} x {values.shape[1]} px; expected sides of {SIDE_PX_MIN} to {SIDE_PX_MAX}"
        )
    if values.dtype.kind not in "iuf":
        raise ConfigError(f"scene {path}: numbers of type {values.dtype}; expected whole numbers or floats")
    limit = REFLECTANCE_MAX if values.dtype.kind == "f" else 0xFFFF
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= limit):  # written so that a NaN is refused
        kind = "reflectances" if values.dtype.kind == "f" else "digital numbers"
        raise ConfigError(f"scene {path}: {kind} from {low} to {high}; expected 0 to {limit}")
    return to_dn(values.astype(np.float32)) if values.dtype.kind == "f" else values.astype(np.uint16)
