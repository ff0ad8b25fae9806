"""Matrix products with checksums: one wrong element is found and put right (Huang and Abraham, 1984).

For C = A B (A of m x k, B of k x n) the sums of the rows of C are A (B 1), and those of its columns (1 A) B: two
products of a matrix and a vector. A wrong element shows in one row and one column, where it is computed again. More
wrong elements show too; then the product is computed once more as a whole, and when it does not hold either, the board
is at fault. Factors that were struck before the product are not found: their checksums are struck with them.

How far sums may differ without an error, for float32: whatever the order of summation, fused or not, a computed sum of
k products differs from the true one by at most g_k times the sum of their magnitudes, with g_k = k u / (1 - k u) and
u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.1). With D = |A| (|B| 1), a row of the
product thus has an error of at most g_k D, its sum adds g_n D, the checksum's two sums g_n D and g_k D. As
g_a + g_b + g_a g_b <= g_(a+b), all together stay within g_(2k+2n) D; D itself is computed, and may be short by a share
of g_(k+n). Columns likewise, with m for n. Each operation may also underflow, by half of 2^-149. An error below the
bound is not found; in the worst case rounding may have done as much. Integers of 8 bits are summed exactly, in 32 bits
the product and in 64 its checksums: their bound is 0.

A pointwise convolution is such a product: weights ``(outputs, inputs)`` by pixels ``(inputs, pixels)``.
"""

from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import BoardError
from flightsw.ports import ProductChecks

Matrix: TypeAlias = NDArray[Any]
Product: TypeAlias = Callable[[Matrix, Matrix], Matrix]

INNER_MAX: Final = 131_071
"""Terms of an element: as many products of 8-bit integers as 32 bits hold for certain, 2^31 / 2^14 - 1."""

_ROUNDING = 2.0**-24
_UNDERFLOW = 2.0**-150


def checked_product(
    left: Matrix, right: Matrix, found: ProductChecks | None = None, product: Product = np.matmul
) -> Matrix:
    """Return the product of two matrices whose sums hold.

    Args:
        left: ``(m, k)`` float32 or int8.
        right: ``(k, n)`` of the same type.
        found: takes what was found.
        product: what multiplies; for int8 it is given int32.

    Returns:
        ``(m, n)`` float32, or int32 for int8.

    Raises:
        BoardError: the product does not hold, computed twice, or a factor is not finite.
    """
    checking = checked(left, right, ProductChecks() if found is None else found)
    if left.dtype == np.int8:
        left, right = left.astype(np.int32), right.astype(np.int32)
    next(checking)
    try:
        while True:
            checking.send(product(left, right))
    except StopIteration as done:
        result: Matrix = done.value
        return result


def checked(left: Matrix, right: Matrix, found: ProductChecks) -> Generator[None, Matrix, Matrix]:
    """Check a product that somebody else computes: it is sent in as often as this asks, and returned when it holds.

    Args:
        left, right: as of `checked_product`.
        found: takes what was found.

    Raises:
        BoardError: the product does not hold, computed twice, or a factor is not finite.
    """
    assert (left.ndim, right.ndim, left.shape[-1]) == (2, 2, right.shape[0]), "(m, k) by (k, n)"
    assert {left.dtype, right.dtype} in ({np.dtype(np.float32)}, {np.dtype(np.int8)}), "float32 or int8"
    assert left.shape[1] <= INNER_MAX, "longer sums are not exact in 32 bits"
    is_exact = left.dtype == np.int8
    if is_exact:
        left, right = left.astype(np.int32), right.astype(np.int32)
    checksums = _Checksums(left, right, is_exact)
    result = yield
    rows, columns = checksums.wrong(result)
    if len(rows) == len(columns) == 1:
        row, column = int(rows[0]), int(columns[0])
        result = result.copy()
        result[row, column] = checksums.element(row, column)
        found.corrected_count += 1
        rows, columns = checksums.wrong(result)
    if len(rows) or len(columns):
        found.repeated_count += 1
        result = yield
        rows, columns = checksums.wrong(result)
    if len(rows) or len(columns):
        found.refused_count += 1
        raise BoardError(f"a product of {left.shape} by {right.shape} does not hold, computed twice")
    return result


class _Checksums:
    """What the sums of a product must be, and how far they may differ."""

    def __init__(self, left: Matrix, right: Matrix, is_exact: bool) -> None:
        (m, k), n = left.shape, right.shape[1]
        self._left, self._right = left, right
        self._kind: type = np.int64 if is_exact else np.float32
        self._row_ones, self._column_ones = np.ones(n, self._kind), np.ones(m, self._kind)
        with np.errstate(all="ignore"):  # a struck factor; what comes of it is looked at below
            self._rows = left @ (right @ self._row_ones)
            self._columns = (self._column_ones @ left) @ right
        if not (np.isfinite(self._rows).all() and np.isfinite(self._columns).all()):
            raise BoardError("a product's factor is not finite: its sums cannot be checked")
        self._row_bound: Matrix = np.zeros(m)
        self._column_bound: Matrix = np.zeros(n)
        if is_exact:
            return
        left_size, right_size = np.abs(left), np.abs(right)
        row_size = left_size @ (right_size @ self._row_ones)
        column_size = (self._column_ones @ left_size) @ right_size
        self._row_bound = _bound(k, n) * row_size.astype(np.float64) + 4 * n * k * _UNDERFLOW
        self._column_bound = _bound(k, m) * column_size.astype(np.float64) + 4 * m * k * _UNDERFLOW

    def wrong(self, result: Matrix) -> tuple[Matrix, Matrix]:
        """Return the rows and the columns whose sums are off; what is not a number is off."""
        with np.errstate(all="ignore"):
            row_error = np.abs((result @ self._row_ones).astype(np.float64) - self._rows.astype(np.float64))
            column_error = np.abs((self._column_ones @ result).astype(np.float64) - self._columns.astype(np.float64))
            rows = np.flatnonzero(~(row_error <= self._row_bound))
            return rows, np.flatnonzero(~(column_error <= self._column_bound))

    def element(self, row: int, column: int) -> float:
        """Compute one element again."""
        return float(self._left[row].astype(np.float64) @ self._right[:, column])


def _relative(terms: int) -> float:
    """The largest relative error of a sum of so many products: g of the module's text."""
    return terms * _ROUNDING / (1 - terms * _ROUNDING)


def _bound(inner: int, summed: int) -> float:
    """How far a sum of `summed` elements may differ, relative to the computed size of what it sums."""
    return _relative(2 * inner + 2 * summed) / (1 - _relative(inner + summed))
