"""One picture of what a demonstration did: per acquisition the scene, the truth and the mask that came down.

Each row shows one acquisition: true colour on the left, the true clouds in the middle, the mask from orbit on the
right, where what was missed and what was falsely called cloud stand out in colour, and tiles that never came down are
hatched. The picture is a PNG of few colours, at most eight rows, always below 1 MB; its bytes depend on the values
alone (and on the version of Pillow, whose own font it uses).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import ConfigError
from hil.imagery.scene import to_reflectance

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

TITLE: Final = "Clouds masked in orbit"
ROWS_MAX: Final = 8  # with 96 colours a scene pixel takes 7 bits at most: 8 rows of 300 x 300 px stay below 1 MB
PANEL_SIDE_PX_MAX: Final = 300  # larger scenes are thinned by a whole factor
SCENE_COLOURS: Final = 96
SATURATION: Final = 1.5  # dry ground seen from orbit is pale
GROUND_LEVELS: Final = 11
CLOUD_WHITE: Final = 0.9  # reflectance that is drawn white

_Tone: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
_Colour: TypeAlias = tuple[int, int, int]
_BACKGROUND = (16, 20, 28)
_TEXT, _TEXT_DIM = (232, 236, 242), (142, 152, 168)
_CLOUD, _MISSED, _FALSE, _UNKNOWN = (244, 246, 250), (240, 146, 32), (226, 52, 116), (58, 66, 84)
_LEGEND = ((_CLOUD, "cloud"), (_MISSED, "cloud missed"), (_FALSE, "falsely called cloud"), (_UNKNOWN, "not received"))
_MARGIN_PX, _GAP_PX, _TITLE_PX, _CAPTION_PX, _LEGEND_PX = 24, 12, 64, 30, 44


@dataclass(frozen=True, slots=True)
class MosaicRow:
    """One acquisition as it came down.

    Attributes:
        label: What stands over the row, as "acquisition 3".
        dn: ``(height, width, >= 3)`` uint16: blue, green, red first.
        truth: ``(height, width)``, true where there is cloud; None where nobody knows.
        mask: True where the mask from orbit says cloud. It may be smaller than the scene, which is then drawn only as
            far as the mask goes, from the north west.
        known: As `mask`, true where a mask came down at all.
    """

    label: str
    dn: NDArray[np.uint16]
    truth: NDArray[np.bool_] | None
    mask: NDArray[np.bool_]
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a mask compares with the truth, over the pixels that are known.

    Attributes:
        true_fraction: Part that is cloud.
        found_fraction: Part that the mask calls cloud.
        overlap: Intersection over union of the two; 1 where neither has a cloud.
        known_fraction: Part of the picture that is known.
    """

    true_fraction: float
    found_fraction: float
    overlap: float
    known_fraction: float


def compare(truth: NDArray[np.bool_], mask: NDArray[np.bool_], known: NDArray[np.bool_]) -> Agreement:
    """Compare a mask with the truth, all ``(height, width)``."""
    known_count = int(known.sum())
    if not known_count:
        return Agreement(0.0, 0.0, 0.0, 0.0)
    true, found = truth & known, mask & known
    union_count = int((true | found).sum())
    return Agreement(
        true_fraction=int(true.sum()) / known_count,
        found_fraction=int(found.sum()) / known_count,
        overlap=int((true & found).sum()) / union_count if union_count else 1.0,
        known_fraction=known_count / known.size,
    )


def save_mosaic(path: Path, rows: Sequence[MosaicRow], title: str = TITLE, attribution: str = "") -> None:
    """Draw a mosaic into a file; see `render`.

    Raises:
        ConfigError: As `render`, or the file cannot be written.
    """
    picture = render(rows, title, attribution)
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"mosaic {path}: cannot be written: {error.strerror}") from error


