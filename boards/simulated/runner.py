"""The simulated runner: real compute on modelled time.

A step takes the time that the board profile says, then is really computed, so that a struck weight has its real
effect. Its model is the image in memory when the step ends: an upset or a repair during the step counts. Equal steps
(image, state and input digests) are computed once in a process and cached, so that thousands of virtual nodes stay
fast.
"""

import asyncio
import hashlib
from typing import Final

from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.config import BoardProfile
from flightsw.errors import ConfigError
from flightsw.ports import Model

KINDS: Final = ("cloud_mask",)
"""Kinds of job that this runner runs."""


class SimulatedRunner:
    """Implements `flightsw.ports.Runner`.

    Args:
        profile: gives time and power of a step.
        cache: sessions and results, shared by all runners of the process.
    """

    def __init__(self, profile: BoardProfile, cache: InferenceCache) -> None:
        self._mpix_per_s = profile.mpix_per_s.value
        self._compute_w = profile.compute_w.value
        self._cache = cache
        self._images: dict[bytes, ModelImage] = {}
        self._hangs = False
        self._hang_outlives_restart = False

    def load(self, digest: bytes, data: bytes) -> ModelImage:
        """Load (or load again) the model with this digest. Raises: ConfigError."""
        image = ModelImage(data, name=f"model {digest.hex()[:16]}")
        self._images[digest] = image
        return image

    def loaded(self) -> dict[bytes, Model]:
        """Models in memory by the digest that they should have."""
        return dict(self._images)

    def unload(self, digest: bytes) -> None:
        """Forget a model in memory; no error when absent."""
        self._images.pop(digest, None)

    def restart(self) -> None:
        """Start the worker anew: what it had in memory is gone, and a step that waits for it never ends."""
        self._images.clear()
        self._hangs = self._hangs and self._hang_outlives_restart

    def hang(self, outlives_restart: bool = False) -> None:
        """Let no step end from now on: the one that runs, and those that follow, until the worker is started anew."""
        self._hangs = True
        self._hang_outlives_restart = outlives_restart

    def weight_memory(self) -> list[ModelImage]:
        """The images in memory, in the order of their digests: what radiation can strike."""
        return [self._images[digest] for digest in sorted(self._images)]

    def step_s(self, kind: str, work_mpix: float) -> float:
        """How long a step of this much work takes [s]. Raises: ConfigError."""
        _check(kind)
        return work_mpix / self._mpix_per_s

    def step_w(self, kind: str) -> float:
        """Power drawn while a step runs, on top of idle [W]. Raises: ConfigError."""
        _check(kind)
        return self._compute_w

    async def step(self, kind: str, model: Model, state: bytes, data: bytes, work_mpix: float) -> bytes:
        """Run one step of a job: state (empty at first) and input bytes in, new state out.

        Raises:
            ConfigError: an unknown kind, no model runtime, or a model that does not run.
            BoardError: the image was struck and no longer runs.
            MessageError: the input is no tile.
            StorageError: the state is no checkpoint of this tile.
        """
        digest = next((key for key, image in self._images.items() if image is model), None)
        await asyncio.sleep(self.step_s(kind, work_mpix))
        if self._hangs:
            await asyncio.get_running_loop().create_future()
        image = model if digest is None else self._images.get(digest, model)
        assert isinstance(image, ModelImage), "models come from load"
        key = (image.digest(), _digest(state, data))
        if (known := self._cache.result(key)) is not None:
            step = cloud_mask.CloudMaskState.from_bytes(state).step if state else 0
            return cloud_mask.CloudMaskState(step + 1, known).to_bytes()
        tile = cloud_mask.decode_tile(data)
        before = cloud_mask.CloudMaskState.from_bytes(state) if state else cloud_mask.begin(tile)
        after = cloud_mask.advance(before, tile, image, self._cache)
        self._cache.keep_result(key, after.logit_sum)
        return after.to_bytes()

    def finish(self, kind: str, state: bytes, data: bytes) -> tuple[bytes, bytes, float]:
        """(mask, cloud-free product, cloud share) of a job whose steps are done.

        Raises:
            ConfigError: an unknown kind.
            MessageError: the input is no tile.
            StorageError: the state is no checkpoint.
        """
        _check(kind)
        tile = cloud_mask.decode_tile(data)
        result = cloud_mask.finish(cloud_mask.CloudMaskState.from_bytes(state), tile)
        return result.mask_bytes, result.product_bytes, result.cloud_fraction


def _digest(state: bytes, data: bytes) -> bytes:
    """Names a step's input; the length keeps state and data apart."""
    digest = hashlib.blake2b(len(state).to_bytes(8, "big"), digest_size=32)
    digest.update(state)
    digest.update(data)
    return digest.digest()


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(f"job kind {kind!r}: expected one of {', '.join(KINDS)}")
