"""Products with checksums: exact bounds, one error put right, more found, none imagined."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.compute.abft import checked_product
from flightsw.errors import BoardError
from flightsw.ports import ProductChecks


def factors(seed: int, shape: tuple[int, int, int] = (9, 17, 13), kind: type = np.float32) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.PCG64(seed))
    m, k, n = shape
    if kind is np.int8:
        return tuple(random.integers(-128, 128, size, dtype=np.int8) for size in ((m, k), (k, n)))
    return tuple((random.standard_normal(size) * 10 ** random.uniform(-3, 3)).astype(kind) for size in ((m, k), (k, n)))


def striking(*places: tuple[int, int, float], times: int = 1) -> Any:
    """A product that puts wrong numbers at some places, the first so many times."""
    left_times = [times]

    def product(left: Any, right: Any) -> Any:
        result = left @ right
        if left_times[0]:
            left_times[0] -= 1
            for row, column, value in places:
                result[row, column] = value
        return result

    return product


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*(st.integers(1, 200),) * 3))
def test_rounding_is_never_taken_for_an_error(seed: int, shape: tuple[int, int, int]) -> None:
    left, right = factors(seed, shape)
    counts = ProductChecks()
    assert np.array_equal(checked_product(left, right, counts), left @ right)
    assert counts == ProductChecks()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 8), st.integers(0, 12), st.sampled_from([1e9, -1e9, np.inf, np.nan]))
def test_one_wrong_element_is_put_right(seed: int, row: int, column: int, value: float) -> None:
    left, right = factors(seed)
    counts = ProductChecks()
    found = checked_product(left, right, counts, striking((row, column, value)))
    expected = left.astype(np.float64) @ right
    assert np.abs(found - expected).max() <= 1e-5 * (np.abs(left).astype(np.float64) @ np.abs(right)).max()
    assert counts == ProductChecks(corrected_count=1)


def test_integers_are_checked_to_the_last_bit() -> None:
    left, right = factors(1, kind=np.int8)
    expected = left.astype(np.int32) @ right.astype(np.int32)
    counts = ProductChecks()
    found = checked_product(left, right, counts, striking((3, 4, int(expected[3, 4]) ^ 1)))
    assert np.array_equal(found, expected)
    assert counts == ProductChecks(corrected_count=1)


def test_two_wrong_elements_make_the_product_be_computed_again() -> None:
    left, right = factors(2)
    counts = ProductChecks()
    found = checked_product(left, right, counts, striking((1, 2, 1e9), (5, 7, -1e9)))
    assert np.array_equal(found, left @ right)
    assert counts == ProductChecks(repeated_count=1)


def test_a_product_that_stays_wrong_is_refused() -> None:
    left, right = factors(3)
    counts = ProductChecks()
    with pytest.raises(BoardError, match="does not hold"):
        checked_product(left, right, counts, striking((1, 2, 1e9), (5, 7, -1e9), times=2))
    assert counts == ProductChecks(repeated_count=1, refused_count=1)


def test_a_factor_that_is_not_finite_is_refused() -> None:
    left, right = factors(4)
    left[2, 3] = np.inf
    with pytest.raises(BoardError, match="not finite"):
        checked_product(left, right)