def render(rows: Sequence[MosaicRow], title: str = TITLE, attribution: str = "") -> bytes:
    """Draw a mosaic.

    Args:
        rows: The acquisitions, all of one size; those after the eighth are left out, and the picture says so.
        title: The heading.
        attribution: Whom the scene's licence wants named.

    Returns:
        A PNG file.

    Raises:
        ConfigError: There are no rows, their sizes differ, or Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ConfigError("drawing a mosaic needs Pillow; expected: pip install flatrack[ai]") from error
    _check(rows)
    shown = [_as_far_as_the_mask(row) for row in rows[:ROWS_MAX]]
    step = -(-max(shown[0].mask.shape) // PANEL_SIDE_PX_MAX)
    height, width = shown[0].mask[::step, ::step].shape
    pitch_px = height + _CAPTION_PX
    size = (
        2 * _MARGIN_PX + 3 * max(width, 200) + 2 * _GAP_PX,
        _TITLE_PX + len(shown) * pitch_px + _LEGEND_PX + _MARGIN_PX,
    )
    left_px = [_MARGIN_PX + column * (max(width, 200) + _GAP_PX) for column in range(3)]
    canvas = Image.new("RGB", size, _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    _write(pen, (left_px[0], 14), title, 20)
    left_out = f"{len(shown)} of {len(rows)} acquisitions shown" if len(rows) > len(shown) else ""
    for x, heading in zip(left_px, ("scene, true colour", "truth", "mask from orbit"), strict=True):
        _write(pen, (x, 43), heading, 13, _TEXT_DIM)
    tone = _tone_range(shown)
    for index, row in enumerate(shown):
        top_px = _TITLE_PX + index * pitch_px
        _caption(pen, row, left_px, top_px + 6)
        for x, panel in zip(left_px, _panels(row, step, tone), strict=True):
            canvas.paste(Image.fromarray(panel), (x, top_px + _CAPTION_PX))
    _legend(pen, left_px[0], _TITLE_PX + len(shown) * pitch_px + 12)
    _write(pen, (left_px[0], size[1] - 28), " · ".join(filter(None, (left_out, attribution))), 11, _TEXT_DIM)
    reduced = canvas.quantize(palette=_palette(canvas, left_px[1]), dither=Image.Dither.NONE)
    file = io.BytesIO()
    reduced.save(file, "PNG", compress_level=6)
    return file.getvalue()


def _palette(canvas: "Picture", scenes_px: int) -> "Picture":
    """Return the colours to use: those that carry a meaning exactly, then those of the scenes at the left edge."""
    from PIL import Image

    meanings = [colour for colour, _ in _LEGEND] + [_BACKGROUND, _TEXT, _TEXT_DIM]
    greys = [tuple(int(level * part / 8) + 20 for part in (216, 220, 226)) for level in range(8)]  # edges of letters
    fixed = [*meanings, *(tuple(colour) for colour in _ground_colours()), *greys]
    scenes = canvas.crop((0, 0, scenes_px, canvas.height)).quantize(SCENE_COLOURS, dither=Image.Dither.NONE)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(part for colour in fixed for part in colour), *(scenes.getpalette() or [])])
    return palette


def _ground_colours() -> NDArray[np.uint8]:
    """Return the dim colours of the ground below truth and mask, ``(11, 3)``, dark to bright."""
    level = np.linspace(0.0, 1.0, GROUND_LEVELS)[:, None]
    colours: NDArray[np.uint8] = (level * np.array((58, 74, 96)) + np.array((20, 26, 36))).astype(np.uint8)
    return colours


def _check(rows: Sequence[MosaicRow]) -> None:
    """Raise `ConfigError` unless there are rows of one size."""
    if not rows:
        raise ConfigError("mosaic: no acquisitions; expected at least one")
    shape = rows[0].mask.shape
    for row in rows:
        for name, found in (("mask", row.mask.shape), ("known", row.known.shape)):
            if found != shape:
                raise ConfigError(f"mosaic: {row.label}: {name} of {found}; expected {shape} as in the first row")
        truth_shape = shape if row.truth is None else row.truth.shape
        for name, found in (("scene", row.dn.shape[:2]), ("truth", truth_shape)):
            if found[0] < shape[0] or found[1] < shape[1]:
                raise ConfigError(f"mosaic: {row.label}: {name} of {found}; expected at least {shape}, as the mask")


def _as_far_as_the_mask(row: MosaicRow) -> MosaicRow:
    """Return the row with its scene and truth cut to the size of its mask."""
    height, width = row.mask.shape
    truth = None if row.truth is None else row.truth[:height, :width]
    return replace(row, dn=row.dn[:height, :width], truth=truth)


def _tone_range(rows: Sequence[MosaicRow]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the reflectances of red, green and blue that are drawn black, and those where the ground ends.

    They come from the pixels without cloud of all rows, so that all rows look alike. Each band has its own black, which
    takes the blue haze of the atmosphere away; room is left below it for shadows.
    """
    clouds = [row.mask if row.truth is None else row.truth for row in rows]
    ground = np.concatenate(
        [to_reflectance(row.dn[..., 2::-1])[~cloud] for row, cloud in zip(rows, clouds, strict=True)]
    )
    if not ground.size:
        return np.zeros(3, np.float32), np.full(3, 0.5, np.float32)
    dark, bright = np.percentile(ground, (1.0, 99.5), axis=0).astype(np.float32)
    span = max(float((bright - dark).max()), 0.05)
    black = np.maximum(dark - np.float32(0.15 * span), np.float32(0.0))
    return black, black + np.float32(1.15 * span)


