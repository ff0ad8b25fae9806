"""Strikes on weights, steps and results: what is kept and sent is sound, or the job is given up."""

import asyncio
from pathlib import Path

import pytest

import hil
from flightsw.compute import cloud_mask
from flightsw.compute.executor import STRIKES_MAX
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.compute.models import Scrub
from flightsw.errors import BoardError
from flightsw.objects.store import digest_of
from flightsw.wire.messages import JobState

STEP_S = 10
JOB_S = cloud_mask.STEPS * STEP_S
MODEL = (Path(hil.__file__).parent / "assets" / "cloud-mask.onnx").read_bytes()
MODEL_DIGEST = digest_of(MODEL)
CACHE = InferenceCache()


# Struck weights


def test_the_strike_of_these_tests_changes_the_answer(tile, undisturbed_states, striking_bit):
    image, dn = ModelImage(MODEL), cloud_mask.decode_tile(tile())
    image.flip_weight_bit(striking_bit)
    assert cloud_mask.advance(cloud_mask.begin(dn), dn, image, CACHE).to_bytes() != undisturbed_states()[1]


@pytest.mark.parametrize("struck_after_steps", [0, 1, 2, 3, 5, 6, 7])
def test_weights_struck_in_mid_job_are_mended_before_anything_is_kept(
    flown, spec, assert_undisturbed, struck_after_steps
):
    async def scene(payload):
        payload.submit(spec())
        await asyncio.sleep((struck_after_steps + 0.5) * STEP_S)
        payload.strike()
        await asyncio.sleep(2 * JOB_S)
        assert payload.upsets == [Scrub.REPAIRED]
        assert_undisturbed(payload)
        assert payload.ended[0].steps_run_count > cloud_mask.STEPS

    flown(scene)


def test_a_scrub_that_mends_the_weights_does_not_make_what_they_computed_before_sound(flown, spec, assert_undisturbed):
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


def test_a_model_struck_so_that_it_does_not_run_is_mended(flown, spec, assert_undisturbed):
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


def test_a_board_that_is_struck_again_and_again_gives_the_job_up(flown, spec):
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


def test_the_guard_mends_struck_weights_in_place_and_only_that_step_is_lost(flown, spec, assert_undisturbed):
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


def test_the_guard_looks_before_the_first_step_too(flown, spec, assert_undisturbed):
    async def scene(payload):
        payload.parameters["MODELS.range_guard"] = True
        payload.models.ensure(MODEL_DIGEST)
        payload.strike()
        payload.submit(spec())
        await asyncio.sleep(JOB_S + 1)
        assert payload.upsets == [Scrub.MENDED]
        assert_undisturbed(payload, steps_run_count=cloud_mask.STEPS)

    flown(scene)


def test_a_board_that_is_struck_again_and_again_gives_the_job_up_with_the_guard_too(flown, spec):
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
def test_a_flip_in_range_is_found_at_a_checkpoint_when_the_digest_is_asked_there(
    flown, spec, undisturbed_states, is_on
):
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
def test_a_step_computed_twice_is_kept_only_when_both_agree(flown, spec, undisturbed_states, assert_undisturbed, is_on):
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
def test_a_result_formed_wrongly_once_is_outvoted(flown, spec, undisturbed_result, is_on):
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


def test_a_result_that_comes_out_three_ways_fails_the_job(flown, spec):
    async def scene(payload):
        answers = iter((b"1", b"2", b"3"))
        payload.runner.finish = lambda *_: (next(answers), b"", 0.0)
        payload.submit(spec())
        await asyncio.sleep(2 * JOB_S)
        (report,) = payload.ended
        assert report.state is JobState.FAILED
        assert "three times" in report.detail

    flown(scene)
