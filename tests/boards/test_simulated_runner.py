"""The simulated runner: modelled time, real compute, and the model is what the memory holds when a step ends."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boards import profiles
from boards.simulated.runner import SimulatedRunner
from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.errors import ConfigError, MessageError
from flightsw.objects.digest import digest_of
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams

pytest.importorskip("onnxruntime")

MODEL = (Path(__file__).parents[2] / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
DIGEST = digest_of(MODEL)
PROFILE = profiles.load("raspberry-pi-4")
SIGN_BIT = 31


def make_tile() -> bytes:
    dn = Streams(1).generator("tile").integers(0, 9000, (16, 16, cloud_mask.BANDS))
    return cloud_mask.encode_tile(dn.astype(np.uint16))


TILE = make_tile()


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))


async def steps(runner: SimulatedRunner, count: int, state: bytes = b"") -> bytes:
    for _ in range(count):
        state = await runner.step("cloud_mask", runner.loaded()[DIGEST], state, TILE, 2.0)
    return state


def test_a_step_takes_the_time_of_the_profile() -> None:
    async def main(loop: VirtualLoop) -> None:
        runner = SimulatedRunner(PROFILE, InferenceCache())
        runner.load(DIGEST, MODEL)
        await steps(runner, 1)
        assert loop.now_ns == round(runner.step_s("cloud_mask", 2.0) * 1e9) == 1_000_000_000
        assert runner.step_w("cloud_mask") == PROFILE.compute_w.value

    run(main)


def test_a_job_computes_what_the_cloud_mask_computes() -> None:
    async def main(_: VirtualLoop) -> None:
        runner = SimulatedRunner(PROFILE, InferenceCache())
        image = runner.load(DIGEST, MODEL)
        state = await steps(runner, cloud_mask.STEPS)
        tile = cloud_mask.decode_tile(TILE)
        expected = cloud_mask.begin(tile)
        for _ in range(cloud_mask.STEPS):
            expected = cloud_mask.advance(expected, tile, image, InferenceCache())
        assert state == expected.to_bytes()
        result = cloud_mask.finish(expected, tile)
        assert runner.finish("cloud_mask", state, TILE) == (
            result.mask_bytes,
            result.product_bytes,
            result.cloud_fraction,
        )

    run(main)


def test_equal_steps_are_computed_once_for_all_runners_with_the_same_answer() -> None:
    async def main(_: VirtualLoop) -> None:
        cache = InferenceCache()
        first, second = SimulatedRunner(PROFILE, cache), SimulatedRunner(PROFILE, cache)
        first.load(DIGEST, MODEL)
        second.load(DIGEST, MODEL)
        state = await steps(first, 3)
        computed_count = cache.misses_count
        assert await steps(second, 3) == state
        assert cache.misses_count == computed_count

    run(main)


def test_an_upset_during_a_step_changes_its_result() -> None:
    async def main(loop: VirtualLoop) -> None:
        cache = InferenceCache()
        runner = SimulatedRunner(PROFILE, cache)
        runner.load(DIGEST, MODEL)
        sound = await steps(runner, 1)
        loop.call_later(0.5, runner.weight_memory()[0].flip_weight_bit, SIGN_BIT)
        struck = await steps(runner, 1)
        assert struck != sound
        assert runner.loaded()[DIGEST].digest() != DIGEST
        assert await steps(runner, 1) == struck

    run(main)


def test_a_repair_during_a_step_counts_for_it() -> None:
    async def main(loop: VirtualLoop) -> None:
        runner = SimulatedRunner(PROFILE, InferenceCache())
        runner.load(DIGEST, MODEL)
        sound = await steps(runner, 1)
        runner.weight_memory()[0].flip_weight_bit(SIGN_BIT)
        loop.call_later(0.5, runner.load, DIGEST, MODEL)
        assert await steps(runner, 1) == sound
        assert runner.loaded()[DIGEST].digest() == DIGEST

    run(main)


def test_an_unloaded_model_is_gone() -> None:
    runner = SimulatedRunner(PROFILE, InferenceCache())
    runner.load(DIGEST, MODEL)
    runner.unload(DIGEST)
    runner.unload(DIGEST)
    assert runner.loaded() == {}
    assert runner.weight_memory() == []


def test_what_is_no_model_no_kind_or_no_tile_is_refused() -> None:
    runner = SimulatedRunner(PROFILE, InferenceCache())
    with pytest.raises(ConfigError):
        runner.load(DIGEST, b"no model")
    with pytest.raises(ConfigError, match="cloud_mask"):
        runner.step_s("fold_proteins", 1.0)
    with pytest.raises(MessageError):
        runner.finish("cloud_mask", b"", b"no tile")
