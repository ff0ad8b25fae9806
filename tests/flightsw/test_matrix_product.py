"""Jobs of kind `matrix_product`: blocks of rows, checkpoints, wrong inputs; and the matrix in memory."""

import numpy as np
import pytest

from flightsw.compute import kinds, matrix_product
from flightsw.compute.inference import InferenceCache
from flightsw.compute.matrix_file import decode_matrix, encode_matrix
from flightsw.compute.matrix_image import MatrixImage
from flightsw.compute.matrix_product import BLOCK_ROWS, ProductState
from flightsw.errors import BoardError, ConfigError, MessageError, StorageError
from flightsw.objects.digest import digest_of
from flightsw.ports import ProductChecks

NAME = matrix_product.NAME


def factors(seed=1, shape=(2 * BLOCK_ROWS + 3, 17, 5), kind="<f4"):
    random = np.random.Generator(np.random.PCG64(seed))
    m, k, n = shape
    if kind == "i1":
        return tuple(random.integers(-128, 128, size, dtype=np.int8) for size in ((m, k), (k, n)))
    return tuple(random.standard_normal(size).astype(kind) for size in ((m, k), (k, n)))


def a_step(image, state, data, checks=None, product=np.matmul):
    """One step of a job, computed here."""
    step = kinds.step(NAME, image, state, data, checks)
    try:
        asked = next(step)
        while True:
            asked = step.send(kinds.compute(asked, image, InferenceCache(), product))
    except StopIteration as done:
        return done.value


def multiplied(left, right, **options):
    image, data, state = MatrixImage(encode_matrix(left)), encode_matrix(right), b""
    for _ in range(matrix_product.steps_count(left.shape[0])):
        state = a_step(image, state, data, **options)
    return kinds.finish(NAME, state, data)


@pytest.mark.parametrize("checks", [None, ProductChecks()])
@pytest.mark.parametrize("kind", ["<f4", "i1"])
@pytest.mark.parametrize("rows", [1, BLOCK_ROWS, 2 * BLOCK_ROWS + 3])
def test_the_result_is_the_product_and_its_largest_magnitude(rows, kind, checks):
    left, right = factors(shape=(rows, 17, 5), kind=kind)
    result, product, measure = multiplied(left, right, checks=checks)
    if kind == "i1":
        expected = left.astype(np.int32) @ right.astype(np.int32)
        assert np.array_equal(decode_matrix(result), expected)
    else:
        expected = left.astype(np.float64) @ right
        assert np.allclose(decode_matrix(result), expected, rtol=1e-5, atol=1e-5)
    assert decode_matrix(result).dtype == ("<i4" if kind == "i1" else "<f4")
    assert product == b""
    assert measure == pytest.approx(np.abs(expected).max(), rel=1e-5)
    assert checks in (None, ProductChecks())


def test_a_job_that_goes_on_from_a_checkpoint_gives_the_same_bytes():
    left, right = factors()
    image, data = MatrixImage(encode_matrix(left)), encode_matrix(right)
    first = a_step(image, b"", data)
    kept = ProductState.from_bytes(first)
    assert (len(kept.rows), kept.rows_count) == (BLOCK_ROWS, len(left))
    again = MatrixImage(encode_matrix(left))
    state = a_step(again, a_step(again, first, data), data)
    assert kinds.finish(NAME, state, data) == multiplied(left, right)


def test_a_job_with_too_few_or_too_many_steps_is_told_the_right_number():
    left, right = factors()
    image, data = MatrixImage(encode_matrix(left)), encode_matrix(right)
    state = a_step(image, a_step(image, b"", data), data)
    with pytest.raises(MessageError, match=r"steps_count: 1024 of 1027 rows .* expected 3"):
        kinds.finish(NAME, state, data)
    state = a_step(image, state, data)
    with pytest.raises(MessageError, match="steps_count: a step after the last; expected 3"):
        a_step(image, state, data)


@pytest.mark.parametrize(
    ("right", "why"),
    [
        (np.zeros((16, 5), "<f4"), r"right matrix: float32 \(16, 5\); expected float32 with 17 rows"),
        (np.zeros((17, 5), "i1"), r"right matrix: int8 \(17, 5\); expected float32 with 17 rows"),
        (np.zeros((17, 2048), "<f4"), "product: 1027 x 2048; expected at most 4194304 bytes"),
        (np.full((17, 5), np.nan, "<f4"), "right matrix: holds numbers that are not finite"),
    ],
)
def test_a_right_matrix_that_does_not_fit_is_refused(right, why):
    left, _ = factors()
    with pytest.raises(MessageError, match=why):
        a_step(MatrixImage(encode_matrix(left)), b"", encode_matrix(right))


def test_sums_that_32_bits_may_not_hold_are_refused():
    left, right = np.zeros((1, 131_072), "i1"), np.zeros((131_072, 1), "i1")
    with pytest.raises(MessageError, match="131072 rows; expected at most 131071"):
        a_step(MatrixImage(encode_matrix(left)), b"", encode_matrix(right))


def test_a_checkpoint_of_another_product_is_refused():
    left, right = factors()
    image = MatrixImage(encode_matrix(left))
    state = a_step(image, b"", encode_matrix(right))
    with pytest.raises(StorageError, match="of a product 1027 x 5 float32; expected 1027 x 4 float32"):
        a_step(image, state, encode_matrix(right[:, :4]))
    with pytest.raises(StorageError, match="expected 1026 x 5 float32"):
        a_step(MatrixImage(encode_matrix(left[:-1])), state, encode_matrix(right))


