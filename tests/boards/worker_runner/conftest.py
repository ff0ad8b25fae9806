"""Workers that end with the test, and what they and flight code itself compute of one tile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from boards import profiles
from boards.simulated.runner import SimulatedRunner
from boards.worker.runner import WorkerRunner, open_runner
from boards.worker.settings import WorkerSettings
from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.objects.digest import digest_of

ROOT = Path(__file__).parents[3]
MODEL = (ROOT / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
DIGEST = digest_of(MODEL)
PROFILE = profiles.load("raspberry-pi-4")
HEIGHT, WIDTH = 47, 50

Logged = list[tuple[str, dict[str, object]]]
Opener = Callable[..., "asyncio.Future[WorkerRunner]"]


def make_tile(height: int, width: int) -> bytes:
    dn = np.random.Generator(np.random.PCG64(7)).integers(0, 9000, (height, width, cloud_mask.BANDS))
    return cloud_mask.encode_tile(dn.astype(np.uint16))


TILE = make_tile(HEIGHT, WIDTH)


@pytest.fixture
def logged() -> Logged:
    return []


@pytest.fixture
async def open_worker(logged: Logged) -> AsyncIterator[Opener]:
    opened: list[WorkerRunner] = []

    async def open_one(**fields: object) -> WorkerRunner:
        settings = WorkerSettings(**{"isolation": "rlimits", **fields})
        runner = await open_runner(settings, PROFILE, name="sat-01", log=lambda kind, said: logged.append((kind, said)))
        opened.append(runner)
        await runner.ready()
        return runner

    yield open_one
    for runner in opened:
        await runner.close()


async def steps(
    runner: WorkerRunner | SimulatedRunner, count: int = 1, state: bytes = b"", tile: bytes = TILE
) -> bytes:
    for _ in range(count):
        state = await runner.step("cloud_mask", runner.loaded()[DIGEST], state, tile, 0.0)
    return state


async def computed_inline(count: int) -> bytes:
    runner = SimulatedRunner(PROFILE, InferenceCache())
    runner.load(DIGEST, MODEL)
    return await steps(runner, count)


@pytest.fixture(scope="session", name="make_tile")
def _make_tile() -> Callable[..., bytes]:
    return make_tile


@pytest.fixture(scope="session")
def tile() -> bytes:
    return TILE


@pytest.fixture(scope="session", name="steps")
def _steps() -> Callable[..., Awaitable[bytes]]:
    return steps


@pytest.fixture(scope="session", name="computed_inline")
def _computed_inline() -> Callable[[int], Awaitable[bytes]]:
    return computed_inline
