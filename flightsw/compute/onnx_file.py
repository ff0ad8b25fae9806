"""Reads the few fields of an ONNX file that a board needs, so that it can do without the `onnx` package.

ONNX is protobuf: ModelProto.graph = 7 -> GraphProto.initializer = 5 -> TensorProto: dims = 1, data_type = 2,
float_data = 4, name = 8, raw_data = 9. Source: onnx/onnx.proto (ONNX IR), protobuf encoding guide for varints and wire
types.
"""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from flightsw.errors import ConfigError

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
"""Wire types."""
MODEL_GRAPH: Final = 7
GRAPH_INITIALIZER: Final = 5
TENSOR_NAME: Final = 8
FLOAT_BYTES: Final = 4

_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_FLOAT_DATA, _TENSOR_RAW_DATA = 1, 2, 4, 9
_TENSOR_FLOAT = 1
_VARINT_BYTES_MAX = 10  # 64 bits, seven a byte


class Field(NamedTuple):
    """One protobuf field: its number and wire type, and its value (a varint's number, or where its bytes lie)."""

    number: int
    wire_type: int
    value: int
    start: int
    length: int


class WeightTensor(NamedTuple):
    """Where the float32 numbers of an initialiser lie in the file, and their shape.

    Attributes:
        name: as nodes of the graph call it.
        start: first byte in the file.
        length: bytes.
        shape: as the file says; ``(count,)`` where it says nothing that fits.
    """

    name: str
    start: int
    length: int
    shape: tuple[int, ...]


def weight_tensors(data: bytes, name: str) -> tuple[WeightTensor, ...]:
    """Return the float initialisers of an ONNX file, in its order.

    Raises:
        ConfigError: The bytes are not protobuf, or hold no float initialiser.
    """
    tensors = []
    try:
        for model_field in fields(data, 0, len(data)):
            if model_field.number != MODEL_GRAPH or model_field.wire_type != DELIMITED:
                continue
            for graph_field in fields(data, model_field.start, model_field.start + model_field.length):
                if graph_field.number == GRAPH_INITIALIZER and graph_field.wire_type == DELIMITED:
                    tensors += _weights_of(data, graph_field.start, graph_field.start + graph_field.length)
    except ValueError as error:
        raise ConfigError(f"{name}: not an ONNX model: {error}") from error
    if not tensors:
        raise ConfigError(f"{name}: holds no float weights; expected an ONNX model with its initialisers inside")
    return tuple(tensors)


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """Walk the fields of one protobuf message.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        value = 0
        if wire_type == VARINT:
            first = position
            value, position = _varint(data, position, end)
            length = position - first
        elif wire_type == DELIMITED:
            length, first = _varint(data, position, end)
            position = first + length
        elif wire_type in (FIXED32, FIXED64):
            first, length = position, 4 if wire_type == FIXED32 else 8
            position += length
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position > end or number == 0:
            raise ValueError(f"field {number} at byte {first} runs past the end of its message")
        yield Field(number, wire_type, value, first, length)


def _weights_of(data: bytes, start: int, end: int) -> list[WeightTensor]:
    """Return where a TensorProto holds its float32 numbers: one tensor, or none.

    Raises:
        ValueError: The bytes are not protobuf, or the numbers are not whole.
    """
    is_float = False
    name = ""
    shape: list[int] = []
    found: tuple[int, int] | None = None
    for field in fields(data, start, end):
        if field.number == _TENSOR_DATA_TYPE and field.wire_type == VARINT:
            is_float = field.value == _TENSOR_FLOAT
        elif field.number == _TENSOR_DIMS and field.wire_type == VARINT:
            shape.append(field.value)
        elif field.number == TENSOR_NAME and field.wire_type == DELIMITED:
            name = data[field.start : field.start + field.length].decode(errors="replace")
        elif field.number in (_TENSOR_RAW_DATA, _TENSOR_FLOAT_DATA) and field.wire_type == DELIMITED and field.length:
            found = (field.start, field.length)
    if not is_float or found is None:
        return []
    if found[1] % FLOAT_BYTES:
        raise ValueError(f"a float tensor at byte {start} holds {found[1]} bytes; expected a multiple of 4")
    count = found[1] // FLOAT_BYTES
    return [WeightTensor(name, *found, tuple(shape) if math.prod(shape) == count and shape else (count,))]


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a varint and the position after it.

    Raises:
        ValueError: It does not end.
    """
    value = 0
    for index in range(position, min(end, position + _VARINT_BYTES_MAX)):
        value |= (data[index] & 0x7F) << (7 * (index - position))
        if data[index] < 0x80:
            return value, index + 1
    raise ValueError(f"a number at byte {position} does not end")
