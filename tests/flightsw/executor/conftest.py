"""A board with an executor on it, in virtual time, and what a job is to compute when nothing happens to it."""

import asyncio
import random  # noqa: TID251 - seeded, for the tile and for the power cuts
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import hil
from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from flightsw.compute import cloud_mask
from flightsw.compute.budget import Budget
from flightsw.compute.executor import Executor
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.compute.jobs import JobTable
from flightsw.compute.models import Models
from flightsw.config import InterfaceConfig, NodeConfig, SunInterval
from flightsw.objects.store import ObjectStore, digest_of
from flightsw.wire.messages import JobSpec, JobState
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

PROFILE = profiles.load("jetson-orin-nano")
STEP_S = 10
STEP_MPIX = STEP_S * PROFILE.mpix_per_s.value


MODEL = (Path(hil.__file__).parent / "assets" / "cloud-mask.onnx").read_bytes()
MODEL_DIGEST = digest_of(MODEL)
CACHE = InferenceCache()
STRIKING_BIT = 30
"""The highest exponent bit of the first weight."""


@cache
def tile(number=0):
    draws = random.Random(number)
    dn = np.array([draws.randrange(10_000) for _ in range(12 * 12 * 4)], np.uint16)
    return cloud_mask.encode_tile(dn.reshape(12, 12, 4))


@cache
def undisturbed_states(number=0):
    """The state after each step of a job that nothing happens to."""
    image, dn = ModelImage(MODEL), cloud_mask.decode_tile(tile(number))
    states = [cloud_mask.begin(dn)]
    for _ in range(cloud_mask.STEPS):
        states.append(cloud_mask.advance(states[-1], dn, image, CACHE))
    return [state.to_bytes() for state in states]


@cache
def undisturbed_result(number=0):
    state = cloud_mask.CloudMaskState.from_bytes(undisturbed_states(number)[-1])
    return digest_of(cloud_mask.finish(state, cloud_mask.decode_tile(tile(number))).mask_bytes)


def spec(job_id=1, attempt=1, number=0, priority=4, deadline_s=10_000, checkpoint_steps=3):
    return JobSpec(
        job_id=job_id,
        attempt=attempt,
        kind="cloud_mask",
        model=MODEL_DIGEST,
        model_bytes=len(MODEL),
        data=digest_of(tile(number)),
        data_bytes=len(tile(number)),
        steps_count=cloud_mask.STEPS,
        step_mpix=STEP_MPIX,
        priority=priority,
        deadline_s=deadline_s,
        checkpoint_steps=checkpoint_steps,
        product_measure_max=1.0,
    )


class Payload:
    """A board with its disk, and an executor that can be lost and built again from the disk."""

    def __init__(self, charge_share=0.9, capacity_bytes=1 << 22, product=np.matmul):
        self.product = product
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(lambda: self.loop.now_ns, 0)
        self.board = SimulatedBoard(PROFILE, self.clock, lambda now_ns: 1.0, charge_share)
        self.disk = SimulatedDisk(capacity_bytes, random.Random(1))
        self.refusal = None
        self.log = []
        self.wanted = []
        self.upsets = []
        self.events = []
        self.ended = []
        self.states_kept = []
        self.parameters = {
            "MODELS.range_guard": False,
            "MODELS.scrub_on_checkpoint": True,
            "MODELS.duplicate_steps": False,
            "MODELS.vote_results": True,
            "MODELS.abft": True,
        }
        self.boot()
        for data in (MODEL, tile()):
            self.store.put(data)

    def boot(self):
        now_ns = self.clock.monotonic_ns()
        self.store = ObjectStore(self.disk, 1 << 22)
        self.runner = SimulatedRunner(PROFILE, CACHE, self.product)
        self.jobs = JobTable(self.disk, 8, now_ns)
        self.models = Models(self.store, self.runner)
        self.executor = Executor(
            config=NodeConfig(node=2, name="sat-01", interfaces=(InterfaceConfig(index=0, name="radio"),)),
            clock=self.clock,
            board=self.board,
            runner=self.runner,
            jobs=self.jobs,
            models=self.models,
            store=self.store,
            budget=Budget(PROFILE, (SunInterval(0, 10**15),), reserve=0.35),
            may_run=lambda: self.refusal,
            want_model=lambda digest, size_bytes: self.wanted.append((digest, size_bytes)),
            on_end=lambda job: self.ended.append(job.report),
            on_upset=lambda digest, found: self.upsets.append(found),
            report=lambda *event: self.events.append(event),
            log=self.note,
            parameter=self.parameters.__getitem__,
        )
        self.task = self.loop.create_task(self.executor.run())

    async def cut(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.disk.power_cut()

    def note(self, kind, fields):
        self.log.append((kind, fields))
        if kind == "job.checkpoint":
            job = self.jobs.jobs[fields["job"]]
            self.states_kept.append((job.saved_step, job.saved))

    def submit(self, one):
        assert self.jobs.submit(one, self.clock.monotonic_ns()) is None
        self.executor.wake()
        return self.jobs.jobs[one.job_id]

    def strike(self, bit_index=STRIKING_BIT):
        self.runner.weight_memory()[0].flip_weight_bit(bit_index)

    def compute_w(self):
        idle_w = PROFILE.bus_w.value + PROFILE.idle_w.value
        return self.board.sensors().load_w - idle_w


def flown(scene, **options):
    """Plays a scene in virtual time; an executor that died fails it."""

    async def main():
        payload = Payload(**options)
        await scene(payload)
        assert not payload.task.done(), payload.task
        payload.task.cancel()
        await asyncio.gather(payload.task, return_exceptions=True)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def assert_undisturbed(payload, steps_run_count=None):
    """One report with the result of a job that nothing happened to, and no checkpoint that such a job has not."""
    (report,) = payload.ended
    assert (report.state, report.detail) == (JobState.COMPLETED, "")
    assert report.result == undisturbed_result()
    assert payload.store.has(report.result)
    for step, state in payload.states_kept:
        assert state == undisturbed_states()[step], f"checkpoint of step {step}"
    if steps_run_count is not None:
        assert report.steps_run_count == steps_run_count


@pytest.fixture(scope="session", name="flown")
def _flown():
    return flown


@pytest.fixture(scope="session", name="spec")
def _spec():
    return spec


@pytest.fixture(scope="session", name="tile")
def _tile():
    return tile


@pytest.fixture(scope="session", name="undisturbed_states")
def _undisturbed_states():
    return undisturbed_states


@pytest.fixture(scope="session", name="undisturbed_result")
def _undisturbed_result():
    return undisturbed_result


@pytest.fixture(scope="session", name="assert_undisturbed")
def _assert_undisturbed():
    return assert_undisturbed


@pytest.fixture(scope="session")
def striking_bit():
    return STRIKING_BIT
