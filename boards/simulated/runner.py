"""The simulated runner: real compute on modelled time.

A step takes the time that the board profile says, then is really computed, so that a struck weight has its real
effect. Its model is the image in memory when the step ends: an upset or a repair during the step counts. Equal steps
(image, state and input digests) are computed once in a process and cached, so that thousands of virtual nodes stay
fast.
"""

import asyncio
import hashlib

import numpy as np

from flightsw.compute import cloud_mask, kinds
from flightsw.compute.abft import Product
from flightsw.compute.inference import InferenceCache
from flightsw.config import BoardProfile
from flightsw.ports import Model, ProductChecks


class SimulatedRunner:
    """Implements `flightsw.ports.Runner`.

    Args:
        profile: gives time and power of a step.
        cache: sessions and results, shared by all runners of the process.
        product: what multiplies matrices, and may be struck while it does.
    """

    def __init__(self, profile: BoardProfile, cache: InferenceCache, product: Product = np.matmul) -> None:
        self._mpix_per_s = profile.mpix_per_s.value
        self._compute_w = profile.compute_w.value
        self._cache = cache
        self._product = product
        self._images: dict[bytes, kinds.Image] = {}
        self._hangs = False
        self._hang_outlives_restart = False

    def load(self, digest: bytes, data: bytes) -> kinds.Image:
        """Load (or load again) the model with this digest. Raises: ConfigError."""
        image = kinds.load(data, f"model {digest.hex()[:16]}")
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

    def weight_memory(self) -> list[kinds.Image]:
        """The images in memory, in the order of their digests: what radiation can strike."""
        return [self._images[digest] for digest in sorted(self._images)]

    def step_s(self, kind: str, work_mpix: float) -> float:
        """How long a step of this much work takes [s]. Raises: ConfigError."""
        kinds.check(kind)
        return work_mpix / self._mpix_per_s

    def step_w(self, kind: str) -> float:
        """Power drawn while a step runs, on top of idle [W]. Raises: ConfigError."""
        kinds.check(kind)
        return self._compute_w

    async def step(
        self,
        kind: str,
        model: Model,
        state: bytes,
        data: bytes,
        work_mpix: float,
        checks: ProductChecks | None = None,
    ) -> bytes:
        """Run one step of a job: state (empty at first) and input bytes in, new state out.

        Raises:
            ConfigError: no model runtime, or a model that does not run; else as `flightsw.compute.kinds.step`.
            BoardError: the image was struck and no longer runs, or a product does not hold.
        """
        digest = next((key for key, image in self._images.items() if image is model), None)
        await asyncio.sleep(self.step_s(kind, work_mpix))
        if self._hangs:
            await asyncio.get_running_loop().create_future()
        image = model if digest is None else self._images.get(digest, model)
        assert isinstance(image, kinds.Image), "models come from load"
        if kind != cloud_mask.NAME:  # what strikes a product while it is computed must show: never from a cache
            return self._run(kind, image, state, data, checks)
        key = (image.digest(), _digest(state, data))
        if (known := self._cache.result(key)) is not None:
            step = cloud_mask.CloudMaskState.from_bytes(state).step if state else 0
            return cloud_mask.CloudMaskState(step + 1, known).to_bytes()
        after = self._run(kind, image, state, data, checks)
        self._cache.keep_result(key, cloud_mask.CloudMaskState.from_bytes(after).logit_sum)
        return after

    def finish(self, kind: str, state: bytes, data: bytes) -> tuple[bytes, bytes, float]:
        """Result object, product object and measure, as of `flightsw.compute.kinds.finish`."""
        return kinds.finish(kind, state, data)

    def _run(self, kind: str, image: kinds.Image, state: bytes, data: bytes, checks: ProductChecks | None) -> bytes:
        step = kinds.step(kind, image, state, data, checks)
        try:
            operation = next(step)
            while True:
                operation = step.send(kinds.compute(operation, image, self._cache, self._product))
        except StopIteration as done:
            after: bytes = done.value
            return after


def _digest(state: bytes, data: bytes) -> bytes:
    """Names a step's input; the length keeps state and data apart."""
    digest = hashlib.blake2b(len(state).to_bytes(8, "big"), digest_size=32)
    digest.update(state)
    digest.update(data)
    return digest.digest()
