"""The executor on a simulated board: order, pauses, resets, struck weights, missing objects, and every way to fail."""

import asyncio
import random  # noqa: TID251 - seeded, for the tile and for the power cuts
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

import hil
from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from flightsw.component import Outcome
from flightsw.compute import cloud_mask, matrix_file, matrix_product
from flightsw.compute.budget import Budget
from flightsw.compute.executor import STRIKES_MAX, Executor
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.compute.job_commands import JobControl
from flightsw.compute.jobs import JobTable
from flightsw.compute.model_commands import ModelControl
from flightsw.compute.models import Models, Scrub
from flightsw.config import InterfaceConfig, NodeConfig, SunInterval
from flightsw.dictionary.accessors.jobs_names import Pause
from flightsw.errors import BoardError, StorageError
from flightsw.objects.store import ObjectStore, digest_of, object_name
from flightsw.wire.messages import CommandCode, JobSpec, JobState
from ground.results import product_objection
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

PROFILE = profiles.load("jetson-orin-nano")
STEP_S = 10
STEP_MPIX = STEP_S * PROFILE.mpix_per_s.value
JOB_S = cloud_mask.STEPS * STEP_S
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


# Running


def test_a_job_ends_after_its_modelled_time_with_its_result_and_what_it_cost():
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep(JOB_S - 0.1)
        assert payload.ended == []
        await asyncio.sleep(0.2)
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS)
        assert payload.ended[0].energy_j == pytest.approx(PROFILE.compute_w.value * JOB_S)
        assert [step for step, _ in payload.states_kept] == [3, 6]

    flown(scene)


def test_the_most_urgent_job_runs_first_and_a_running_one_is_not_interrupted():
    async def scene(payload):
        payload.store.put(tile(1))
        payload.submit(spec(job_id=1, priority=4))
        await asyncio.sleep(STEP_S)
        payload.submit(spec(job_id=2, priority=6))
        payload.submit(spec(job_id=3, priority=0, number=1))
        await asyncio.sleep(4 * JOB_S)
        assert [report.job_id for report in payload.ended] == [1, 3, 2]
        assert payload.ended[1].result == undisturbed_result(1)

    flown(scene)


def test_the_compute_load_is_drawn_while_a_step_runs_and_is_0_when_nothing_runs():
    async def scene(payload):
        assert payload.compute_w() == 0.0
        payload.submit(spec())
        await asyncio.sleep(STEP_S / 2)
        assert payload.compute_w() == PROFILE.compute_w.value
        payload.refusal = "mode SAFE"
        await asyncio.sleep(STEP_S)
        assert payload.compute_w() == 0.0
        payload.refusal = None
        payload.executor.wake()
        await asyncio.sleep(JOB_S)
        assert len(payload.ended) == 1
        assert payload.compute_w() == 0.0

    flown(scene)


# Pauses


def test_a_paused_job_keeps_a_checkpoint_and_goes_on_from_it():
    async def scene(payload):
        job = payload.submit(spec(checkpoint_steps=100))
        await asyncio.sleep(4.5 * STEP_S)
        payload.refusal = "mode LOW_POWER"
        await asyncio.sleep(STEP_S)
        assert (job.state, job.saved_step) == (JobState.PAUSED, 5)
        await asyncio.sleep(1000)
        assert job.step == 5
        payload.refusal = None
        payload.executor.wake()
        await asyncio.sleep(JOB_S)
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS)
        assert payload.ended[0].paused_count == 1

    flown(scene)


def test_a_job_without_energy_waits_until_the_battery_has_it():
    async def scene(payload):
        job = payload.submit(spec())
        await asyncio.sleep(1)
        assert job.state is JobState.PAUSED
        assert [fields["reason"][:6] for kind, fields in payload.log if kind == "job.paused"] == ["energy"]
        while not payload.ended:
            await asyncio.sleep(60)
            payload.executor.wake()
        assert payload.board.sensors().charge_j > 0.34 * payload.board.sensors().battery_j
        assert_undisturbed(payload)

    flown(scene, charge_share=0.3)


