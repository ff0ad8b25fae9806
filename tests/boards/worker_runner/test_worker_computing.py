"""Workers compute what flight code computes, find upsets in their memory, and leave nothing open."""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from boards import profiles
from boards.simulated.runner import SimulatedRunner
from boards.worker.runner import WorkerRunner
from flightsw.compute import cloud_mask, matrix_product
from flightsw.compute.inference import InferenceCache
from flightsw.compute.matrix_file import encode_matrix
from flightsw.errors import BoardError, ConfigError, MessageError
from flightsw.objects.digest import digest_of
from flightsw.ports import ProductChecks

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[3]
MODEL = (ROOT / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
DIGEST = digest_of(MODEL)
PROOF_MODEL = (ROOT / "boards" / "worker" / "proof.onnx").read_bytes()
PROFILE = profiles.load("raspberry-pi-4")
SIGN_BIT = 31

Opener = Callable[..., "asyncio.Future[WorkerRunner]"]


def descriptors_count(pid: int) -> int:
    gc.collect()  # a model in memory has one
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# -- what is computed


@pytest.mark.parametrize("isolation", ["bubblewrap", "rlimits"])
async def test_masks_equal_those_computed_in_process_byte_for_byte(
    tile: bytes,
    steps: Callable[..., Awaitable[bytes]],
    computed_inline: Callable[[int], Awaitable[bytes]],
    isolation: str,
    open_worker: Opener,
    need_tool: Callable[[str], str],
) -> None:
    if isolation == "bubblewrap":
        need_tool("bwrap")
    runner = await open_worker(isolation=isolation)
    runner.load(DIGEST, MODEL)
    state = await steps(runner, cloud_mask.STEPS)
    inline = SimulatedRunner(PROFILE, InferenceCache())
    assert state == await computed_inline(cloud_mask.STEPS)
    assert runner.finish("cloud_mask", state, tile) == inline.finish("cloud_mask", state, tile)


@pytest.mark.parametrize("kind", [np.float32, np.int8])
async def test_products_of_the_worker_pass_their_checksums(kind: type, open_worker: Opener) -> None:
    runner = await open_worker()
    draw = np.random.Generator(np.random.PCG64(3))
    left, right = (draw.integers(-100, 100, shape).astype(kind) for shape in ((700, 40), (40, 30)))
    data, matrix = encode_matrix(right), encode_matrix(left)
    model, checks, state = runner.load(digest_of(matrix), matrix), ProductChecks(), b""
    for _ in range(matrix_product.steps_count(len(left))):
        state = await runner.step("matrix_product", model, state, data, 0.0, checks)
    expected = encode_matrix(left.astype(np.int32) @ right.astype(np.int32))
    if kind is np.float32:  # whole numbers, and their sums too: float32 holds them all
        expected = encode_matrix(left @ right)
    assert runner.finish("matrix_product", state, data)[0] == expected
    assert checks == ProductChecks()


async def test_an_upset_in_the_shared_memory_is_executed_and_found_and_a_load_mends_it(
    steps: Callable[..., Awaitable[bytes]], open_worker: Opener
) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL)
    sound = await steps(runner)
    runner.weight_memory()[0].flip_weight_bit(SIGN_BIT)
    assert await steps(runner) != sound
    assert runner.loaded()[DIGEST].digest() != DIGEST
    runner.load(DIGEST, MODEL)
    assert runner.loaded()[DIGEST].digest() == DIGEST
    assert await steps(runner) == sound


async def test_a_weight_that_the_guard_mends_is_mended_in_the_worker_too(
    steps: Callable[..., Awaitable[bytes]], open_worker: Opener
) -> None:
    runner = await open_worker()
    image = runner.load(DIGEST, MODEL)
    sound = await steps(runner)
    image.flip_weight_bit(30)  # the highest bit of the first weight's exponent
    assert await steps(runner) != sound
    assert image.guard_weights() == 1
    assert image.digest() == DIGEST
    assert await steps(runner) == sound


async def test_a_model_that_was_struck_so_that_it_does_not_run_is_the_boards_fault(
    steps: Callable[..., Awaitable[bytes]], computed_inline: Callable[[int], Awaitable[bytes]], open_worker: Opener
) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL).data[:64] = bytes(64)
    with pytest.raises(BoardError, match="the worker cannot run it"):
        await steps(runner)
    runner.load(DIGEST, MODEL)
    assert await steps(runner) == await computed_inline(1)


async def test_a_sound_model_that_does_not_fit_the_job_is_the_users_fault(
    make_tile: Callable[..., bytes], tile: bytes, open_worker: Opener
) -> None:
    runner = await open_worker()
    model = runner.load(digest_of(PROOF_MODEL), PROOF_MODEL)
    with pytest.raises(ConfigError, match="refuses the model or its input"):
        await runner.step("cloud_mask", model, b"", tile, 0.0)
    with pytest.raises(ConfigError, match=r"gives a tensor \(1, 2, 6, 6\); expected \(1, 1, 8, 8\)"):
        await runner.step("cloud_mask", model, b"", make_tile(8, 8), 0.0)
    with pytest.raises(MessageError):
        await runner.step("cloud_mask", model, b"", b"no tile", 0.0)
    with pytest.raises(ConfigError, match="job kind"):
        runner.step_s("fold_proteins", 1.0)


async def test_a_model_that_was_unloaded_is_not_run_and_its_memory_is_used_again(
    tile: bytes, open_worker: Opener
) -> None:
    runner = await open_worker()
    image = runner.load(DIGEST, MODEL)
    runner.unload(DIGEST)
    runner.unload(DIGEST)
    assert (runner.loaded(), runner.weight_memory()) == ({}, [])
    with pytest.raises(BoardError, match="no more in memory"):
        await runner.step("cloud_mask", image, b"", tile, 0.0)


async def test_hundreds_of_steps_loads_and_restarts_leave_nothing_open(
    steps: Callable[..., Awaitable[bytes]], open_worker: Opener
) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL)
    await steps(runner)
    pid = runner.worker_pid
    before = descriptors_count(os.getpid()), descriptors_count(pid)
    for _ in range(50):
        runner.load(DIGEST, MODEL)
        await steps(runner, 8)
    assert runner.worker_pid == pid
    assert (descriptors_count(os.getpid()), descriptors_count(pid)) == before
    for _ in range(3):
        runner.restart()
        await runner.ready()
    runner.load(DIGEST, MODEL)
    await steps(runner)
    assert descriptors_count(os.getpid()) == before[0]
