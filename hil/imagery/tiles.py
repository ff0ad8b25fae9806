"""Acquisitions of a scene on several overflights, cut into tiles, and put together again.

A satellite passes the same ground again and again under another sky. Acquisition 0 is the clear scene as it is; later
ones have generated clouds over it, with the truth known. A tile is the work of one job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from flightsw.errors import ConfigError
from hil.imagery.clouds import BANDS, overlay
from hil.imagery.scene import Scene, to_dn, to_reflectance

COVERS: Final = (0.15, 0.4, 0.65, 0.9)
"""Cloud covers of the acquisitions after the first. The mean over the Earth is about 0.67 (MODIS, King et al. 2013)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A square piece of a scene.

    Attributes:
        row: Which row of tiles, 0 in the north.
        column: Which column of tiles, 0 in the west.
        dn: ``(tile_px, tile_px, 4)`` uint16: blue, green, red, near infrared.
    """

    row: int
    column: int
    dn: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What one overflight saw.

    Attributes:
        index: Its number; 0 is clear.
        cover: Part of the scene that is cloud.
        scene: The picture with its clouds, four bands.
        truth: ``(height, width)``, true where there is cloud.
    """

    index: int
    cover: float
    scene: Scene
    truth: NDArray[np.bool_]


def acquisitions(
    scene: Scene, count: int, cover_per_acquisition: Sequence[float], random: Generator
) -> list[Acquisition]:
    """Return overflights of a scene.

    The first ones do not depend on how many follow.

    Args:
        scene: The clear ground.
        count: How many overflights.
        cover_per_acquisition: Cloud cover, 0 to 1, of the acquisitions 1, 2, ...; begun again when it is at its end.
        random: Where the clouds are drawn from.

    Raises:
        ConfigError: There are no acquisitions, or no covers for them, or a cover is not 0 to 1.
    """
    if count < 1:
        raise ConfigError(f"acquisitions: {count}; expected at least 1")
    if count > 1 and not cover_per_acquisition:
        raise ConfigError("acquisitions: no cloud covers; expected at least one")
    clear = scene.dn[..., : len(BANDS)]
    reflectance = to_reflectance(clear)
    seen = [Acquisition(0, 0.0, Scene(clear, scene.name, scene.attribution), np.zeros(clear.shape[:2], np.bool_))]
    for index in range(1, count):
        cover = cover_per_acquisition[(index - 1) % len(cover_per_acquisition)]
        picture, truth = overlay(reflectance, cover, random)
        seen.append(Acquisition(index, cover, Scene(to_dn(picture), scene.name, scene.attribution), truth))
    return seen


def grid(shape: Sequence[int], tile_px: int) -> tuple[int, int]:
    """Return how many rows and columns of whole tiles a picture holds; what is left over at two edges is not used.

    Raises:
        ConfigError: It holds none.
    """
    if not 1 <= tile_px <= min(shape[0], shape[1]):
        raise ConfigError(f"tile_px: {tile_px}; expected 1 to {min(shape[0], shape[1])}, the scene's shorter side")
    return shape[0] // tile_px, shape[1] // tile_px


def whole_tiles(scene: Scene, tile_px: int) -> Scene:
    """Return the north western part of a scene that its whole tiles cover.

    Raises:
        ConfigError: The scene is smaller than a tile.
    """
    rows, columns = grid(scene.dn.shape, tile_px)
    return Scene(scene.dn[: rows * tile_px, : columns * tile_px], scene.name, scene.attribution)


def cut(scene: Scene, tile_px: int) -> list[Tile]:
    """Cut a scene into tiles, row after row from the north west.

    Raises:
        ConfigError: The scene is smaller than a tile.
    """
    rows, columns = grid(scene.dn.shape, tile_px)
    bands = scene.dn[..., : len(BANDS)]
    return [
        Tile(row, column, np.ascontiguousarray(_window(bands, row, column, tile_px)))
        for row in range(rows)
        for column in range(columns)
    ]


def cut_truth(truth: NDArray[np.bool_], tile_px: int) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """Cut a truth into the tiles of its scene, by row and column.

    Raises:
        ConfigError: The truth is smaller than a tile.
    """
    rows, columns = grid(truth.shape, tile_px)
    return {
        (row, column): _window(truth, row, column, tile_px).copy() for row in range(rows) for column in range(columns)
    }


def join_masks(
    masks: Mapping[tuple[int, int], NDArray[np.bool_]], shape: tuple[int, int], tile_px: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Put the masks of tiles together.

    Args:
        masks: Masks by row and column of their tile; missing ones are allowed.
        shape: Height and width of the scene [px].
        tile_px: Side of a tile.

    Returns:
        The mask ``(height, width)`` and where it is known.

    Raises:
        ConfigError: A mask has another size or lies outside the scene.
    """
    rows, columns = grid(shape, tile_px)
    mask, known = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for (row, column), part in sorted(masks.items(), key=lambda item: item[0]):
        if part.shape != (tile_px, tile_px) or not (0 <= row < rows and 0 <= column < columns):
            raise ConfigError(
                f"mask of tile {row}, {column}: {part.shape}; expected ({tile_px}, {tile_px}) "
                f"within {rows} x {columns} tiles"
            )
        _window(mask, row, column, tile_px)[...] = part
        _window(known, row, column, tile_px)[...] = True
    return mask, known


def _window(picture: NDArray[Any], row: int, column: int, tile_px: int) -> NDArray[Any]:
    """Return the view of one tile."""
    return picture[row * tile_px : (row + 1) * tile_px, column * tile_px : (column + 1) * tile_px]