def test_weights_struck_before_a_pause_leave_no_checkpoint():
    async def scene(payload):
        job = payload.submit(spec(checkpoint_steps=100))
        await asyncio.sleep(1.5 * STEP_S)
        payload.strike()
        payload.refusal = "mode LOW_POWER"
        await asyncio.sleep(STEP_S)
        assert (job.state, job.saved_step, job.step) == (JobState.PAUSED, 0, 0)
        payload.refusal = None
        payload.executor.wake()
        await asyncio.sleep(2 * JOB_S)
        assert_undisturbed(payload)

    flown(scene)


# Resets


@pytest.mark.parametrize("steps_before", [0, 1, 2, 3, 4, 7])
def test_a_reset_goes_on_from_the_last_checkpoint_to_an_identical_result(steps_before):
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep((steps_before + 0.5) * STEP_S)
        await payload.cut()
        payload.board.power_on(payload.board.reset_cause())
        saved_step = steps_before // 3 * 3
        payload.boot()
        assert payload.jobs.jobs[1].step == saved_step
        await asyncio.sleep((cloud_mask.STEPS - saved_step) * STEP_S + 1)
        assert_undisturbed(payload)
        assert payload.ended[0].resumed_count == (saved_step > 0)

    flown(scene)


def test_the_report_of_an_ended_job_survives_a_reset_and_the_job_does_not_run_again():
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep(JOB_S + 1)
        await payload.cut()
        payload.boot()
        await asyncio.sleep(2 * JOB_S)
        assert len(payload.ended) == 1
        assert payload.jobs.jobs[1].report == payload.ended[0]

    flown(scene)


def test_the_checkpoint_of_the_largest_tile_survives_a_reset():
    side_px = cloud_mask.TILE_SIDE_PX_MAX
    state = cloud_mask.begin(np.zeros((side_px, side_px, cloud_mask.BANDS), np.uint16)).to_bytes()
    disk = SimulatedDisk(1 << 24, random.Random(1))
    table = JobTable(disk, 8, 0)
    table.submit(spec(), 0)
    job = table.jobs[1]
    job.step, job.working = 3, state
    table.checkpoint(job, 0)
    disk.power_cut()
    again = JobTable(disk, 8, 0).jobs[1]
    assert (again.step, again.working) == (3, state)


# Struck weights


def test_the_strike_of_these_tests_changes_the_answer():
    image, dn = ModelImage(MODEL), cloud_mask.decode_tile(tile())
    image.flip_weight_bit(STRIKING_BIT)
    assert cloud_mask.advance(cloud_mask.begin(dn), dn, image, CACHE).to_bytes() != undisturbed_states()[1]


@pytest.mark.parametrize("struck_after_steps", [0, 1, 2, 3, 5, 6, 7])
def test_weights_struck_in_mid_job_are_mended_before_anything_is_kept(struck_after_steps):
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep((struck_after_steps + 0.5) * STEP_S)
        payload.strike()
        await asyncio.sleep(2 * JOB_S)
        assert payload.upsets == [Scrub.REPAIRED]
        assert_undisturbed(payload)
        assert payload.ended[0].steps_run_count > cloud_mask.STEPS

    flown(scene)


def test_a_scrub_that_mends_the_weights_does_not_make_what_they_computed_before_sound():
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep(0.5 * STEP_S)
        payload.strike()
        await asyncio.sleep(STEP_S)  # the first step ended on struck weights
        assert payload.models.scrub(MODEL_DIGEST) is Scrub.REPAIRED
        await asyncio.sleep(2 * JOB_S)
        assert payload.upsets == []  # the scrub that found it has reported it
        assert_undisturbed(payload)

    flown(scene)


def test_a_model_struck_so_that_it_does_not_run_is_mended():
    async def scene(payload):
        step = payload.runner.step

        async def fails_once(*arguments):
            payload.runner.step = step
            await asyncio.sleep(STEP_S)
            payload.strike()
            raise BoardError("the image in memory was changed and no longer runs")

        payload.runner.step = fails_once
        payload.submit(spec())
        await asyncio.sleep(2 * JOB_S)
        assert payload.upsets == [Scrub.REPAIRED]
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS + 1)

    flown(scene)


