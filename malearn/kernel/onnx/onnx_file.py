"""What an ONNX file contains, looked at before onnxruntime sees it.

The file is read as the protobuf message that it is, by our own bounded reader. Accepted
are the parts that an exporter of ours writes, within limits; subgraphs, functions, external
data, sparse tensors and whatever a later version of ONNX may add are refused by name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from malearn.kernel.onnx import onnx_operators, protobuf
from malearn.kernel.onnx.onnx_operators import ROWS, Node, Shape, UnacceptableModel
from malearn.kernel.onnx.protobuf import Budget

__all__ = ["LARGEST", "check"]

#: Bytes of a whole file. No honest model of ours comes near it: 150 trees take 100 KiB.
LARGEST = 16 * 1024 * 1024
#: Parts of the message, but for runs of numbers; a tenth of a second to read.
_MOST_PARTS = 60_000
_MOST_NODES, _MOST_TENSORS, _MOST_PROPERTIES = 256, 256, 16
_MOST_NUMBERS = 1 << 20  # in one initialiser
_MOST_TEXT = 8 * 1024 * 1024  # bytes of metadata

# Field numbers, by message, of what is accepted.
_MODEL = {1: "ir_version", 2: "producer", 3: "producer_version", 4: "domain", 5: "version",
          6: "doc", 7: "graph", 8: "opsets", 14: "properties"}  # fmt: skip
_GRAPH = {1: "nodes", 2: "name", 5: "tensors", 10: "doc", 11: "inputs", 12: "outputs", 13: "values"}
_NODE = {1: "inputs", 2: "outputs", 3: "name", 4: "operator", 5: "attributes", 6: "doc",
         7: "domain"}  # fmt: skip
_ATTRIBUTE = {1: "name", 2: "f", 3: "i", 4: "s", 7: "floats", 8: "ints", 9: "strings", 13: "doc",
              20: "type"}  # fmt: skip
_TENSOR = {1: "dims", 2: "type", 4: "floats", 5: "int32s", 7: "int64s", 8: "name", 9: "raw",
           10: "doubles", 12: "doc"}  # fmt: skip
_PAIR, _OPSET, _VALUE = {1: "key", 2: "value"}, {1: "domain", 2: "version"}, {1: "name", 2: "type"}
_TYPE, _TENSOR_TYPE, _DIMENSIONS = {1: "tensor"}, {1: "element", 2: "shape"}, {1: "dimension"}
_DIMENSION = {1: "size", 2: "symbol"}
#: What ONNX knows and we refuse, by message and field number.
_REFUSED = {
    ("the file", 20): "training information",
    ("the file", 25): "functions",
    ("the graph", 14): "quantisation",
    ("the graph", 15): "sparse initialisers",
    ("an attribute", 5): "tensors as attributes",
    ("an attribute", 6): "subgraphs",
    ("an attribute", 10): "tensors as attributes",
    ("an attribute", 11): "subgraphs",
    ("an attribute", 21): "functions",
    ("an attribute", 22): "sparse tensors",
    ("an attribute", 23): "sparse tensors",
    ("an initialiser", 6): "texts",
    ("an initialiser", 13): "external data",
    ("an initialiser", 14): "external data",
}
#: Bytes of a number, by `TensorProto.DataType`.
_ITEM = {1: 4, 2: 1, 6: 4, 7: 8, 9: 1, 11: 8}
_INT64 = 7


def check(artifact: bytes) -> None:
    """Raise `ValueError`, in words that follow "refused:", unless a model may be loaded."""
    if len(artifact) > LARGEST:
        raise UnacceptableModel(f"it is larger than {LARGEST // 2**20} MiB")
    budget = Budget(_MOST_PARTS)
    try:
        model = _parts(memoryview(artifact), _MODEL, "the file", budget)
    except protobuf.MalformedMessage as error:
        raise UnacceptableModel(f"it is not an ONNX file that malearn exported: {error}") from error
    _check_properties(model.get("properties", []), budget)
    for opset in model.get("opsets", []):
        domain = _name(_parts(opset, _OPSET, "an opset", budget), "domain")
        if domain not in {known for known, _ in onnx_operators.OPERATORS}:
            raise UnacceptableModel(f"it uses operators of the domain {domain[:80]}")
    graph = _parts(_one(model, "graph", "the file"), _GRAPH, "the graph", budget)
    _check_graph(graph, budget)


def _check_properties(properties: list[Any], budget: Budget) -> None:
    for one in properties:
        _parts(one, _PAIR, "the metadata", budget)
    if len(properties) > _MOST_PROPERTIES or sum(map(len, properties)) > _MOST_TEXT:
        raise UnacceptableModel("its metadata is too large")


def _check_graph(graph: dict[str, list[Any]], budget: Budget) -> None:
    """Follow the shapes from the inputs through every node."""
    nodes, tensors = graph.get("nodes", []), graph.get("tensors", [])
    if len(nodes) > _MOST_NODES or len(tensors) > _MOST_TENSORS:
        raise UnacceptableModel(
            f"it has {len(nodes)} nodes and {len(tensors)} initialisers; "
            f"at most {_MOST_NODES} and {_MOST_TENSORS} are accepted"
        )
    shapes: dict[str, Shape] = {}
    constants: dict[str, npt.NDArray[np.int64]] = {}
    name, shape = _input(_one(graph, "inputs", "the graph"), budget)
    shapes[name] = shape
    for tensor in tensors:
        parts = _parts(tensor, _TENSOR, "an initialiser", budget)
        name = _name(parts, "name")
        shapes[name] = _tensor_shape(parts, name)
        # The rule of Reshape needs the values of its target; longer ones are weights.
        if _number(parts, "type") == _INT64 and math.prod(shapes[name]) <= 8:
            constants[name] = _small_integers(parts)
    for message in nodes:
        _follow(_parts(message, _NODE, "a node", budget), shapes, constants, budget)


def _follow(
    node: dict[str, list[Any]],
    shapes: dict[str, Shape],
    constants: dict[str, npt.NDArray[np.int64]],
    budget: Budget,
) -> None:
    """Add the shape of what one node computes to `shapes`."""
    operator, domain = _name(node, "operator"), _name(node, "domain")
    if (domain, operator) not in onnx_operators.OPERATORS:
        onnx_operators.result(domain, Node(operator, (), (), {}))  # says so
    # ONNX writes an empty name for an optional input that is left out, such as Clip's.
    given = [name for name in map(protobuf.text, node.get("inputs", [])) if name]
    # ONNX wants nodes in order of execution, and with that there can be no loop.
    if unknown := [name for name in given if name not in shapes]:
        raise UnacceptableModel(
            f"its {operator} reads {unknown[0][:80]}, which no earlier node computes"
        )
    outputs = [protobuf.text(name) for name in node.get("outputs", [])]
    if len(outputs) != 1 or outputs[0] in shapes:
        raise UnacceptableModel(f"its {operator} does not have exactly one new output")
    attributes = dict(_attribute(message, budget) for message in node.get("attributes", []))
    inputs, known = [shapes[name] for name in given], [constants.get(name) for name in given]
    shapes[outputs[0]] = onnx_operators.result(domain, Node(operator, inputs, known, attributes))


def _attribute(message: memoryview, budget: Budget) -> tuple[str, Any]:
    parts = _parts(message, _ATTRIBUTE, "an attribute", budget)
    name = _name(parts, "name")
    if "ints" in parts:
        return name, protobuf.integers(parts["ints"])
    if "floats" in parts:
        return name, protobuf.reals(parts["floats"])
    if "strings" in parts:
        return name, [protobuf.octets(one) for one in parts["strings"]]
    if "s" in parts:
        return name, _name(parts, "s")
    return name, _number(parts, "i")


def _input(value: memoryview, budget: Budget) -> tuple[str, Shape]:
    """Name and shape of a graph's input; its first dimension is the rows."""
    parts = _parts(value, _VALUE, "an input", budget)
    kind = _parts(_one(parts, "type", "an input"), _TYPE, "an input that is no tensor", budget)
    tensor = _parts(_one(kind, "tensor", "an input"), _TENSOR_TYPE, "an input", budget)
    shape = _parts(_one(tensor, "shape", "an input"), _DIMENSIONS, "an input's shape", budget)
    sizes = []
    for dimension in shape.get("dimension", []):
        size = _parts(dimension, _DIMENSION, "a dimension", budget)
        sizes.append(_number(size, "size") if "size" in size else ROWS)
    if len(sizes) != 2 or sizes[0] != ROWS or not 0 < sizes[1] <= onnx_operators.MOST_PER_ROW:
        raise UnacceptableModel(f"its input has shape {sizes}, not rows of a fixed width")
    return _name(parts, "name"), tuple(sizes)


