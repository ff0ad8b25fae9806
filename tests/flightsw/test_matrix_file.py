"""Matrices as objects: what NumPy writes is read, everything else is refused in one line."""

import io

import numpy as np
import pytest

from flightsw.compute.matrix_file import MATRIX_BYTES_MAX, decode_matrix, encode_matrix
from flightsw.errors import MessageError


def saved(matrix):
    file = io.BytesIO()
    np.save(file, matrix)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["<f4", "i1", "<i4"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (700, 2), (1, 100_000), (2048, 2048)])
def test_a_matrix_is_written_as_numpy_writes_it_and_read_back(kind, shape):
    matrix = (np.arange(shape[0] * shape[1]) % 101 - 50).astype(kind).reshape(shape)
    data = encode_matrix(matrix)
    assert data == saved(matrix)
    read = decode_matrix(data)
    assert read.dtype == matrix.dtype
    assert np.array_equal(read, matrix)


def test_a_matrix_in_another_order_is_written_row_after_row():
    matrix = np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3))
    assert np.array_equal(decode_matrix(encode_matrix(matrix)), matrix)


@pytest.mark.parametrize(
    ("matrix", "why"),
    [
        (np.zeros(3, "<f4"), r"float32 \(3,\); expected float32, int8 or int32 \(rows, columns\)"),
        (np.zeros((2, 2), "<f8"), "float64"),
        (np.zeros((0, 3), "<f4"), "0 x 3 float32; expected 1 to"),
        (np.zeros((MATRIX_BYTES_MAX // 4 + 1, 1), "<f4"), f"expected 1 to {MATRIX_BYTES_MAX} bytes"),
    ],
)
def test_what_is_no_matrix_is_not_written(matrix, why):
    with pytest.raises(MessageError, match=why):
        encode_matrix(matrix)


GOOD = saved(np.ones((3, 5), "<f4"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes"),
        (GOOD[:9], "9 bytes"),
        (b"\x93NUMPZ" + GOOD[6:], "begins with"),
        (GOOD[:6] + b"\x02" + GOOD[7:], "version 2.0; expected"),
        (GOOD[:8] + b"\xff\xff" + GOOD[10:], "header of 65545 bytes"),
        (GOOD[:-1], "59 bytes after the header; expected 60"),
        (GOOD + b"\0", "61 bytes after the header; expected 60"),
        (GOOD.replace(b"<f4", b"<f8"), "header"),
        (GOOD.replace(b"<f4", b">f4"), "header"),
        (GOOD.replace(b"False", b"True "), "header"),
        (GOOD.replace(b"(3, 5)", b"(15,) "), "header"),
        (GOOD.replace(b"(3, 5)", b"(0, 5)"), "header"),
        (GOOD.replace(b"(3, 5), }     ", b"(99999999, 99)"), "header"),
        (saved(np.ones((99, 99), "<f4")).replace(b"(99, 99), }    ", b"(999999, 999), }"[:15]), "header"),
        (saved(np.array([["a"]], object)), "header"),
        (saved(np.zeros((1, 2, 3), "<f4")), "header"),
    ],
)
def test_bytes_that_are_not_exactly_a_matrix_are_refused(data, why):
    with pytest.raises(MessageError, match=f"^matrix: .*{why}"):
        decode_matrix(data)


def test_sides_are_refused_before_memory_is_taken_for_them():
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (90000000, 90000000), }"
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
    with pytest.raises(MessageError, match="90000000 x 90000000 float32; expected 1 to"):
        decode_matrix(head)
