"""Whether a result can be one: what the ground looks at beyond the digest, by kind of job.

A mask must have the shape of its tile. A matrix product is held against its factors, which the ground has, without
computing it (Freivalds, 1977): for a vector r, the product times r must be the left matrix times what the right one
makes of r, which costs three products of a matrix and a vector instead of one of two matrices. The entries of r follow
from the digests of all three by SHAKE-256, so that nothing on the way can know them before the product is there, and
every ground comes to the same verdict.

Integers are exact: r has entries of 1 to 256, one wrong element never passes, and any wrong row passes a round by a
chance of at most 1/256. For float32 r has entries of +1 and -1; a row may be off by what rounding may have done to it,
g_k |A| (|B| 1) with g_k = k u / (1 - k u) and u = 2^-24 (as in `flightsw.compute.abft`; the ground sums in float64,
whose own rounding is added). What is wrong by less is not found; one element wrong by more always is, and
several in a row pass a round by a chance of at most 1/2.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from flightsw.errors import StorageError, WireError
from flightsw.wire.messages import JobReport
from ground.ledger import JobRequest

if TYPE_CHECKING:
    from flightsw.compute.matrix_file import Matrix

MASK: Final = "cloud_mask"
PRODUCT: Final = "matrix_product"
ROUNDS: Final = 8
"""Vectors that a product is tried with."""
ROUNDING: Final = 2.0**-24
ROUNDING_64: Final = 2.0**-53
UNDERFLOW: Final = 2.0**-150

MaskObjection = Callable[[JobReport, bytes, bytes | None], str | None]
"""(report, mask, product that came down) -> why it cannot be, or None."""


class ResultJudge:
    """Judges the results of one ground segment.

    Args:
        mask_objection: judges masks.
        fetch: digest -> object of the ground's store; raises `StorageError`.
    """

    kinds: Final = (MASK, PRODUCT)
    """Kinds of jobs whose results it can judge."""

    def __init__(self, mask_objection: MaskObjection, fetch: Callable[[bytes], bytes]) -> None:
        self._mask_objection = mask_objection
        self._fetch = fetch

    def objection(self, request: JobRequest, report: JobReport, result: bytes, product: bytes | None) -> str | None:
        """Why a result cannot be one of its job, or None."""
        if request.kind == MASK:
            return self._mask_objection(report, result, product)
        if request.kind != PRODUCT:
            return f"kind {request.kind!r} cannot be judged, expected one of {', '.join(self.kinds)}"
        try:
            left, right = self._fetch(request.model), self._fetch(request.data)
        except StorageError as error:
            return f"its factors are not here: {error}"
        return product_objection(left, right, result, request.model + request.data + report.result)


def product_objection(left_object: bytes, right_object: bytes, result: bytes, seed: bytes) -> str | None:
    """Why a matrix cannot be the product of two others, or None.

    Args:
        left_object, right_object: the factors, as the user gave them.
        result: the product, as it came down.
        seed: what the vectors follow from: the names of all three.
    """
    from flightsw.compute.matrix_file import decode_matrix  # needs numpy, which a ground without results does not
    from flightsw.compute.matrix_product import check_factors

    try:
        left, right, product = decode_matrix(left_object), decode_matrix(right_object), decode_matrix(result)
        check_factors(left, right)
    except WireError as error:
        return str(error)
    kind = "int32" if left.dtype == "int8" else "float32"
    if product.shape != (left.shape[0], right.shape[1]) or product.dtype != kind:
        return f"product is {product.dtype} {product.shape}, expected {kind} {(left.shape[0], right.shape[1])}"
    rows = _wrong_rows(left, right, product, seed)
    return f"product does not hold: row {rows[0]}, {len(rows)} of {len(product)} rows are off" if rows else None


def _wrong_rows(left: "Matrix", right: "Matrix", product: "Matrix", seed: bytes) -> list[int]:
    """Rows of a product that are wrong for some vector."""
    import numpy as np

    (k, n) = right.shape
    drawn = np.frombuffer(hashlib.shake_256(seed).digest(n * ROUNDS), np.uint8).reshape(n, ROUNDS)
    if left.dtype == np.int8:
        vectors = drawn.astype(np.int64) + 1
        wide = [one.astype(np.int64) for one in (left, right, product)]
        return _indices((wide[2] @ vectors != wide[0] @ (wide[1] @ vectors)).any(axis=1))
    signs = np.where(drawn < 128, -1.0, 1.0)
    with np.errstate(all="ignore"):  # what is not a number is off
        wide = [one.astype(np.float64) for one in (left, right, product)]
        off = np.abs(wide[2] @ signs - wide[0] @ (wide[1] @ signs))
        size = np.abs(wide[0]) @ np.abs(wide[1]).sum(axis=1)
        share = k * ROUNDING / (1 - k * ROUNDING) + 4 * (k + n) * ROUNDING_64
        bound = share * size + 4 * n * k * UNDERFLOW
        return _indices(~(off <= bound[:, None]).all(axis=1))


def _indices(is_off: "Matrix") -> list[int]:
    return [int(one) for one in is_off.nonzero()[0]]