def _tensor_shape(parts: dict[str, list[Any]], name: str) -> Shape:
    """The dimensions of an initialiser, which holds exactly so many numbers."""
    item = _ITEM.get(_number(parts, "type"))
    if item is None:
        raise UnacceptableModel(f"its initialiser {name[:80]} does not hold plain numbers")
    shape = tuple(protobuf.integers(parts.get("dims", [])).tolist())
    count = math.prod(shape)
    if len(shape) > 4 or any(size < 0 for size in shape) or count > _MOST_NUMBERS:
        raise UnacceptableModel(f"its initialiser {name[:80]} is too large")
    # Of two lists of numbers we might check one and onnxruntime read the other.
    held = [parts[one] for one in ("raw", "floats", "int32s", "int64s", "doubles") if one in parts]
    if len(held) > 1 or (not held and count):
        raise UnacceptableModel(
            f"its initialiser {name[:80]} holds data that do not match its shape"
        )
    if "raw" in parts and len(_one(parts, "raw", "an initialiser")) != count * item:
        raise UnacceptableModel(
            f"its initialiser {name[:80]} holds data that do not match its shape"
        )
    return shape


def _small_integers(parts: dict[str, list[Any]]) -> npt.NDArray[np.int64]:
    if "raw" in parts:
        return np.frombuffer(_one(parts, "raw", "an initialiser"), "<i8")
    return protobuf.integers(parts.get("int64s", []))


def _parts(data: Any, names: dict[int, str], what: str, budget: Budget) -> dict[str, list[Any]]:
    if not isinstance(data, memoryview):
        raise protobuf.MalformedMessage(f"{what} is not a protobuf message")
    try:
        return {names[n]: parts for n, parts in protobuf.parse(data, names, what, budget).items()}
    except protobuf.UnacceptedField as error:
        if (known := _REFUSED.get((what, error.number))) is None:
            raise
        raise UnacceptableModel(f"it contains {known}, which malearn never exports") from error


def _one(parts: dict[str, list[Any]], name: str, what: str) -> memoryview:
    """The one part of that name: protobuf would merge several, and we read only one."""
    found = parts.get(name, [])
    if len(found) != 1 or not isinstance(found[0], memoryview):
        raise protobuf.MalformedMessage(f"{what} does not have exactly one {name}")
    return found[0]


def _name(parts: dict[str, list[Any]], name: str) -> str:
    return protobuf.text(_one(parts, name, "a part")) if name in parts else ""


def _number(parts: dict[str, list[Any]], name: str) -> int:
    numbers = protobuf.integers(parts.get(name, []))
    if len(numbers) > 1:
        raise protobuf.MalformedMessage(f"a part has more than one {name}")
    return int(numbers[0]) if len(numbers) else 0
