"""Clouds, their shadows and the ground below them, generated with the truth known.

A job that looks for clouds can be judged only against a truth, and no free real scene comes with one that is exact. So
clouds are drawn: a field with a power-law spectrum (fractal, as real cloud fields are) is cut at the quantile that
gives the wanted cover; the field above the cut becomes the opacity, soft at the edge. Clouds are laid over reflectances
by alpha compositing, and darken the ground beside them by a shadow, which is the opacity displaced along one direction.

    truth(y, x)   = field(y, x) > cut                       so that mean(truth) is the cover asked for
    opacity(y, x) = clip(0.35 + (field - cut) / softness)   so that "cloud" means opacity above 0.35

Reflectances are top-of-atmosphere, 1.0 is a white diffuser, bands are blue, green, red, near infrared (Sentinel-2 B02,
B03, B04, B08). Nothing here is radiative transfer: no haze, no cirrus, no side-lit towers. One `numpy.random.Generator`
in, one picture out; the same generator state gives the same picture on the same machine (the last bit of a Fourier
transform may differ between processors).
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from flightsw.errors import ConfigError

BANDS: Final = ("blue", "green", "red", "near infrared")

OPACITY_AT_EDGE: Final = 0.35
"""Opacity from which a pixel counts as cloud in the truth; thinner veils are ground."""

CLOUD_COLOUR: Final = np.array([1.0, 0.99, 0.98, 1.02], np.float32)
"""Colour of a cloud relative to its brightness: nearly white, a little brighter in the near infrared."""

SHADOW_REACH: Final = 0.2
"""Longest displacement of a shadow along one axis, as a part of the shorter side of the picture."""

REFLECTANCE_MAX: Final = 1.5
"""Clouds seen against the Sun can exceed a white diffuser; a uint16 of reflectance x 10000 holds up to 6.5535."""


class GroundCover(NamedTuple):
    """One kind of ground.

    Attributes:
        name: The kind.
        share: How often it is drawn.
        reflectance: Mean reflectance in blue, green, red, near infrared. Round figures of open spectral libraries.
    """

    name: str
    share: float
    reflectance: tuple[float, float, float, float]


GROUND_COVERS: Final = (
    GroundCover("ocean", 0.25, (0.10, 0.075, 0.05, 0.03)),
    GroundCover("vegetation", 0.25, (0.085, 0.09, 0.065, 0.30)),
    GroundCover("soil", 0.20, (0.13, 0.15, 0.18, 0.24)),
    GroundCover("city", 0.12, (0.16, 0.16, 0.17, 0.20)),
    GroundCover("sand", 0.15, (0.20, 0.25, 0.30, 0.36)),
    GroundCover("snow", 0.03, (0.85, 0.85, 0.85, 0.80)),
)


def fractal_field(shape: tuple[int, int], slope: float, random: Generator) -> NDArray[np.float32]:
    """Return a random field whose power falls with frequency as ``frequency ** -slope``.

    The field is drawn a quarter larger than asked and cut, because a Fourier transform wraps around at its edges.

    Args:
        shape: Height and width [px].
        slope: Exponent of the power spectrum; 2 is rough, 4 is smooth. Cloud fields are near 3.
        random: Where the noise comes from.

    Returns:
        ``shape``, zero mean, unit standard deviation (all zero for a single pixel).
    """
    height, width = (size + size // 4 for size in shape)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequency ** (slope / 2)
    field = np.fft.irfft2(spectrum, s=(height, width))[: shape[0], : shape[1]]
    deviation = float(field.std())
    normal: NDArray[np.float32] = ((field - field.mean()) / (deviation if deviation > 0 else 1.0)).astype(np.float32)
    return normal


def ground(shape: tuple[int, int], random: Generator, kinds: tuple[str, ...] = ()) -> NDArray[np.float32]:
    """Return a generated piece of ground: two kinds of cover with a fractal coast between them.

    Args:
        shape: Height and width [px].
        random: Where the draws come from.
        kinds: Names of the covers to draw from; empty draws from all by their share.

    Returns:
        ``(height, width, 4)`` reflectance.

    Raises:
        ConfigError: A kind is unknown.
    """
    names = [cover.name for cover in GROUND_COVERS]
    if unknown := [kind for kind in kinds if kind not in names]:
        raise ConfigError(f"ground kinds: {unknown[0]!r} is unknown; expected some of {', '.join(names)}")
    covers = [cover for cover in GROUND_COVERS if not kinds or cover.name in kinds]
    shares = np.array([cover.share for cover in covers])
    first, second = random.choice(len(covers), 2, p=shares / shares.sum())
    is_first = fractal_field(shape, 3.0, random) > random.standard_normal()
    picture = np.where(
        is_first[..., None],
        np.array(covers[first].reflectance, np.float32),
        np.array(covers[second].reflectance, np.float32),
    )
    relief = 1 + random.uniform(0.03, 0.2) * fractal_field(shape, random.uniform(1.5, 2.6), random)[..., None]
    noise = random.standard_normal(picture.shape) * 0.004
    clean: NDArray[np.float32] = np.clip(picture * relief + noise, 0.0, REFLECTANCE_MAX).astype(np.float32)
    return clean


def overlay(
    reflectance: NDArray[np.float32], cover: float, random: Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Lay generated clouds and their shadows over a picture.

    Args:
        reflectance: ``(height, width, 4)`` reflectance of the clear ground; it is not changed.
        cover: Part of the pixels that shall be cloud, 0 (a copy of the ground comes back) to 1.
        random: Where the draws come from.

    Returns:
        The cloudy picture ``(height, width, 4)`` and the truth ``(height, width)``, true where there is cloud. The mean
        of the truth is the cover, to one pixel.

    Raises:
        ConfigError: The cover is not in 0..1, or the picture is not ``(height, width, 4)``.
    """
    if reflectance.ndim != 3 or reflectance.shape[2] != len(BANDS):
        raise ConfigError(f"picture for clouds: shape {reflectance.shape}; expected (height, width, {len(BANDS)})")
    if not 0.0 <= cover <= 1.0:
        raise ConfigError(f"cloud cover: {cover!r}; expected a part of the picture, 0 to 1")
    shape = (reflectance.shape[0], reflectance.shape[1])
    if cover == 0.0:
        return reflectance.astype(np.float32), np.zeros(shape, np.bool_)
    reach_px = max(1, int(min(shape) * SHADOW_REACH))
    around = (shape[0] + 2 * reach_px, shape[1] + 2 * reach_px)  # clouds outside cast their shadows into the picture
    inside = (slice(reach_px, reach_px + shape[0]), slice(reach_px, reach_px + shape[1]))
    field = fractal_field(around, random.uniform(2.6, 3.8), random)
    softness = random.uniform(0.1, 0.8)
    brightness = random.uniform(0.4, 0.95)
    shadow_depth = random.uniform(0.3, 0.7)
    down, right = (int(shift) for shift in random.integers(-reach_px, reach_px + 1, 2))
    texture = np.clip(1 + 0.12 * fractal_field(shape, 2.4, random), 0.6, 1.3)

    seen = field[inside]
    cloudy_count = round(cover * seen.size)
    truth = np.zeros(shape, np.bool_)
    truth.flat[np.argsort(seen, axis=None, kind="stable")[seen.size - cloudy_count :]] = True
    edge = float(seen[truth].min()) if cloudy_count else np.inf
    veil = np.clip(OPACITY_AT_EDGE + (field - edge) / softness, 0.0, 1.0).astype(np.float32)[..., None]
    opacity = veil[inside]
    shadow = np.roll(veil, (down, right), (0, 1))[inside] * (1 - opacity)
    cloud = brightness * CLOUD_COLOUR * texture[..., None]
    picture = reflectance * (1 - shadow_depth * shadow) * (1 - opacity) + cloud * opacity
    return np.clip(picture, 0.0, REFLECTANCE_MAX).astype(np.float32), truth
