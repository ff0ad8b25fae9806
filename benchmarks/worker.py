"""What a step of a job costs in a worker process, against the same step in the manager's own.

    python benchmarks/worker.py [--isolation rlimits] [--steps 200] [--json FILE]

Both compute the cloud mask with the same runtime, one thread each, and take turns within the run, so that what else the
machine does falls on both. Figures are medians; ratios are of the medians. A step in the worker sends its tensors
through a socket and gives its models a digest; the session is warm in both.
"""

import argparse
import asyncio
import time
from pathlib import Path
from statistics import median

import numpy as np
from report import Report

from boards import profiles
from boards.worker.runner import WorkerRunner, open_runner
from boards.worker.settings import WorkerSettings
from flightsw.compute import cloud_mask, kinds
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.objects.digest import digest_of

MODEL = Path(__file__).resolve().parent.parent / "hil" / "assets" / "cloud-mask.onnx"
SIDES_PX = (48, 256, 1024)
STEPS_MIN = 10
"""Steps over a tile of any size; over larger ones there are fewer, so that they do not take minutes."""
STARTS = 5


def inline_step(image: ModelImage, data: bytes, cache: InferenceCache) -> None:
    """One step in this process, its result not kept."""
    step = kinds.step(cloud_mask.NAME, image, b"", data, None)
    try:
        operation = next(step)
        while True:
            operation = step.send(kinds.compute(operation, image, cache))
    except StopIteration:
        return


async def compare(report: Report, runner: WorkerRunner, steps_max: int) -> None:
    """Print the cost of steps over tiles of several sizes."""
    model = MODEL.read_bytes()
    shared, own = runner.load(digest_of(model), model), ModelImage(model)
    cache = InferenceCache(results_bytes_max=0)
    draw = np.random.default_rng(1)
    for side in SIDES_PX:
        dn = draw.integers(0, 9000, (side, side, cloud_mask.BANDS)).astype(np.uint16)
        data = cloud_mask.encode_tile(dn)
        inline_s, worker_s = [], []
        for number in range(max(STEPS_MIN, steps_max * SIDES_PX[0] ** 2 // side**2) + 1):
            begun = time.perf_counter()
            inline_step(own, data, cache)
            between = time.perf_counter()
            await runner.step(cloud_mask.NAME, shared, b"", data, 0.0)
            if number:  # the first makes the sessions
                inline_s.append(between - begun)
                worker_s.append(time.perf_counter() - between)
        inline, worker = median(inline_s), median(worker_s)
        name = f"a step over {side} px"
        report.add(f"{name}: in the manager", 1e3 * inline, "ms")
        report.add(f"{name}: in the worker", 1e3 * worker, "ms")
        report.add(f"{name}: worker against manager", worker / inline, "times")


async def starts(report: Report, settings: WorkerSettings) -> None:
    """Print how long the proof of the limit and the start of a worker take."""
    proven_s, started_s = [], []
    for _ in range(STARTS):
        begun = time.perf_counter()
        runner = await open_runner(settings, profiles.load("raspberry-pi-4"), name="benchmark", log=lambda *_: None)
        between = time.perf_counter()
        await runner.ready()
        started_s.append(time.perf_counter() - between)
        proven_s.append(between - begun)
        await runner.close()
    report.add("proof of the memory limit", 1e3 * median(proven_s), "ms")
    report.add("start of a worker, with its proof by an inference", 1e3 * median(started_s), "ms")


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isolation", default="auto", help="how the worker is confined")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="steps over the smallest tile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    given = parser.parse_args()
    report = Report("worker")
    settings = WorkerSettings(isolation=given.isolation, memory_bytes=2 * 1024 * 1024 * 1024)
    await starts(report, settings)
    runner = await open_runner(settings, profiles.load("raspberry-pi-4"), name="benchmark", log=lambda *_: None)
    try:
        await compare(report, runner, given.steps)
    finally:
        await runner.close()
    if given.json is not None:
        report.write_json(given.json)


if __name__ == "__main__":
    asyncio.run(main())