@pytest.mark.parametrize("cut", [0, 3, 21, -1])
def test_a_torn_checkpoint_is_refused(cut):
    left, right = factors()
    state = a_step(MatrixImage(encode_matrix(left)), b"", encode_matrix(right))
    with pytest.raises(StorageError, match=r"^checkpoint: "):
        ProductState.from_bytes(state[:cut])


def test_kinds_and_models_belong_together():
    left, right = factors()
    matrix = kinds.load(encode_matrix(left), "model 1")
    assert isinstance(matrix, MatrixImage)
    with pytest.raises(ConfigError, match="model 1 is a matrix; expected another model for jobs of kind 'cloud_mask'"):
        kinds.step("cloud_mask", matrix, b"", b"", None)
    with pytest.raises(ConfigError, match="job kind 'weather': expected one of cloud_mask, matrix_product"):
        kinds.step("weather", matrix, b"", encode_matrix(right), None)
    with pytest.raises(ConfigError, match="model 2: holds no float weights"):
        kinds.load(b"", "model 2")


# Checksums


def struck(row, column, value, times):
    """A product that is wrong at one place, the first so many times."""
    left_times = [times]

    def product(left, right):
        result = left @ right
        if left_times[0]:
            left_times[0] -= 1
            result[row, column] = value
        return result

    return product


def test_a_product_struck_while_it_is_computed_is_put_right_with_checks_and_wrong_without():
    left, right = factors()
    checks = ProductChecks()
    result, _, _ = multiplied(left, right, checks=checks, product=struck(2, 3, 1e9, times=1))
    assert np.allclose(decode_matrix(result), left @ right, rtol=1e-5, atol=1e-5)
    assert checks == ProductChecks(corrected_count=1)
    result, _, measure = multiplied(left, right, product=struck(2, 3, 1e9, times=1))
    assert decode_matrix(result)[2, 3] == measure == 1e9


def test_a_product_that_does_not_hold_twice_is_an_error_of_the_board():
    left, right = factors()
    checks = ProductChecks()

    def broken(one, other):
        return np.zeros((len(one), other.shape[1]), one.dtype)

    with pytest.raises(BoardError, match="does not hold, computed twice"):
        multiplied(left, right, checks=checks, product=broken)
    assert checks == ProductChecks(repeated_count=1, refused_count=1)


def test_a_result_that_is_not_finite_has_a_measure_that_is():
    state = ProductState(np.array([[1.0, np.nan]], "<f4"), 1)
    assert matrix_product.finish(state)[2] == np.finfo(np.float64).max


# The matrix in memory


@pytest.mark.parametrize("kind", ["<f4", "i1"])
def test_any_flipped_bit_is_found_by_the_digest_and_flipped_back(kind):
    left, _ = factors(shape=(4, 6, 1), kind=kind)
    data = encode_matrix(left)
    image = MatrixImage(data)
    for bit in range(image.weight_bits_count):
        image.flip_weight_bit(bit)
        assert image.digest() != digest_of(data)
        image.flip_weight_bit(bit)
    assert image.digest() == digest_of(data)
    with pytest.raises(ConfigError, match=f"expected 0 to {image.weight_bits_count - 1}"):
        image.flip_weight_bit(image.weight_bits_count)


def test_a_number_out_of_the_range_of_its_row_is_brought_back():
    left = np.array([[1.0, 2.0, 1.5], [40.0, 50.0, 60.0]], "<f4")
    data = encode_matrix(left)
    image = MatrixImage(data)
    assert image.guard_weights() == 0
    image.flip_weight_bit(30)  # the highest exponent bit of the first number
    assert not np.isfinite(image.matrix[0, 0]) or image.matrix[0, 0] > 2.0
    assert image.guard_weights() == 1
    assert image.digest() == digest_of(data)

    whole = np.array([[1, 2, 3], [-5, 90, 100]], "i1")
    image = MatrixImage(encode_matrix(whole))
    image.flip_weight_bit(7)  # the sign of the first: 1 becomes -127
    assert image.guard_weights() == 1
    assert image.matrix[0, 0] == 1
    image.flip_weight_bit(4 * 8 + 7)  # 90 becomes -38
    assert image.guard_weights() == 1
    assert image.matrix[1, 1] == -5, "the bound that it crossed; the digest finds that it is not the true one"
    assert image.guard_weights() == 0


def test_a_strike_changes_the_product():
    left, right = factors()
    image, data = MatrixImage(encode_matrix(left)), encode_matrix(right)
    before = a_step(image, b"", data)
    image.flip_weight_bit(30)
    assert a_step(image, b"", data) != before


def test_memory_that_can_be_changed_is_used_where_it_lies():
    left, _ = factors(shape=(4, 6, 1))
    memory = bytearray(encode_matrix(left))
    image = MatrixImage(memoryview(memory))
    memory[-1] ^= 0x40
    assert image.matrix[-1, -1] != left[-1, -1]
    assert image.digest() == digest_of(bytes(memory))
    assert image.guard_weights() == 1


@pytest.mark.parametrize(
    ("matrix", "why"),
    [
        (np.zeros((2, 2), "<i4"), "numbers are int32; expected float32 or int8"),
        (np.array([[np.inf]], "<f4"), "not finite"),
    ],
)
def test_a_model_that_cannot_be_multiplied_is_refused(matrix, why):
    with pytest.raises(ConfigError, match=f"model 3: .*{why}"):
        MatrixImage(encode_matrix(matrix), "model 3")
