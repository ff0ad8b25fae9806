"""Measure the shipped cloud mask, and print the figures that its model card states.

    python scripts/evaluate_cloud_mask.py [--model FILE]

Needs no torch. The pictures are drawn from a seed of their own, and the parts of the real scene come from its eastern
third (columns 192 to 299), which the training never saw. What is measured is the job as it flies: `flightsw.compute.
cloud_mask` over tiles of 48 px, all eight turns.

Intersection over union (IoU) is pooled: the pixels of all tiles are counted together, so that tiles without clouds
count through their false alarms.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache, ModelImage
from hil.imagery.clouds import GROUND_COVERS, ground, overlay
from hil.imagery.scene import to_dn, to_reflectance

ASSETS = Path(__file__).resolve().parent.parent / "hil" / "assets"
SCENE = ASSETS / "sentinel2-scene.npz"
MODEL = ASSETS / "cloud-mask.onnx"
HELD_OUT_COLUMN = 192
REFLECTANCE_SCALE = 10_000
TILE_PX = 48
SEED = 20_260_101  # not the training's


class Sample(NamedTuple):
    """A tile, ``(48, 48, 4)`` uint16, and its true clouds, ``(48, 48)``."""

    dn: np.ndarray
    truth: np.ndarray


class Score(NamedTuple):
    """Pooled counts of pixels."""

    intersection: int
    union: int
    false: int
    clear: int
    total: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where there is no cloud and none was called."""
        return self.intersection / self.union if self.union else 1.0

    @property
    def false_rate(self) -> float:
        """Part of the clear pixels that were called cloud."""
        return self.false / self.clear if self.clear else 0.0


def real_scene() -> np.ndarray:
    """Return the real scene's reflectance, ``(200, 300, 4)``."""
    with np.load(SCENE) as scene:
        return to_reflectance(scene["dn"])


def cover(random: np.random.Generator) -> float:
    """Return a cloud cover as the demonstration uses them, 0 to 0.95."""
    return float(random.uniform(0.0, 0.95))


def generated_tiles(count: int, seed: int, kinds: tuple[str, ...] = ()) -> Iterator[Sample]:
    """Draw tiles of generated ground, each with its own clouds."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        picture, truth = overlay(ground((TILE_PX, TILE_PX), random, kinds), cover(random), random)
        yield Sample(to_dn(picture), truth)


def real_tiles(count: int, seed: int) -> Iterator[Sample]:
    """Draw overflights of the whole real scene, and give the tiles of its held-out part: eight an overflight."""
    random = np.random.default_rng(seed)
    reflectance = real_scene()
    for _ in range(count):
        picture, truth = overlay(reflectance, cover(random), random)
        yield from held_out(picture, truth)


def clear_tiles() -> Iterator[Sample]:
    """Give the eight held-out tiles of the real scene without clouds."""
    reflectance = real_scene()
    yield from held_out(reflectance, np.zeros(reflectance.shape[:2], np.bool_))


def held_out(picture: np.ndarray, truth: np.ndarray) -> Iterator[Sample]:
    """Cut the part of a picture that the training never saw."""
    for row in range(0, picture.shape[0] - TILE_PX + 1, TILE_PX):
        for column in range(HELD_OUT_COLUMN, picture.shape[1] - TILE_PX + 1, TILE_PX):
            window = slice(row, row + TILE_PX), slice(column, column + TILE_PX)
            yield Sample(to_dn(picture[window]), truth[window])


def score(samples: Iterator[Sample], image: ModelImage) -> Score:
    """Run the job over tiles and count."""
    counts = np.zeros(5, np.int64)
    cache = InferenceCache(results_bytes_max=0)
    for dn, truth in samples:
        state = cloud_mask.begin(dn)
        for _ in range(cloud_mask.STEPS):
            state = cloud_mask.advance(state, dn, image, cache)
        mask = cloud_mask.finish(state, dn).mask
        counts += [(mask & truth).sum(), (mask | truth).sum(), (mask & ~truth).sum(), (~truth).sum(), truth.size]
    return Score(*(int(count) for count in counts))


def main() -> None:
    """Print every figure of the model card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    data = parser.parse_args().model.read_bytes()
    image = ModelImage(data, "cloud mask")
    print(f"model: {len(data)} bytes, {image.weight_bits_count // 32} weights, object {image.digest().hex()}")
    print(f"sha256 {hashlib.sha256(data).hexdigest()}")
    generated = score(generated_tiles(300, SEED), image)
    print(f"generated ground, 300 tiles: IoU {generated.iou:.3f}, false cloud {generated.false_rate:.2%}")
    real = score(real_tiles(40, SEED + 1), image)
    print(f"held-out real ground under generated clouds, 320 tiles: IoU {real.iou:.3f}, false {real.false_rate:.2%}")
    clear = score(clear_tiles(), image)
    print(f"held-out real ground, clear, 8 tiles: false cloud {clear.false_rate:.2%}")
    for index, kind in enumerate(GROUND_COVERS):
        one = score(generated_tiles(60, SEED + 2 + index, (kind.name,)), image)
        print(f"generated {kind.name} only, 60 tiles: IoU {one.iou:.3f}, false cloud {one.false_rate:.2%}")


if __name__ == "__main__":
    main()