def test_a_board_that_is_struck_again_and_again_gives_the_job_up():
    async def scene(payload):
        payload.submit(spec(checkpoint_steps=1))
        await asyncio.sleep(STEP_S / 2)
        for _ in range(STRIKES_MAX + 1):
            assert payload.ended == []
            payload.strike()
            await asyncio.sleep(STEP_S)
        (report,) = payload.ended
        assert report.state is JobState.FAILED
        assert report.detail == "struck 9 times since the last checkpoint"
        assert payload.states_kept == []

    flown(scene)


# Measures against strikes, each with its switch


UNSEEN_BIT = 12
"""A bit of the first weight's fraction: the weight stays in range."""


def test_the_guard_mends_struck_weights_in_place_and_only_that_step_is_lost():
    async def scene(payload):
        payload.parameters["MODELS.range_guard"] = True
        payload.submit(spec(checkpoint_steps=100))
        await asyncio.sleep(4.5 * STEP_S)
        payload.strike()
        await asyncio.sleep(JOB_S)
        assert payload.upsets == [Scrub.MENDED]
        assert payload.models.loads_count(MODEL_DIGEST) == 1
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS + 1)

    flown(scene)


def test_the_guard_looks_before_the_first_step_too():
    async def scene(payload):
        payload.parameters["MODELS.range_guard"] = True
        payload.models.ensure(MODEL_DIGEST)
        payload.strike()
        payload.submit(spec())
        await asyncio.sleep(JOB_S + 1)
        assert payload.upsets == [Scrub.MENDED]
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS)

    flown(scene)


def test_a_board_that_is_struck_again_and_again_gives_the_job_up_with_the_guard_too():
    async def scene(payload):
        payload.parameters["MODELS.range_guard"] = True
        payload.submit(spec(checkpoint_steps=1))
        await asyncio.sleep(STEP_S / 2)
        for _ in range(STRIKES_MAX + 1):
            assert payload.ended == []
            payload.strike()
            await asyncio.sleep(STEP_S)
        assert payload.ended[0].state is JobState.FAILED
        assert payload.states_kept == []

    flown(scene)


@pytest.mark.parametrize("is_on", [True, False])
def test_a_flip_in_range_is_found_at_a_checkpoint_when_the_digest_is_asked_there(is_on):
    async def scene(payload):
        payload.parameters |= {"MODELS.range_guard": True, "MODELS.scrub_on_checkpoint": is_on}
        payload.submit(spec())
        await asyncio.sleep(0.5 * STEP_S)
        payload.strike(UNSEEN_BIT)
        await asyncio.sleep(2 * JOB_S)
        assert payload.upsets == [Scrub.REPAIRED] * is_on
        assert (payload.states_kept[0][1] == undisturbed_states()[3]) is is_on

    flown(scene)


def errs(payload, method, changed, times=1):
    """Let a runner's method err so many times."""
    kept = getattr(payload.runner, method)
    left = [times]

    def wrong(answer):
        if not left[0]:
            return answer
        left[0] -= 1
        return changed(answer)

    async def steps(*arguments):
        return wrong(await kept(*arguments))

    setattr(payload.runner, method, steps if method == "step" else lambda *arguments: wrong(kept(*arguments)))


def one_bit_off(state):
    return state[:-1] + bytes((state[-1] ^ 1,))


@pytest.mark.parametrize("is_on", [True, False])
def test_a_step_computed_twice_is_kept_only_when_both_agree(is_on):
    async def scene(payload):
        payload.parameters["MODELS.duplicate_steps"] = is_on
        errs(payload, "step", one_bit_off)
        payload.submit(spec())
        await asyncio.sleep(3 * JOB_S)
        assert payload.executor.disagreed_count == is_on
        if is_on:
            assert_undisturbed(payload, steps_run_count=2 * (cloud_mask.STEPS + 1))
        else:
            assert payload.states_kept[0][1] != undisturbed_states()[3]

    flown(scene)


