"""Cuts an ONNX graph behind a weight: what need not be computed again when only that weight changes.

Of the graph's nodes those are kept that depend on the tensor; the tensor itself becomes an input, and so does what the
kept nodes take from those before. The first part of a run is then computed once for all faults of all tensors.

    ModelProto.graph = 7 -> GraphProto: node = 1, initializer = 5, input = 11, output = 12
    NodeProto: input = 1, output = 2; ValueInfoProto: name = 1, type = 2
    TypeProto.tensor_type = 1 -> elem_type = 1. Source: onnx/onnx.proto (ONNX IR).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from flightsw.compute.onnx_file import DELIMITED, GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_NAME, fields

_GRAPH_NODE: Final = 1
_GRAPH_NAME: Final = 2
_GRAPH_INPUT: Final = 11
_GRAPH_OUTPUT: Final = 12
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_VALUE_NAME: Final = 1
_FLOAT_VALUE: Final = bytes((0x12, 4, 0x0A, 2, 0x08, 1))
"""ValueInfoProto.type of a float32 tensor whose shape is left open."""


class Node(NamedTuple):
    """A node: its bytes, and the names that it takes and gives."""

    data: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Part(NamedTuple):
    """A model that computes the rest of a run.

    Attributes:
        model: an ONNX file.
        inputs: what it takes beside the tensor, in the order of first use.
    """

    model: bytes
    inputs: tuple[str, ...]


class Graph:
    """The graph of an ONNX file.

    Args:
        model: the file.
    """

    def __init__(self, model: bytes) -> None:
        self._others: list[bytes] = []
        """Fields of the file beside the graph, as they are."""
        self._nodes: list[Node] = []
        self._initialisers: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self.outputs: tuple[str, ...] = ()
        for field in fields(model, 0, len(model)):
            body = model[field.start : field.start + field.length]
            if field.number == MODEL_GRAPH:
                self._read(body)
            elif field.wire_type == DELIMITED:
                self._others.append(_delimited(field.number, body))
            else:
                self._others.append(_varint(field.number << 3 | field.wire_type) + body)

    def behind(self, tensor: str) -> Part:
        """The nodes that depend on a tensor, with it as an input."""
        dependent, kept = {tensor}, []
        for node in self._nodes:
            if dependent.intersection(node.inputs):
                dependent.update(node.outputs)
                kept.append(node)
        assert kept, "a weight that no node takes"
        constants = {name: node for node in self._nodes if not node.inputs for name in node.outputs}
        taken = dict.fromkeys(name for node in kept for name in node.inputs if name)
        given = [name for name in taken if not {name} & (dependent | constants.keys() | self._initialisers.keys())]
        needed = [constants[name] for name in taken if name in constants]
        weights = [body for name, body in self._initialisers.items() if name in taken and name != tensor]
        inputs = [_value(name) for name in (tensor, *given)]
        return Part(self._assembled([*needed, *kept], weights, inputs, self.outputs), tuple(given))

    def with_outputs(self, names: Iterable[str]) -> bytes:
        """The whole model with other outputs: any values that its nodes give."""
        return self._assembled(self._nodes, self._initialisers.values(), self._inputs, names)

    def _read(self, graph: bytes) -> None:
        outputs = []
        for field in fields(graph, 0, len(graph)):
            body = graph[field.start : field.start + field.length]
            if field.number == _GRAPH_NODE:
                self._nodes.append(Node(body, _texts(body, _NODE_INPUT), _texts(body, _NODE_OUTPUT)))
            elif field.number == GRAPH_INITIALIZER:
                self._initialisers[_texts(body, TENSOR_NAME)[0]] = body
            elif field.number == _GRAPH_INPUT:
                self._inputs.append(body)
            elif field.number == _GRAPH_OUTPUT:
                outputs.append(_texts(body, _VALUE_NAME)[0])
        self.outputs = tuple(outputs)

    def _assembled(
        self, nodes: Iterable[Node], weights: Iterable[bytes], inputs: Iterable[bytes], outputs: Iterable[str]
    ) -> bytes:
        graph = b"".join(
            (
                *(_delimited(_GRAPH_NODE, node.data) for node in nodes),
                _delimited(_GRAPH_NAME, b"part"),
                *(_delimited(GRAPH_INITIALIZER, body) for body in weights),
                *(_delimited(_GRAPH_INPUT, body) for body in inputs),
                *(_delimited(_GRAPH_OUTPUT, _value(name)) for name in outputs),
            )
        )
        return b"".join(self._others) + _delimited(MODEL_GRAPH, graph)


def _texts(message: bytes, number: int) -> tuple[str, ...]:
    found = (field for field in fields(message, 0, len(message)) if field.number == number)
    return tuple(message[field.start : field.start + field.length].decode() for field in found)


def _value(name: str) -> bytes:
    return _delimited(_VALUE_NAME, name.encode()) + _FLOAT_VALUE


def _delimited(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | DELIMITED) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
