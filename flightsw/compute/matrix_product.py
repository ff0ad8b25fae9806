"""The job kind `matrix_product`: the product of a large matrix and another, block of rows by block of rows.

What data centres in orbit multiply themselves: beam weights by samples, embeddings by a projection. The model object is
the left matrix, the data object the right one (`flightsw.compute.matrix_file`), both float32 or both int8. A step
computes the next rows of the product; the state is what is computed so far, so that another boot, or another node,
goes on from there. With `MODELS.abft` each block is checked by its sums (`flightsw.compute.abft`).

The result is the product, float32, or int32 for int8; there is no further product object, and the measure is the
largest magnitude of the result.

Layout of the state (little endian; ours):

    "FRPR" | version 1 u8 | 0 float32, 1 int32 u8 | rows u32 | columns u32 | rows done u32 | rows done x columns numbers
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flightsw.compute.abft import INNER_MAX
from flightsw.compute.matrix_file import Matrix, decode_matrix, encode_matrix
from flightsw.compute.matrix_image import FACTORS
from flightsw.errors import MessageError, StorageError

NAME: Final = "matrix_product"
"""The kind of job."""

BLOCK_ROWS: Final = 512
"""Rows of the product that a step computes: with fewer, checksums cost a larger share of it."""
PRODUCT_BYTES_MAX: Final = 4 * 1024 * 1024
"""The product [bytes], 1024 x 1024 numbers: a checkpoint holds it in a job's record."""

_HEADER = struct.Struct("<4sBBIII")
_MAGIC, _VERSION = b"FRPR", 1
_KINDS = (np.dtype("<f4"), np.dtype("<i4"))


@dataclass(frozen=True, slots=True)
class ProductState:
    """Where a job stands.

    Attributes:
        rows: ``(rows done, columns)`` of the product, float32 or int32.
        rows_count: Rows of the whole product.
    """

    rows: Matrix
    rows_count: int

    def to_bytes(self) -> bytes:
        """Return the state as a checkpoint."""
        done, columns = self.rows.shape
        header = _HEADER.pack(_MAGIC, _VERSION, _KINDS.index(self.rows.dtype), self.rows_count, columns, done)
        return header + self.rows.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "ProductState":
        """Return the state in a checkpoint.

        Raises:
            StorageError: The bytes are not a checkpoint of this job.
        """
        if len(data) < _HEADER.size:
            raise StorageError(f"checkpoint: {len(data)} bytes; expected a header of {_HEADER.size}")
        magic, version, kind, rows, columns, done = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION) or kind >= len(_KINDS):
            raise StorageError(f"checkpoint: begins with {magic!r} version {version} kind {kind}; expected {_MAGIC!r}")
        size_bytes = _KINDS[kind].itemsize * columns
        if not 0 < rows * size_bytes <= PRODUCT_BYTES_MAX or done > rows:
            raise StorageError(
                f"checkpoint: {done} of {rows} rows of {columns}; expected 1 to {PRODUCT_BYTES_MAX} bytes"
            )
        if len(data) != _HEADER.size + done * size_bytes:
            raise StorageError(f"checkpoint: {len(data)} bytes; expected {_HEADER.size + done * size_bytes}")
        return cls(np.frombuffer(data, _KINDS[kind], offset=_HEADER.size).reshape(done, columns), rows)


def steps_count(rows: int) -> int:
    """Return the steps of a job whose left matrix has so many rows."""
    return -(-rows // BLOCK_ROWS)


def begin(left: Matrix, right: Matrix) -> ProductState:
    """Return the state of a job that has done nothing yet."""
    kind = _KINDS[left.dtype == np.int8]
    return ProductState(np.empty((0, right.shape[1]), kind), left.shape[0])


def decode_right(data: bytes, left: Matrix) -> Matrix:
    """Return the right matrix ``(k, n)`` of a product.

    Raises:
        MessageError: The bytes are no matrix that fits the left one ``(m, k)``, or the product would be too large.
    """
    right = decode_matrix(data)
    check_factors(left, right)
    return right


def check_factors(left: Matrix, right: Matrix) -> None:
    """Raise `MessageError` unless two matrices have a product that this kind computes."""
    if right.dtype != left.dtype or right.dtype not in FACTORS or right.shape[0] != left.shape[1]:
        raise MessageError(
            f"right matrix: {right.dtype} {right.shape}; expected {left.dtype} with {left.shape[1]} rows"
        )
    if left.shape[1] > INNER_MAX:
        raise MessageError(f"right matrix: {right.shape[0]} rows; expected at most {INNER_MAX}")
    if 4 * left.shape[0] * right.shape[1] > PRODUCT_BYTES_MAX:
        raise MessageError(f"product: {left.shape[0]} x {right.shape[1]}; expected at most {PRODUCT_BYTES_MAX} bytes")
    if not np.isfinite(right).all():
        raise MessageError("right matrix: holds numbers that are not finite; expected finite ones")


def next_rows(state: ProductState, left: Matrix, right: Matrix) -> slice:
    """Return which rows the next step computes.

    Raises:
        MessageError: All are computed: the job has too many steps.
        StorageError: The state is of another product.
    """
    done = state.rows.shape[0]
    expected = begin(left, right)
    if (state.rows.dtype, state.rows.shape[1], state.rows_count) != (
        expected.rows.dtype,
        expected.rows.shape[1],
        expected.rows_count,
    ):
        raise StorageError(
            f"checkpoint: of a product {state.rows_count} x {state.rows.shape[1]} {state.rows.dtype}; "
            f"expected {expected.rows_count} x {expected.rows.shape[1]} {expected.rows.dtype}"
        )
    if done == left.shape[0]:
        raise MessageError(f"steps_count: a step after the last; expected {steps_count(left.shape[0])}")
    return slice(done, min(done + BLOCK_ROWS, left.shape[0]))


def added(state: ProductState, rows: Matrix) -> ProductState:
    """Return the state after a step that computed these rows."""
    return ProductState(np.concatenate((state.rows, rows.astype(state.rows.dtype, copy=False))), state.rows_count)


def finish(state: ProductState) -> tuple[bytes, bytes, float]:
    """Return (the product as bytes, no product object, its largest magnitude).

    Raises:
        MessageError: Rows are missing: the job has too few steps.
    """
    if len(state.rows) < state.rows_count:
        raise MessageError(
            f"steps_count: {len(state.rows)} of {state.rows_count} rows are computed after the last step; "
            f"expected {steps_count(state.rows_count)}"
        )
    return encode_matrix(state.rows), b"", _measure(state.rows)


def _measure(rows: Matrix) -> float:
    with np.errstate(all="ignore"):  # a struck product may hold anything
        largest: Any = np.abs(rows.astype(np.float64)).max()
    return float(np.nan_to_num(largest, nan=np.finfo(np.float64).max))