@pytest.mark.parametrize("is_on", [True, False])
def test_a_result_formed_wrongly_once_is_outvoted(is_on):
    async def scene(payload):
        payload.parameters["MODELS.vote_results"] = is_on
        errs(payload, "finish", lambda answer: (one_bit_off(answer[0]), answer[1], 2.0))
        payload.submit(spec())
        await asyncio.sleep(2 * JOB_S)
        assert payload.executor.outvoted_count == is_on
        (report,) = payload.ended
        assert (report.result == undisturbed_result()) is is_on
        assert bool(report.product) is is_on

    flown(scene)


def test_a_result_that_comes_out_three_ways_fails_the_job():
    async def scene(payload):
        answers = iter((b"1", b"2", b"3"))
        payload.runner.finish = lambda *_: (next(answers), b"", 0.0)
        payload.submit(spec())
        await asyncio.sleep(2 * JOB_S)
        (report,) = payload.ended
        assert report.state is JobState.FAILED
        assert "three times" in report.detail

    flown(scene)


# Products with checksums


MATRICES = [
    np.random.Generator(np.random.PCG64(1)).standard_normal(size).astype("<f4") for size in ((1100, 40), (40, 9))
]
LEFT, RIGHT = (matrix_file.encode_matrix(one) for one in MATRICES)
PRODUCT = MATRICES[0] @ MATRICES[1]
PRODUCT_STEPS = matrix_product.steps_count(len(PRODUCT))


class StruckProduct:
    """Multiplies, and puts a wrong number where it is struck, as many times as it is told."""

    def __init__(self, places=((3, 4),), times=1):
        self.places = places
        self.left_times = times

    def __call__(self, left, right):
        result = left @ right
        if self.left_times:
            self.left_times -= 1
            for place in self.places:
                result[place] = 1e6
        return result


def product_spec(**changes):
    model, data = digest_of(LEFT), digest_of(RIGHT)
    asked = {"kind": "matrix_product", "model": model, "model_bytes": len(LEFT), "data": data, "data_bytes": len(RIGHT)}
    asked |= {"steps_count": PRODUCT_STEPS, "product_measure_max": 1e9}
    return msgspec.structs.replace(spec(checkpoint_steps=1), **asked | changes)


async def computed_product(payload):
    """The report of a job that multiplies, and the product that it brings back."""
    for data in (LEFT, RIGHT):
        payload.store.put(data)
    payload.submit(product_spec())
    await asyncio.sleep(2 * STRIKES_MAX * STEP_S)
    (report,) = payload.ended
    return report, matrix_file.decode_matrix(payload.store.get(report.result)) if report.result else None


def test_a_job_multiplies_its_objects_and_has_no_further_product():
    async def scene(payload):
        report, product = await computed_product(payload)
        assert (report.state, report.detail, report.steps_run_count) == (JobState.COMPLETED, "", PRODUCT_STEPS)
        assert np.allclose(product, PRODUCT, rtol=1e-5, atol=1e-5)
        assert report.measure == pytest.approx(np.abs(PRODUCT).max(), rel=1e-5)
        assert (report.product, report.product_bytes) == (b"", 0)
        assert [step for step, _ in payload.states_kept] == [1, 2]
        assert payload.events == []

    flown(scene)


@pytest.mark.parametrize("is_on", [True, False])
def test_a_product_struck_while_it_is_computed_is_put_right_when_its_sums_are_checked(is_on):
    async def scene(payload):
        payload.parameters["MODELS.abft"] = is_on
        report, product = await computed_product(payload)
        assert report.state is JobState.COMPLETED
        assert np.allclose(product, PRODUCT, rtol=1e-5, atol=1e-5) == is_on
        assert payload.executor.checks.corrected_count == is_on
        assert payload.events == ([("MODELS.PRODUCT_STRUCK", 1, 0, 1, 0, 0)] if is_on else [])
        objection = product_objection(LEFT, RIGHT, payload.store.get(report.result), report.result)
        assert objection == (None if is_on else "product does not hold: row 3, 1 of 1100 rows are off")

    flown(scene, product=StruckProduct())


