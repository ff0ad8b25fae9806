"""The cloud-mask workload: a real scene under generated clouds, cut into tiles, one job each, and the truth about them.

The reference masks come from the same model on the same bytes with no fault anywhere: what came down must equal them,
byte for byte on the machine that ran both (docs/determinism.md says what holds across machines).
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.errors import ConfigError, WireError
from flightsw.objects.store import digest_of
from ground.ledger import JobRequest
from hil.bench.scenario import CloudMaskWorkload
from hil.imagery.mosaic import MosaicRow
from hil.imagery.scene import Scene, load_scene
from hil.imagery.tiles import acquisitions, cut, cut_truth, join_masks
from hil.sim.streams import Streams

KIND: Final = "cloud_mask"


@dataclass(frozen=True, slots=True)
class Item:
    """One job's worth of work.

    Attributes:
        acquisition, row, column: where the tile lies.
        data: the tile's bytes, as uplinked.
        truth: (h, w) clouds laid over it, None where they are unknown.
    """

    acquisition: int
    row: int
    column: int
    data: bytes
    digest: bytes
    truth: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Reference:
    """What a job brings back when nothing goes wrong."""

    result: bytes
    product: bytes
    measure: float


@dataclass(frozen=True, slots=True)
class View:
    """One acquisition of the scene.

    Attributes:
        label: for people.
        dn: (h, w, 4) digital numbers.
        truth: (h, w) clouds laid over it, None where they are unknown.
    """

    label: str
    dn: NDArray[np.uint16]
    truth: NDArray[np.bool_] | None


class Workload:
    """Everything that the ground uplinks and what must come back.

    Args:
        spec: the scenario's workload.
        streams: the run's streams; clouds draw from their own.
        user_scene: the user's image instead of the shipped scene; no clouds are laid over it.

    Raises:
        ConfigError: scene or model cannot be read.
    """

    def __init__(self, spec: CloudMaskWorkload, streams: Streams, user_scene: Path | None = None) -> None:
        self.spec = spec
        scene_path = user_scene or asset(spec.scene, "scene")
        self.scene: Scene = load_scene(scene_path)
        height, width = self.scene.dn.shape[:2]
        if min(height, width) < spec.tile_px:
            raise ConfigError(
                f"scene {scene_path}: {height} x {width} px, expected at least one tile of {spec.tile_px} px a side "
                "(workload.tile_px)"
            )
        model_path = asset(spec.model, "model")
        try:
            self.model = model_path.read_bytes()
        except OSError as error:
            raise ConfigError(f"model {model_path}: cannot be read: {error.strerror}") from None
        self.model_digest = digest_of(self.model)
        self._image = ModelImage(self.model, str(model_path))
        self.views: list[View] = []
        if user_scene is None:
            for seen in acquisitions(self.scene, spec.covers, streams.generator("clouds")):
                self.views.append(View(f"cover {seen.cover:.0%}", seen.dn, seen.truth))
        else:
            self.views.append(View(self.scene.name, self.scene.dn, None))
        self.items: list[Item] = []
        for number, view in enumerate(self.views):
            truths = {} if view.truth is None else cut_truth(view.truth, spec.tile_px)
            for tile in cut(view.dn, spec.tile_px):
                data = cloud_mask.encode_tile(tile.dn)
                truth = truths.get((tile.row, tile.column))
                self.items.append(Item(number, tile.row, tile.column, data, digest_of(data), truth))

    @property
    def weight_bits_count(self) -> int:
        """Bits of the model that radiation can strike."""
        return self._image.weight_bits_count

    def request(self, item: Item) -> JobRequest:
        """The job that an item is for the ground."""
        spec = self.spec
        return JobRequest(
            kind=KIND,
            model=self.model_digest,
            model_bytes=len(self.model),
            data=item.digest,
            data_bytes=len(item.data),
            steps_count=cloud_mask.STEPS,
            step_mpix=spec.step_mpix,
            priority=spec.priority,
            deadline_s=spec.deadline_s,
            checkpoint_steps=spec.checkpoint_steps,
            product_measure_max=spec.product_cover_max,
        )

    def reference(self, item: Item, cache: InferenceCache) -> Reference:
        """The fault-free answer to one job."""
        tile = cloud_mask.decode_tile(item.data)
        state = cloud_mask.begin(tile)
        for _ in range(cloud_mask.STEPS):
            state = cloud_mask.advance(state, tile, self._image, cache)
        done = cloud_mask.finish(state, tile)
        return Reference(done.mask_bytes, done.product_bytes, done.cloud_fraction)

    def objection(self, result: bytes) -> str | None:
        """Why a result cannot be a mask of this workload, or None: what the ground itself checks on arrival."""
        try:
            mask = cloud_mask.decode_mask(result)
        except WireError as error:
            return str(error)
        side = self.spec.tile_px
        return None if mask.shape == (side, side) else f"mask is {mask.shape}, expected {(side, side)}"


def asset(name: str, what: str) -> Path:
    """A shipped file by name, or the user's by path.

    Raises:
        ConfigError: neither is there.
    """
    shipped = Path(str(resources.files("hil") / "assets" / name))
    if "/" not in name and shipped.is_file():
        return shipped
    path = Path(name)
    if path.is_file():
        return path
    raise ConfigError(f"{what} {name!r}: no such file, and not one that comes with flatrack")


def mosaic_rows(workload: Workload, masks: dict[int, tuple[Item, NDArray[np.bool_]]]) -> list[MosaicRow]:
    """Rows of the mosaic: each view with the masks that came down.

    Args:
        workload: the work.
        masks: job -> (its item, its mask).
    """
    rows = []
    for number, view in enumerate(workload.views):
        mine = {(item.row, item.column): mask for item, mask in masks.values() if item.acquisition == number}
        mask, known = join_masks(mine, (view.dn.shape[0], view.dn.shape[1]), workload.spec.tile_px)
        rows.append(MosaicRow(view.label, view.dn, view.truth, mask, known))
    return rows
