"""The ONNX operators that a model may use: one table, nothing else is run.

They are what our exporters emit. None of them loops, branches or runs a function, and
for each a rule says how large its result is, so that what a model costs is known
before onnxruntime sees it: so many numbers for each row, whatever the row holds.

A family whose converter emits another operator adds a line here. It must be free of
loops, and its result must not grow faster than the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_PER_ROW", "OPERATORS", "ROWS", "Node", "Shape", "UnacceptableModel", "result"]

#: Dimensions of a tensor; `ROWS` is the number of rows asked for, known only when asked.
Shape = tuple[int, ...]
ROWS = -1
#: Numbers that any step may make for each row. Ours make a hundred.
MOST_PER_ROW = 65_536
#: Levels of a tree. Ours have four.
_DEEPEST = 500
#: `TensorProto.DataType`: float, int32, int64, bool, double.
_NUMERIC = {1, 6, 7, 9, 11}


class UnacceptableModel(ValueError):
    """A model that is not run: it uses, or makes, what none of ours does."""


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a graph. `constants` are the small integer inputs whose values are known."""

    operator: str
    inputs: Sequence[Shape]
    constants: Sequence[npt.NDArray[np.int64] | None]
    attributes: Mapping[str, Any]

    def attribute(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise UnacceptableModel(f"its {self.operator} has no integer attribute {name}")
        return value


def result(domain: str, node: Node) -> Shape:
    """The shape of what `node` computes. Raises `UnacceptableModel` with what is wrong."""
    rule = OPERATORS.get((domain, node.operator))
    if rule is None:
        name = f"{domain}.{node.operator}" if domain else node.operator
        raise UnacceptableModel(f"it uses the operator {name[:80]}, which malearn never exports")
    if not node.inputs:
        raise UnacceptableModel(f"its {node.operator} has no input")
    shape = rule(node)
    if math.prod(size for size in shape if size != ROWS) > MOST_PER_ROW:
        raise UnacceptableModel(
            f"its {node.operator} makes more than {MOST_PER_ROW:,} numbers for each row"
        )
    return shape


def _same(node: Node) -> Shape:
    return node.inputs[0]


def _cast(node: Node) -> Shape:
    if node.attribute("to", 0) not in _NUMERIC:
        raise UnacceptableModel("its Cast does not give numbers")
    return node.inputs[0]


def _broadcast(node: Node) -> Shape:
    rank = max(map(len, node.inputs))
    # numpy's rule; `ROWS` is one more size in it, and may meet itself or 1 only.
    padded = [(1,) * (rank - len(shape)) + shape for shape in node.inputs]
    sizes = [{size for size in column if size != 1} or {1} for column in zip(*padded, strict=True)]
    if any(len(size) > 1 for size in sizes):
        raise UnacceptableModel(f"the shapes that its {node.operator} combines do not fit")
    return tuple(size.pop() for size in sizes)


def _matmul(node: Node) -> Shape:
    if len(node.inputs) != 2 or any(len(shape) != 2 for shape in node.inputs):
        raise UnacceptableModel("its MatMul does not multiply two matrices")
    (rows, inner), (same, columns) = node.inputs
    if inner != same or ROWS in (inner, columns):
        raise UnacceptableModel("the matrices that its MatMul multiplies do not fit")
    return rows, columns


def _gather(node: Node) -> Shape:
    if len(node.inputs) != 2:
        raise UnacceptableModel("its Gather does not have two inputs")
    data, indices = node.inputs
    axis = node.attribute("axis", 0)
    if not -len(data) <= axis < len(data) or data[axis] == ROWS or ROWS in indices:
        raise UnacceptableModel("its Gather does not select columns")
    axis %= len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def _reshape(node: Node) -> Shape:
    """Only what keeps rows apart: (rows, n) of anything that has n numbers for each row."""
    wanted = node.constants[1] if len(node.constants) == 2 else None
    per_row = math.prod(size for size in node.inputs[0] if size != ROWS)
    if wanted is None or wanted.tolist() != [-1, per_row] or ROWS not in node.inputs[0]:
        raise UnacceptableModel("its Reshape mixes rows")
    return ROWS, per_row


def _linear(node: Node) -> Shape:
    return _rows(node), _targets(node, "targets")


def _trees(node: Node) -> Shape:
    """Where every branch leads on to a later node of its tree, no row walks for ever."""
    given = node.attributes
    names = ("nodes_nodeids", "nodes_treeids", "nodes_truenodeids", "nodes_falsenodeids")
    ids, trees, true, false = (np.asarray(given.get(name, ()), np.int64) for name in names)
    modes = given.get("nodes_modes", ())
    if not isinstance(modes, list) or {len(ids)} != {len(trees), len(true), len(false), len(modes)}:
        raise UnacceptableModel("the lists of its trees differ in length")
    branches = np.fromiter((mode != b"LEAF" for mode in modes), bool, len(modes))
    if np.any(branches & ((true <= ids) | (false <= ids))):
        raise UnacceptableModel("its trees have a branch that leads back to an earlier node")
    _check_depth(ids, trees, true, false, branches)
    return _rows(node), _targets(node, "n_targets")


def _check_depth(
    ids: npt.NDArray[np.int64],
    trees: npt.NDArray[np.int64],
    true: npt.NDArray[np.int64],
    false: npt.NDArray[np.int64],
    branches: npt.NDArray[np.bool_],
) -> None:
    """onnxruntime builds trees by recursion, which ends with the stack."""
    _, in_tree = np.unique(trees[branches], return_counts=True)
    if in_tree.max(initial=0) < _DEEPEST:
        return  # no tree has as many branches as would be needed
    depth: dict[tuple[int, int], int] = {}
    columns = (column[branches].tolist() for column in (trees, ids, true, false))
    # Children have greater ids than their parent, as checked before: in order of ids a node's
    # depth is known when its turn comes.
    for tree, node, *children in sorted(zip(*columns, strict=True)):
        level = depth.get((tree, node), 0) + 1
        if level > _DEEPEST:
            raise UnacceptableModel(f"its trees are more than {_DEEPEST} levels deep")
        for child in children:
            depth[tree, child] = max(level, depth.get((tree, child), 0))


def _rows(node: Node) -> int:
    if len(node.inputs[0]) != 2:
        raise UnacceptableModel(f"its {node.operator} does not read rows")
    return node.inputs[0][0]


def _targets(node: Node, name: str) -> int:
    targets = node.attribute(name, 1)
    if not 1 <= targets <= MOST_PER_ROW:
        raise UnacceptableModel(f"its {node.operator} has {targets} {name}")
    return targets


#: By domain and name, how large the result is.
OPERATORS: Mapping[tuple[str, str], Callable[[Node], Shape]] = {
    ("", "Add"): _broadcast,
    ("", "Cast"): _cast,
    ("", "Clip"): _same,
    ("", "Exp"): _same,
    ("", "Gather"): _gather,
    ("", "IsNaN"): _same,
    ("", "MatMul"): _matmul,
    ("", "Mul"): _broadcast,
    ("", "Relu"): _same,
    ("", "Reshape"): _reshape,
    ("", "Where"): _broadcast,
    ("ai.onnx.ml", "Imputer"): _same,
    ("ai.onnx.ml", "LinearRegressor"): _linear,
    ("ai.onnx.ml", "Scaler"): _same,
    ("ai.onnx.ml", "TreeEnsembleRegressor"): _trees,
}