def test_a_product_with_two_wrong_elements_is_computed_again():
    async def scene(payload):
        report, product = await computed_product(payload)
        assert np.allclose(product, PRODUCT, rtol=1e-5, atol=1e-5)
        assert report.steps_run_count == PRODUCT_STEPS
        assert payload.events == [("MODELS.PRODUCT_STRUCK", 1, 0, 0, 1, 0)]
        channels = ModelControl(payload.models, None, payload.executor).channels()
        found = {name: channels[f"products_{name}"] for name in ("corrected", "repeated", "refused")}
        assert found == {"corrected": 0, "repeated": 1, "refused": 0}

    flown(scene, product=StruckProduct(((3, 4), (5, 6))))


def test_a_block_that_does_not_hold_twice_runs_again_as_with_struck_weights():
    async def scene(payload):
        report, product = await computed_product(payload)
        assert np.allclose(product, PRODUCT, rtol=1e-5, atol=1e-5)
        assert report.steps_run_count == PRODUCT_STEPS + 1
        assert payload.events == [("MODELS.PRODUCT_STRUCK", 1, 0, 0, 1, 1)]
        assert payload.executor.checks.refused_count == 1

    flown(scene, product=StruckProduct(((3, 4), (5, 6)), times=2))


def test_a_board_whose_products_never_hold_gives_the_job_up():
    async def scene(payload):
        report, _ = await computed_product(payload)
        assert report.state is JobState.FAILED
        assert report.detail.startswith("struck 9 times since the last checkpoint: a product of ")

    flown(scene, product=StruckProduct(((3, 4), (5, 6)), times=-1))


def test_a_struck_matrix_is_mended_and_its_job_goes_back():
    async def scene(payload):
        for data in (LEFT, RIGHT):
            payload.store.put(data)
        payload.submit(product_spec())
        await asyncio.sleep(STEP_S / 2)
        payload.strike(bit_index=22)  # the highest bit of a fraction: the number stays in the range of its row
        await asyncio.sleep(2 * STRIKES_MAX * STEP_S)
        (report,) = payload.ended
        assert np.allclose(matrix_file.decode_matrix(payload.store.get(report.result)), PRODUCT, rtol=1e-5, atol=1e-5)
        assert payload.upsets == [Scrub.REPAIRED]

    flown(scene)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps_count": PRODUCT_STEPS - 1}, "input: steps_count: 1024 of 1100 rows"),
        ({"steps_count": PRODUCT_STEPS + 1}, "input: steps_count: a step after the last; expected 3"),
        ({"kind": "cloud_mask"}, "is a matrix; expected another model for jobs of kind 'cloud_mask'"),
    ],
)
def test_a_product_that_was_asked_for_wrongly_fails_with_the_reason(changes, words):
    async def scene(payload):
        for data in (LEFT, RIGHT):
            payload.store.put(data)
        payload.submit(product_spec(**changes))
        await asyncio.sleep(10 * STEP_S)
        (report,) = payload.ended
        assert report.state is JobState.FAILED
        assert words in report.detail

    flown(scene)


# Objects


def test_a_model_that_is_rotten_in_the_store_too_is_asked_for_and_the_job_goes_on_when_it_comes():
    async def scene(payload):
        job = payload.submit(spec())
        await asyncio.sleep(4.5 * STEP_S)
        payload.strike()
        payload.disk.flip_bit(object_name(MODEL_DIGEST), 12_345)
        await asyncio.sleep(JOB_S)
        assert payload.upsets == [Scrub.STORE_ROTTEN]
        assert payload.wanted == [(MODEL_DIGEST, len(MODEL))]
        assert (job.state, job.step) == (JobState.WAITING_OBJECTS, 3)
        assert payload.compute_w() == 0.0
        payload.store.put(MODEL)
        payload.executor.wake()
        await asyncio.sleep(JOB_S)
        assert_undisturbed(payload)

    flown(scene)


def test_an_input_that_rotted_is_asked_for():
    async def scene(payload):
        payload.disk.flip_bit(object_name(digest_of(tile())), 99)
        job = payload.submit(spec())
        await asyncio.sleep(1)
        assert payload.wanted == [(digest_of(tile()), len(tile()))]
        assert job.state is JobState.WAITING_OBJECTS
        payload.store.put(tile())
        payload.executor.wake()
        await asyncio.sleep(JOB_S + 1)
        assert_undisturbed(payload)

    flown(scene)


