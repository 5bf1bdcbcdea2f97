"""What is in an ONNX file is known before it is run, and what no model of ours holds is refused."""

from __future__ import annotations

import functools
import itertools
import os
import random
from typing import Any

import numpy as np
import pytest
from onnx import helper

from benchmarks import hostile_models
from malearn.kernel.errors import ArtifactRefused
from malearn.kernel.onnx import onnx_file, onnx_model, onnx_operators, onnx_trial, protobuf

TOOL_TYPE = hostile_models.TOOL_TYPE


@pytest.fixture(scope="module")
def trial() -> Any:
    with onnx_trial.Trial() as trial:
        yield trial


@functools.cache
def hostile() -> list[tuple[str, bytes]]:
    return list(hostile_models.hostile())


def few() -> list[tuple[str, bytes]]:
    """Of each kind of hostile model the last two, which are the largest."""
    kinds = itertools.groupby(hostile(), key=lambda one: one[0].split()[0])
    return [one for _, group in kinds for one in list(group)[-2:]]


def test_every_exporters_models_pass(fitted: Any, trial: Any) -> None:
    onnx_file.check(fitted.model)
    trial.check(fitted.model)


def test_an_honest_model_is_loaded(trial: Any) -> None:
    loaded = onnx_model.load(hostile_models.honest(), TOOL_TYPE, "it", trial.check)
    assert loaded.seconds((1.0,) * hostile_models.WIDTH) == 10.0


def test_hostile_models_are_refused_by_name(trial: Any) -> None:
    """Of the two hundred that `make bench` tries, one or two of each kind."""
    for kind, artifact in few():
        with pytest.raises(ArtifactRefused, match=r"^It is refused: \w"):
            onnx_model.load(artifact, TOOL_TYPE, "It", trial.check)
            pytest.fail(f"{kind} was loaded")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("noise", "it is not an ONNX file that malearn exported: "),
        ("cut at", "it is not an ONNX file that malearn exported: the file is cut short"),
        ("loop of", "it uses the operator Loop, which malearn never exports"),
        ("subgraph in Add", "it contains subgraphs, which malearn never exports"),
        ("function named", "it contains functions, which malearn never exports"),
        ("domain com.microsoft", "it uses operators of the domain com.microsoft"),
        ("Mul of 1000000", "its Mul makes more than 65,536 numbers for each row"),
        ("rows times rows", "its Reshape mixes rows"),
        ("tree that leads back", "its trees have a branch that leads back"),
        ("tree 20000 deep", "its trees are more than 500 levels deep"),
        ("external data", "it contains external data, which malearn never exports"),
        ("5,000 nodes", "it has 5004 nodes and 3 initialisers; at most 256 and 256 are accepted"),
        ("metadata: 9 million", "its metadata is too large"),
        ("metadata: a number too large", r"its metadata cannot be read \(Expected `int`"),
        ("metadata: no UTF-8", r"it cannot be loaded \(UnicodeDecodeError"),
    ],
)
def test_the_reason_says_what_is_wrong(kind: str, reason: str) -> None:
    artifact = next(file for name, file in hostile() if name.startswith(kind))
    with pytest.raises(ArtifactRefused, match=reason):
        onnx_model.load(artifact, TOOL_TYPE, "it")


def test_a_changed_byte_never_gets_anything_but_a_refusal_out_of_the_check() -> None:
    """Nor does it take long: the reader is bounded."""
    whole, source = hostile_models.honest(), random.Random(3)
    for _ in range(1_000):
        damaged = bytearray(whole)
        for _ in range(source.randint(1, 8)):
            damaged[source.randrange(len(whole))] = source.randrange(256)
        try:
            onnx_file.check(bytes(damaged))
        except ValueError as problem:
            assert str(problem)


def test_runs_of_numbers_are_read_as_they_were_written() -> None:
    """Packed or not, in whatever pieces, of any size and sign."""
    from onnx import AttributeProto

    source = random.Random(5)
    numbers = [source.choice((0, 1, -1, 127, 128, 2**62, -(2**63))) for _ in range(100_000)]
    for ints in (numbers, numbers[:1], [5] * 200_000):
        written = AttributeProto(name="a", ints=ints, floats=[0.5] * 3, type="INTS")
        data = memoryview(written.SerializeToString())
        parts = protobuf.parse(data, {1, 7, 8, 20}, "it", protobuf.Budget(100))
        assert protobuf.integers(parts[8]).tolist() == ints
        assert protobuf.reals(parts[7]).tolist() == [0.5] * 3


def test_the_table_names_what_exporters_emit_and_no_more(fit: Any) -> None:
    import onnx

    emitted = {
        (node.domain, node.op_type)
        for family in ("xgboost", "mlp", "linear")
        for node in onnx.load_model_from_string(fit(family, "llm_process").model).graph.node
    }
    assert emitted == set(onnx_operators.OPERATORS)


# The trial.


@pytest.mark.parametrize("limit", ["CPU", "memory"])
def test_what_takes_too_much_ends_the_trial_and_not_us(limit: str) -> None:
    """The table would have refused it; without the table the limits still hold."""
    size = 30_000 if limit == "memory" else 4_000
    tall, wide = np.zeros((size, 1)), np.zeros((1, size))
    tensors = [hostile_models._tensor("tall", tall), hostile_models._tensor("wide", wide)]
    nodes = [helper.make_node("MatMul", ["tall", "wide"], ["square"])]
    nodes += [
        helper.make_node("MatMul", ["square" if i == 0 else f"s{i}", "square"], [f"s{i + 1}"])
        for i in range(1 if limit == "memory" else 20)
    ]
    last = nodes[-1].output[0]
    artifact = hostile_models._file(nodes, tensors, last)
    with onnx_trial.Trial() as trial:
        with pytest.raises(ValueError, match=r"CPU|memory|cannot run it|crashes"):
            trial.check(artifact)
        trial.check(hostile_models.honest())  # the next one is tried all the same


def test_without_an_interpreter_nothing_is_tried_and_so_nothing_loaded(monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.executable", os.devnull)
    with onnx_trial.Trial() as trial, pytest.raises(ArtifactRefused, match="cannot be started"):
        onnx_model.load(hostile_models.honest(), TOOL_TYPE, "it", trial.check)
