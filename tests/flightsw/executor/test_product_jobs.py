"""Matrix products with checksums: a struck one is put right, computed again or refused, and what came of it counted."""

import asyncio

import msgspec
import numpy as np
import pytest

from flightsw.compute import matrix_file, matrix_product
from flightsw.compute.executor import STRIKES_MAX
from flightsw.compute.model_commands import ModelControl
from flightsw.compute.models import Scrub
from flightsw.objects.store import digest_of
from flightsw.wire.messages import JobState
from ground.results import product_objection

STEP_S = 10


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


@pytest.fixture
def product_spec(spec):
    model, data = digest_of(LEFT), digest_of(RIGHT)
    asked = {"kind": "matrix_product", "model": model, "model_bytes": len(LEFT), "data": data, "data_bytes": len(RIGHT)}
    asked |= {"steps_count": PRODUCT_STEPS, "product_measure_max": 1e9}
    return lambda **changes: msgspec.structs.replace(spec(checkpoint_steps=1), **asked | changes)


@pytest.fixture
def computed_product(product_spec):
    """Gives the report of a job that multiplies, and the product that it brings back."""

    async def compute(payload):
        for data in (LEFT, RIGHT):
            payload.store.put(data)
        payload.submit(product_spec())
        await asyncio.sleep(2 * STRIKES_MAX * STEP_S)
        (report,) = payload.ended
        return report, matrix_file.decode_matrix(payload.store.get(report.result)) if report.result else None

    return compute


def test_a_job_multiplies_its_objects_and_has_no_further_product(computed_product, flown):
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
def test_a_product_struck_while_it_is_computed_is_put_right_when_its_sums_are_checked(computed_product, flown, is_on):
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


def test_a_product_with_two_wrong_elements_is_computed_again(computed_product, flown):
    async def scene(payload):
        report, product = await computed_product(payload)
        assert np.allclose(product, PRODUCT, rtol=1e-5, atol=1e-5)
        assert report.steps_run_count == PRODUCT_STEPS
        assert payload.events == [("MODELS.PRODUCT_STRUCK", 1, 0, 0, 1, 0)]
        channels = ModelControl(payload.models, None, payload.executor).channels()
        found = {name: channels[f"products_{name}"] for name in ("corrected", "repeated", "refused")}
        assert found == {"corrected": 0, "repeated": 1, "refused": 0}

    flown(scene, product=StruckProduct(((3, 4), (5, 6))))


def test_a_block_that_does_not_hold_twice_runs_again_as_with_struck_weights(computed_product, flown):
    async def scene(payload):
        report, product = await computed_product(payload)
        assert np.allclose(product, PRODUCT, rtol=1e-5, atol=1e-5)
        assert report.steps_run_count == PRODUCT_STEPS + 1
        assert payload.events == [("MODELS.PRODUCT_STRUCK", 1, 0, 0, 1, 1)]
        assert payload.executor.checks.refused_count == 1

    flown(scene, product=StruckProduct(((3, 4), (5, 6)), times=2))


def test_a_board_whose_products_never_hold_gives_the_job_up(computed_product, flown):
    async def scene(payload):
        report, _ = await computed_product(payload)
        assert report.state is JobState.FAILED
        assert report.detail.startswith("struck 9 times since the last checkpoint: a product of ")

    flown(scene, product=StruckProduct(((3, 4), (5, 6)), times=-1))


def test_a_struck_matrix_is_mended_and_its_job_goes_back(product_spec, flown):
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
def test_a_product_that_was_asked_for_wrongly_fails_with_the_reason(product_spec, flown, changes, words):
    async def scene(payload):
        for data in (LEFT, RIGHT):
            payload.store.put(data)
        payload.submit(product_spec(**changes))
        await asyncio.sleep(10 * STEP_S)
        (report,) = payload.ended
        assert report.state is JobState.FAILED
        assert words in report.detail

    flown(scene)