def test_a_job_whose_input_has_not_come_waits_and_lets_others_run():
    async def scene(payload):
        waiting = payload.submit(spec(job_id=1, priority=0, number=1))
        payload.submit(spec(job_id=2, priority=7))
        await asyncio.sleep(JOB_S + 1)
        assert [report.job_id for report in payload.ended] == [2]
        assert waiting.state is JobState.WAITING_OBJECTS
        payload.store.put(tile(1))
        payload.executor.wake()
        await asyncio.sleep(JOB_S + 1)
        assert payload.ended[1].result == undisturbed_result(1)

    flown(scene)


# Ends without a result


@pytest.mark.parametrize("number", [0, 1])
def test_a_job_past_its_deadline_fails_whether_it_runs_or_waits(number):
    async def scene(payload):
        payload.submit(spec(deadline_s=35, number=number))
        await asyncio.sleep(34)
        payload.executor.wake()
        assert payload.ended == []
        await asyncio.sleep(STEP_S)
        payload.executor.wake()
        await asyncio.sleep(1)
        (report,) = payload.ended
        assert (report.state, report.detail) == (JobState.FAILED, "deadline passed on board")
        assert report.result == b""
        assert payload.compute_w() == 0.0

    flown(scene)


def test_a_cancelled_job_stops_and_stays_cancelled():
    async def scene(payload):
        job = payload.submit(spec())
        await asyncio.sleep(2.5 * STEP_S)
        payload.executor.cancel(job, "cancelled by command")
        await asyncio.sleep(2 * JOB_S)
        payload.executor.cancel(job, "again")
        (report,) = payload.ended
        assert (report.state, report.detail, report.steps_run_count) == (JobState.CANCELLED, "cancelled by command", 2)
        assert payload.compute_w() == 0.0

    flown(scene)


def test_a_newer_attempt_takes_the_place_of_a_running_one_which_reports_nothing():
    async def scene(payload):
        payload.submit(spec(attempt=1))
        await asyncio.sleep(2.5 * STEP_S)
        payload.submit(spec(attempt=2))
        await asyncio.sleep(2 * JOB_S)
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS)
        assert payload.ended[0].attempt == 2

    flown(scene)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "mine_bitcoin"}, "expected one of cloud_mask"),
        ({"model": digest_of(tile())}, "not an ONNX model"),
        ({"data": MODEL_DIGEST}, "tile"),
    ],
)
def test_a_job_that_cannot_run_fails_with_the_reason_and_the_next_one_runs(wrong, words):
    async def scene(payload):
        payload.submit(msgspec.structs.replace(spec(job_id=1, priority=0), **wrong))
        payload.submit(spec(job_id=2))
        await asyncio.sleep(2 * JOB_S)
        first, second = payload.ended
        assert (first.job_id, first.state) == (1, JobState.FAILED)
        assert words in first.detail
        assert second.state is JobState.COMPLETED

    flown(scene)


def test_a_full_disk_fails_the_job_and_the_ground_still_gets_the_report():
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep(STEP_S / 2)
        payload.disk.append("recording", bytes(payload.disk.free_bytes()))
        await asyncio.sleep(JOB_S)
        (report,) = payload.ended
        assert report.state is JobState.FAILED
        assert report.detail.startswith("storage: disk full")
        assert [fields["job"] for kind, fields in payload.log if kind == "job.unsaved"] == [1]

    flown(scene)


def test_an_attempt_whose_record_does_not_fit_is_not_taken():
    async def scene(payload):
        payload.disk.append("recording", bytes(payload.disk.free_bytes()))
        with pytest.raises(StorageError, match="disk full"):
            payload.jobs.submit(spec(), 0)
        payload.executor.wake()
        await asyncio.sleep(2 * JOB_S)
        assert payload.ended == []

    flown(scene)


# Held by command


