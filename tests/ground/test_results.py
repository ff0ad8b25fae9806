"""What the ground makes of results: masks by their shape, products by random sums, without computing them."""

import numpy as np
import pytest

from flightsw.compute.matrix_file import encode_matrix
from flightsw.errors import StorageError
from flightsw.objects.digest import digest_of
from flightsw.wire.messages import JobReport, JobState
from ground.ledger import JobRequest
from ground.results import ResultJudge, product_objection


def factors(kind, seed=1, shape=(40, 300, 25)):
    random = np.random.Generator(np.random.PCG64(seed))
    m, k, n = shape
    if kind == "i1":
        return tuple(random.integers(-128, 128, size, dtype=np.int8) for size in ((m, k), (k, n)))
    return tuple((random.standard_normal(size) * 10 ** random.uniform(-3, 3)).astype(kind) for size in ((m, k), (k, n)))


def product_of(left, right):
    return left.astype(np.int32) @ right.astype(np.int32) if left.dtype == np.int8 else left @ right


def objection(left, right, product):
    return product_objection(encode_matrix(left), encode_matrix(right), encode_matrix(product), b"seed")


@pytest.mark.parametrize("kind", ["<f4", "i1"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 300, 25), (3, 5000, 2), (200, 1, 4000)])
@pytest.mark.parametrize("seed", range(5))
def test_a_true_product_is_never_refused(kind, shape, seed):
    left, right = factors(kind, seed, shape)
    assert objection(left, right, product_of(left, right)) is None


def test_a_product_summed_in_another_order_is_not_refused():
    left, right = factors("<f4")
    backwards = np.ascontiguousarray(left[:, ::-1]) @ np.ascontiguousarray(right[::-1])
    assert objection(left, right, backwards) is None


@pytest.mark.parametrize("place", [(0, 0), (39, 24), (17, 3)])
def test_one_wrong_integer_is_always_found(place):
    left, right = factors("i1")
    for bit in range(31):
        product = product_of(left, right)
        product[place] ^= 1 << bit
        assert objection(left, right, product) == f"product does not hold: row {place[0]}, 1 of 40 rows are off"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e9, -1e-3, 0.0])
def test_one_wrong_float_is_found(value):
    left, right = factors("<f4", shape=(40, 30, 25))
    product = product_of(left, right)
    product[5, 7] = value if not np.isfinite(value) else product[5, 7] + np.abs(product).max() * (1 + value)
    assert (objection(left, right, product) or "").startswith("product does not hold: row 5, 1 of 40")


def test_errors_that_cancel_in_a_plain_sum_are_found():
    for kind in ("i1", "<f4"):
        left, right = factors(kind, shape=(40, 30, 25))
        product = product_of(left, right)
        product[2, 3] += 1000
        product[2, 4] -= 1000
        assert (objection(left, right, product) or "").startswith("product does not hold: row 2")


def test_the_product_of_a_struck_factor_is_found():
    left, right = factors("<f4", shape=(40, 30, 25))
    struck = left.copy()
    struck[3, 3] *= 2
    assert (objection(left, right, product_of(struck, right)) or "").startswith("product does not hold: row 3, 1 of")


@pytest.mark.parametrize(
    ("product", "why"),
    [
        (np.zeros((25, 40), "<f4"), "product is float32 (25, 40), expected float32 (40, 25)"),
        (np.zeros((40, 25), "<i4"), "product is int32 (40, 25), expected float32 (40, 25)"),
    ],
)
def test_a_product_of_another_shape_or_type_is_refused(product, why):
    left, right = factors("<f4")
    assert objection(left, right, product) == why


def test_bytes_that_are_no_matrix_are_refused():
    left, right = factors("<f4")
    said = product_objection(encode_matrix(left), encode_matrix(right), b"no matrix", b"seed")
    assert said is not None
    assert said.startswith("matrix: ")


def request(kind, model, data):
    return JobRequest(kind, digest_of(model), len(model), digest_of(data), len(data), 1, 1.0, 4, 100, 1, 1.0)


REPORT = JobReport(11, 1, 1, JobState.COMPLETED, "", b"", b"", b"", 0, b"", 0, 0.0, 0, 0, 0, 0.0, "1")


def test_a_judge_goes_by_the_kind_of_the_job_and_takes_the_factors_from_the_store():
    left, right = (encode_matrix(one) for one in factors("<f4"))
    store = {digest_of(one): one for one in (left, right)}

    def fetch(digest):
        if digest not in store:
            raise StorageError("rotten")
        return store[digest]

    judge = ResultJudge(lambda report, result, product: f"mask of {len(result)} bytes", fetch)
    product = encode_matrix(product_of(*factors("<f4")))
    assert judge.kinds == ("cloud_mask", "matrix_product")
    assert judge.objection(request("cloud_mask", left, right), REPORT, b"mask", None) == "mask of 4 bytes"
    assert judge.objection(request("matrix_product", left, right), REPORT, product, None) is None
    wrong = encode_matrix(product_of(*factors("<f4")) + 1)
    assert "does not hold" in (judge.objection(request("matrix_product", left, right), REPORT, wrong, None) or "")
    said = judge.objection(request("matrix_product", left, b"gone"), REPORT, product, None)
    assert said == "its factors are not here: rotten"
    assert "cannot be judged" in (judge.objection(request("weather", left, right), REPORT, product, None) or "")