def _true_colour(dn: NDArray[np.uint16], tone: _Tone) -> NDArray[np.float32]:
    """Return red, green, blue from 0 to 1: the ground takes the lower part of the range, clouds the upper."""
    low, high = tone
    reflectance = to_reflectance(dn[..., 2::-1])
    part = np.clip((reflectance - low) / (high - low), 0.0, 1.0)
    cloud_part = np.clip((reflectance - high) / np.maximum(CLOUD_WHITE - high, 0.05), 0.0, 1.0)
    colour = 0.72 * part**0.75 + 0.28 * cloud_part**0.7
    grey = colour.mean(axis=2, keepdims=True)
    vivid: NDArray[np.float32] = np.clip(grey + SATURATION * (colour - grey), 0.0, 1.0).astype(np.float32)
    return vivid


def _panels(row: MosaicRow, step: int, tone: _Tone) -> list[NDArray[np.uint8]]:
    """Return the three pictures of a row, ``(height, width, 3)`` uint8."""
    thin = (slice(None, None, step), slice(None, None, step))
    colour = _true_colour(row.dn[thin], tone)
    mask: NDArray[np.bool_] = row.mask[thin]
    known: NDArray[np.bool_] = row.known[thin]
    ground = _ground_colours()[np.rint(colour.mean(axis=2) * (GROUND_LEVELS - 1)).astype(np.intp)]
    true_panel, mask_panel = ground.copy(), ground.copy()
    mask_panel[mask] = _CLOUD
    if row.truth is not None:
        truth: NDArray[np.bool_] = row.truth[thin]
        true_panel[truth] = _CLOUD
        mask_panel[~mask & truth] = _MISSED
        mask_panel[mask & ~truth] = _FALSE
    is_stripe: NDArray[np.bool_] = np.add.outer(np.arange(known.shape[0]), np.arange(known.shape[1])) % 12 < 3
    hatch = np.where(is_stripe[..., None], np.array(_UNKNOWN), np.array(_BACKGROUND))
    mask_panel[~known] = hatch[~known]
    return [panel.astype(np.uint8) for panel in (colour * 255, true_panel, mask_panel)]


def _caption(pen: "ImageDraw", row: MosaicRow, left_px: Sequence[int], y: int) -> None:
    """Write what stands over the three pictures of a row."""
    truth = "not known" if row.truth is None else f"cloud {row.truth.mean():.1%}"
    agreement = compare(row.mask if row.truth is None else row.truth, row.mask, row.known)
    found = "no mask came down"
    if agreement.known_fraction > 0:
        found = f"cloud {agreement.found_fraction:.1%}"
        found += "" if row.truth is None else f" · overlap (IoU) {agreement.overlap:.2f}"
    if 0 < agreement.known_fraction < 1:
        found += f" · {agreement.known_fraction:.0%} down"
    for x, text in zip(left_px, (row.label, truth, found), strict=True):
        _write(pen, (x, y), text, 14)


def _legend(pen: "ImageDraw", x: int, y: int) -> None:
    """Draw the meaning of the colours."""
    for colour, text in _LEGEND:
        pen.rectangle((x, y + 2, x + 12, y + 14), fill=colour)
        _write(pen, (x + 19, y), text, 13)
        x += 19 + int(pen.textlength(text, font=_font(13))) + 26


def _write(pen: "ImageDraw", at: tuple[int, int], text: str, size_px: int, colour: _Colour = _TEXT) -> None:
    """Write text; `at` is its upper left corner."""
    pen.text(at, text, fill=colour, font=_font(size_px))


def _font(size_px: int) -> Any:
    """Return Pillow's own font, which is the same on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size_px)