def control_of(payload):
    return JobControl(payload.jobs, payload.executor, payload.models, payload.clock, payload.note)


def order(payload, command, job=1):
    """The outcome of JOBS.PAUSE or JOBS.RESUME."""
    return control_of(payload).handlers()[command](Pause(job))


def test_a_paused_job_stops_at_its_next_step_and_goes_on_when_it_is_resumed():
    async def scene(payload):
        job = payload.submit(spec())
        await asyncio.sleep(1.5 * STEP_S)
        assert order(payload, "PAUSE") == Outcome(CommandCode.OK, f"job 1 at step 1 of {cloud_mask.STEPS}")
        await asyncio.sleep(STEP_S)
        assert (job.state, job.step, job.saved_step) == (JobState.PAUSED, 2, 2)
        assert payload.compute_w() == 0.0
        assert control_of(payload).channels()["held"] == 1
        payload.executor.wake()
        await asyncio.sleep(10 * JOB_S)
        assert payload.ended == [], "nothing but RESUME lets it go"
        assert order(payload, "RESUME").code is CommandCode.OK
        await asyncio.sleep(JOB_S)
        payload.states_kept = [kept for kept in payload.states_kept if kept[0] != 2]
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS)

    flown(scene)


def test_another_job_runs_while_one_is_held():
    async def scene(payload):
        payload.store.put(tile(1))
        payload.submit(spec(job_id=1, priority=0))
        await asyncio.sleep(STEP_S / 2)
        payload.submit(spec(job_id=2, number=1))
        order(payload, "PAUSE")
        await asyncio.sleep(2 * JOB_S)
        assert [report.job_id for report in payload.ended] == [2]
        order(payload, "RESUME")
        await asyncio.sleep(JOB_S)
        assert [report.job_id for report in payload.ended] == [2, 1]

    flown(scene)


def test_a_held_job_stays_held_over_a_power_cut_and_so_does_one_that_waits():
    async def scene(payload):
        payload.submit(spec(job_id=1))
        missing = msgspec.structs.replace(spec(job_id=2), data=digest_of(b"not here"), data_bytes=8)
        payload.submit(missing)
        order(payload, "PAUSE", 1)
        order(payload, "PAUSE", 2)
        await payload.cut()
        payload.boot()
        payload.store.put(b"not here")
        payload.executor.wake()
        await asyncio.sleep(3 * JOB_S)
        assert payload.ended == []
        assert control_of(payload).channels()["held"] == 2
        order(payload, "RESUME", 1)
        await asyncio.sleep(JOB_S + 1)
        assert [report.job_id for report in payload.ended] == [1]

    flown(scene)


def test_the_deadline_of_a_held_job_counts_on():
    async def scene(payload):
        payload.submit(spec(deadline_s=JOB_S))
        order(payload, "PAUSE")
        await asyncio.sleep(2 * JOB_S)
        payload.executor.wake()
        await asyncio.sleep(1)
        (report,) = payload.ended
        assert (report.state, report.detail) == (JobState.FAILED, "deadline passed on board")

    flown(scene)


def test_a_job_that_is_not_here_or_has_ended_cannot_be_held():
    async def scene(payload):
        assert order(payload, "PAUSE", 9) == Outcome(CommandCode.EXECUTION_ERROR, "job 9 is not here")
        payload.submit(spec())
        await asyncio.sleep(JOB_S + 1)
        for command in ("PAUSE", "RESUME"):
            assert order(payload, command).detail == "job 1 has ended: COMPLETED"

    flown(scene)


def test_a_hold_that_the_disk_does_not_take_changes_nothing():
    async def scene(payload):
        job = payload.submit(spec())
        await asyncio.sleep(STEP_S / 2)
        save, payload.jobs.save = payload.jobs.save, full_disk
        assert order(payload, "PAUSE") == Outcome(CommandCode.EXECUTION_ERROR, "the disk is full")
        assert not job.is_held
        payload.jobs.save = save
        await asyncio.sleep(JOB_S)
        assert_undisturbed(payload)

    flown(scene)


def full_disk(job, now_ns):
    raise StorageError("the disk is full")
