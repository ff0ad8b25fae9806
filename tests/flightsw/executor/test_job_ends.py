"""Jobs whose objects are missing or rotten wait for them; every other way to fail is reported with its reason."""

import asyncio
from pathlib import Path

import msgspec
import pytest

import hil
from flightsw.compute import cloud_mask
from flightsw.compute.models import Scrub
from flightsw.errors import StorageError
from flightsw.objects.store import digest_of, object_name
from flightsw.wire.messages import JobState

STEP_S = 10
JOB_S = cloud_mask.STEPS * STEP_S
MODEL = (Path(hil.__file__).parent / "assets" / "cloud-mask.onnx").read_bytes()
MODEL_DIGEST = digest_of(MODEL)


# Objects


def test_a_model_that_is_rotten_in_the_store_too_is_asked_for_and_the_job_goes_on_when_it_comes(
    flown, spec, assert_undisturbed
):
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


def test_an_input_that_rotted_is_asked_for(flown, spec, tile, assert_undisturbed):
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


def test_a_job_whose_input_has_not_come_waits_and_lets_others_run(flown, spec, tile, undisturbed_result):
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
def test_a_job_past_its_deadline_fails_whether_it_runs_or_waits(flown, spec, number):
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


def test_a_cancelled_job_stops_and_stays_cancelled(flown, spec):
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


def test_a_newer_attempt_takes_the_place_of_a_running_one_which_reports_nothing(flown, spec, assert_undisturbed):
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
        ({"model": digest_of(b"no model")}, "not an ONNX model"),
        ({"data": MODEL_DIGEST}, "tile"),
    ],
)
def test_a_job_that_cannot_run_fails_with_the_reason_and_the_next_one_runs(flown, spec, wrong, words):
    async def scene(payload):
        payload.store.put(b"no model")
        payload.submit(msgspec.structs.replace(spec(job_id=1, priority=0), **wrong))
        payload.submit(spec(job_id=2))
        await asyncio.sleep(2 * JOB_S)
        first, second = payload.ended
        assert (first.job_id, first.state) == (1, JobState.FAILED)
        assert words in first.detail
        assert second.state is JobState.COMPLETED

    flown(scene)


def test_a_full_disk_fails_the_job_and_the_ground_still_gets_the_report(flown, spec):
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


def test_an_attempt_whose_record_does_not_fit_is_not_taken(flown, spec):
    async def scene(payload):
        payload.disk.append("recording", bytes(payload.disk.free_bytes()))
        with pytest.raises(StorageError, match="disk full"):
            payload.jobs.submit(spec(), 0)
        payload.executor.wake()
        await asyncio.sleep(2 * JOB_S)
        assert payload.ended == []

    flown(scene)
