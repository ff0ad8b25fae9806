"""Acquisitions of a scene on several overflights, cut into tiles, and put together again.

A satellite passes the same ground again and again, under another sky each time: an acquisition is the scene with
generated clouds of a given cover, whose truth is known. A tile is the work of one job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from flightsw.errors import ConfigError
from hil.imagery.clouds import BANDS, overlay
from hil.imagery.scene import Scene, to_dn, to_reflectance


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
        index: Its number, from 0.
        cover: Part of the scene that is cloud.
        dn: ``(height, width, 4)`` uint16, the picture with its clouds.
        truth: ``(height, width)``, true where there is cloud.
    """

    index: int
    cover: float
    dn: NDArray[np.uint16]
    truth: NDArray[np.bool_]


def acquisitions(scene: Scene, covers: Sequence[float], random: Generator) -> list[Acquisition]:
    """Return overflights of a scene, one for each cloud cover.

    The first ones do not depend on how many follow. A cover of 0 gives the scene as it is.

    Args:
        scene: The clear ground.
        covers: Cloud cover of each acquisition, 0 to 1.
        random: Where the clouds are drawn from.

    Raises:
        ConfigError: There are no covers, or one is not 0 to 1.
    """
    if not covers:
        raise ConfigError("acquisitions: no cloud covers; expected at least one")
    clear = scene.dn[..., : len(BANDS)]
    reflectance = to_reflectance(clear)
    seen = []
    for index, cover in enumerate(covers):
        picture, truth = overlay(reflectance, cover, random)
        seen.append(Acquisition(index, cover, to_dn(picture), truth))
    return seen


def grid(shape: Sequence[int], tile_px: int) -> tuple[int, int]:
    """Return how many rows and columns of whole tiles a picture holds; what is left over at two edges is not used.

    Raises:
        ConfigError: It holds none.
    """
    if not 1 <= tile_px <= min(shape[0], shape[1]):
        raise ConfigError(f"tile_px: {tile_px}; expected 1 to {min(shape[0], shape[1])}, the scene's shorter side")
    return shape[0] // tile_px, shape[1] // tile_px


def cut(dn: NDArray[np.uint16], tile_px: int) -> list[Tile]:
    """Cut a picture ``(height, width, >= 4)`` into tiles, row after row from the north west.

    Raises:
        ConfigError: The picture is smaller than a tile.
    """
    rows, columns = grid(dn.shape, tile_px)
    bands = dn[..., : len(BANDS)]
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
    """Put the masks of tiles together, over the part of the scene that whole tiles cover.

    Args:
        masks: Masks by row and column of their tile; missing ones are allowed.
        shape: Height and width of the scene [px].
        tile_px: Side of a tile.

    Returns:
        The mask and where it is known, both ``(rows x tile_px, columns x tile_px)`` from the north west.

    Raises:
        ConfigError: A mask has another size or lies outside the scene.
    """
    rows, columns = grid(shape, tile_px)
    covered = (rows * tile_px, columns * tile_px)
    mask, known = np.zeros(covered, np.bool_), np.zeros(covered, np.bool_)
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
