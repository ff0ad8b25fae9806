"""Jobs of the executor in their order, with pauses, resets and holds by command: the results are undisturbed ones."""

import asyncio
import random  # noqa: TID251 - seeded, for the tile and for the power cuts

import msgspec
import numpy as np
import pytest

from boards import profiles
from flightsw.component import Outcome
from flightsw.compute import cloud_mask
from flightsw.compute.job_commands import JobControl
from flightsw.compute.jobs import JobTable
from flightsw.dictionary.accessors.jobs_names import Pause
from flightsw.errors import StorageError
from flightsw.objects.store import digest_of
from flightsw.wire.messages import CommandCode, JobState
from hil.sim.disk import SimulatedDisk

PROFILE = profiles.load("jetson-orin-nano")
STEP_S = 10
JOB_S = cloud_mask.STEPS * STEP_S


# Running


def test_a_job_ends_after_its_modelled_time_with_its_result_and_what_it_cost(flown, spec, assert_undisturbed):
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep(JOB_S - 0.1)
        assert payload.ended == []
        await asyncio.sleep(0.2)
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS)
        assert payload.ended[0].energy_j == pytest.approx(PROFILE.compute_w.value * JOB_S)
        assert [step for step, _ in payload.states_kept] == [3, 6]

    flown(scene)


def test_the_most_urgent_job_runs_first_and_a_running_one_is_not_interrupted(flown, spec, tile, undisturbed_result):
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


def test_the_compute_load_is_drawn_while_a_step_runs_and_is_0_when_nothing_runs(flown, spec):
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


def test_a_paused_job_keeps_a_checkpoint_and_goes_on_from_it(flown, spec, assert_undisturbed):
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


def test_a_job_without_energy_waits_until_the_battery_has_it(flown, spec, assert_undisturbed):
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


def test_weights_struck_before_a_pause_leave_no_checkpoint(flown, spec, assert_undisturbed):
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
def test_a_reset_goes_on_from_the_last_checkpoint_to_an_identical_result(flown, spec, assert_undisturbed, steps_before):
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


def test_the_report_of_an_ended_job_survives_a_reset_and_the_job_does_not_run_again(flown, spec):
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep(JOB_S + 1)
        await payload.cut()
        payload.boot()
        await asyncio.sleep(2 * JOB_S)
        assert len(payload.ended) == 1
        assert payload.jobs.jobs[1].report == payload.ended[0]

    flown(scene)


def test_the_checkpoint_of_the_largest_tile_survives_a_reset(spec):
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


# Held by command


def control_of(payload):
    return JobControl(payload.jobs, payload.executor, payload.models, payload.clock, payload.note)


def order(payload, command, job=1):
    """The outcome of JOBS.PAUSE or JOBS.RESUME."""
    return control_of(payload).handlers()[command](Pause(job))


def test_a_paused_job_stops_at_its_next_step_and_goes_on_when_it_is_resumed(flown, spec, assert_undisturbed):
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


def test_another_job_runs_while_one_is_held(flown, spec, tile):
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


def test_a_held_job_stays_held_over_a_power_cut_and_so_does_one_that_waits(flown, spec):
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


def test_the_deadline_of_a_held_job_counts_on(flown, spec):
    async def scene(payload):
        payload.submit(spec(deadline_s=JOB_S))
        order(payload, "PAUSE")
        await asyncio.sleep(2 * JOB_S)
        payload.executor.wake()
        await asyncio.sleep(1)
        (report,) = payload.ended
        assert (report.state, report.detail) == (JobState.FAILED, "deadline passed on board")

    flown(scene)


def test_a_job_that_is_not_here_or_has_ended_cannot_be_held(flown, spec):
    async def scene(payload):
        assert order(payload, "PAUSE", 9) == Outcome(CommandCode.EXECUTION_ERROR, "job 9 is not here")
        payload.submit(spec())
        await asyncio.sleep(JOB_S + 1)
        for command in ("PAUSE", "RESUME"):
            assert order(payload, command).detail == "job 1 has ended: COMPLETED"

    flown(scene)


def test_a_hold_that_the_disk_does_not_take_changes_nothing(flown, spec, assert_undisturbed):
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
