"""Matrices as objects: a strict part of NumPy's `.npy`, read without NumPy's own reader, which takes far more.

Version 1.0, two dimensions, rows one after the other, float32, int8 or int32 in little endian; the header is written
as `numpy.save` writes it, so that users make and read matrices with NumPy. Source of the layout: NumPy documentation,
numpy.lib.format. Everything else is refused.
"""

import re
import struct
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flightsw.errors import MessageError

Matrix: TypeAlias = NDArray[Any]
"""``(rows, columns)`` float32, int8 or int32."""

MAGIC: Final = b"\x93NUMPY"
MATRIX_BYTES_MAX: Final = 16 * 1024 * 1024
"""Numbers of one matrix [bytes]: 2048 x 2048 float32. Its checksums take as much once more for a moment."""
HEADER_BYTES_MAX: Final = 256
"""Magic, version, length and text; NumPy writes 128 for any matrix within the limit."""

TYPES: Final[dict[str, np.dtype[Any]]] = {"<f4": np.dtype("<f4"), "|i1": np.dtype("i1"), "<i4": np.dtype("<i4")}

_START = struct.Struct("<6sBBH")
_TEXT = re.compile(
    rb"\{'descr': '(<f4|\|i1|<i4)', 'fortran_order': False, 'shape': \(([1-9]\d{0,7}), ([1-9]\d{0,7})\), \} *\n"
)
_ALIGNMENT_BYTES = 64
_GROWTH_CHARACTERS = 21  # room that NumPy leaves for the first side to grow


class MatrixHeader(NamedTuple):
    """What a header says.

    Attributes:
        kind: of the numbers.
        shape: ``(rows, columns)``.
        start: where the numbers begin [bytes].
    """

    kind: np.dtype[Any]
    shape: tuple[int, int]
    start: int


def encode_matrix(matrix: Matrix) -> bytes:
    """Return a matrix as bytes, the same that `numpy.save` writes.

    Raises:
        MessageError: it is of another type or shape, or too large.
    """
    name = next((name for name, kind in TYPES.items() if kind == matrix.dtype), "")
    if not name or matrix.ndim != 2:
        raise MessageError(f"matrix: {matrix.dtype} {matrix.shape}; expected float32, int8 or int32 (rows, columns)")
    _check_size(matrix.shape[0], matrix.shape[1], TYPES[name])
    text = f"{{'descr': '{name}', 'fortran_order': False, 'shape': {matrix.shape}, }}"
    text += " " * (_GROWTH_CHARACTERS - len(str(matrix.shape[0])))
    text += " " * (-(_START.size + len(text) + 1) % _ALIGNMENT_BYTES) + "\n"
    body = np.ascontiguousarray(matrix, TYPES[name]).tobytes()
    return _START.pack(MAGIC, 1, 0, len(text)) + text.encode("ascii") + body


def decode_matrix(data: bytes | bytearray | memoryview) -> Matrix:
    """Return the matrix in bytes ``(rows, columns)``, read-only.

    Raises:
        MessageError: the bytes are not exactly one matrix.
    """
    header = read_header(data)
    return np.frombuffer(data, header.kind, offset=header.start).reshape(header.shape)


def read_header(data: bytes | bytearray | memoryview) -> MatrixHeader:
    """Return what the header of a matrix says, whose numbers are all there.

    Raises:
        MessageError: the bytes are not exactly one matrix.
    """
    if len(data) < _START.size:
        raise MessageError(f"matrix: {len(data)} bytes; expected a header of at least {_START.size}")
    magic, major, minor, length = _START.unpack_from(data)
    if (magic, major, minor) != (MAGIC, 1, 0):
        raise MessageError(f"matrix: begins with {magic!r} version {major}.{minor}; expected {MAGIC!r} version 1.0")
    start = _START.size + length
    if start > min(HEADER_BYTES_MAX, len(data)):
        raise MessageError(f"matrix: header of {start} bytes; expected at most {min(HEADER_BYTES_MAX, len(data))}")
    text = bytes(data[_START.size : start])
    found = _TEXT.fullmatch(text)
    if found is None:
        raise MessageError(
            f"matrix: header {text[:80]!r}; expected '<f4', '|i1' or '<i4', rows one after the other, two dimensions"
        )
    kind, rows, columns = TYPES[found[1].decode("ascii")], int(found[2]), int(found[3])
    _check_size(rows, columns, kind)
    if len(data) - start != rows * columns * kind.itemsize:
        raise MessageError(
            f"matrix: {len(data) - start} bytes after the header; expected {rows * columns * kind.itemsize}"
        )
    return MatrixHeader(kind, (rows, columns), start)


def _check_size(rows: int, columns: int, kind: np.dtype[Any]) -> None:
    """Raise `MessageError` unless there is something, and not too much."""
    if not 0 < rows * columns * kind.itemsize <= MATRIX_BYTES_MAX:
        raise MessageError(f"matrix: {rows} x {columns} {kind}; expected 1 to {MATRIX_BYTES_MAX} bytes of numbers")
