"""Hostile models against what loads models: `python -m benchmarks hostile_models`.

Two hundred ONNX files, each with the metadata and the signature of an honest model and
something in it that takes time, memory or files: loops, bombs, cycles, damage. Each goes
the way of a new version in a scheduler. None may be loaded, and none may hold the thread
that follows the registry for over a second. And cached files with bytes changed, left out or
put in: none may be taken for what was written. `tests/malearn/kernel/onnx/test_onnx_file.py` runs
one of each kind.
"""

from __future__ import annotations

import logging
import random
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.figure import Figure, at_most
from malearn.kernel.errors import ArtifactRefused
from malearn.kernel.estimation import history
from malearn.kernel.onnx import onnx_trial
from malearn.kernel.onnx.model_metadata import INPUT, KEY, OUTPUT, ModelMetadata
from malearn.kernel.tool_types import Feature, ToolType
from malearn.serving import model
from malearn.serving.cache import ModelCache

__all__ = ["TOOL_TYPE", "WIDTH", "figures", "honest", "hostile", "mutated"]

TOOL_TYPE = ToolType("toy", ("toy_process",), "cpu", (Feature("size"), Feature("words")))
WIDTH = len(TOOL_TYPE.features) + len(history.FEATURES)
HUGE = 1 << 40

Nodes = list[onnx.NodeProto]
Tensors = list[onnx.TensorProto]


def figures() -> Iterator[Figure]:
    """How many of the models were loaded, and how long the worst held the thread."""
    with onnx_trial.Trial() as trial:  # warm, as the import of onnxruntime is nobody's fault
        model.load(honest(), TOOL_TYPE, 1, trial.check)
        loaded, held = 0, []
        for kind, artifact in hostile():
            start = time.perf_counter()
            try:
                model.load(artifact, TOOL_TYPE, 1, trial.check)
            except ArtifactRefused:
                pass
            else:
                loaded += 1
                print(f"loaded: {kind}")
            held.append(time.perf_counter() - start)
    yield at_most(f"hostile models loaded, of {len(held)}", loaded, "models", 0)
    yield at_most("longest that one of them held the registry's thread", max(held), "s", 1.0)
    yield at_most("changed cached files accepted, of 2,500", _accepted(2_500), "files", 0)


def _accepted(mutations: int) -> int:
    """How many of so many changed files a cache takes for what was written."""
    whole, source, accepted = honest(), random.Random(11), 0
    with TemporaryDirectory() as folder:
        cache = ModelCache(Path(folder) / "cache", "http://127.0.0.1:1", "Production")
        cache.write("malearn-toy", 1, whole)
        (file,) = cache.directory.iterdir()
        logging.disable(logging.WARNING)  # one for each of them
        for _ in range(mutations):
            file.write_bytes(mutated(whole, source))
            accepted += cache.read("malearn-toy") is not None
        logging.disable(logging.NOTSET)
    return accepted


def mutated(whole: bytes, source: random.Random) -> bytes:
    """`whole` with bytes changed, left out, or put in."""
    changed, at = bytearray(whole), source.randrange(len(whole))
    match source.randrange(4):
        case 0:
            changed[at] ^= source.randint(1, 255)
        case 1:
            del changed[at : at + source.randint(1, 100)]
        case 2:
            changed[at:at] = source.randbytes(source.randint(1, 100))
        case _:
            changed[at] ^= 1 << source.randrange(8)
    return bytes(changed)


def honest() -> bytes:
    """What the others pretend to be."""
    return _file([], [])


def hostile() -> Iterator[tuple[str, bytes]]:
    """Each kind of hostile model, most in several sizes, by a name."""
    for make in (_operators, _loops, _bombs, _trees, _tensors, _containers, _metadata, _answers):
        yield from make()
    yield from _damaged()


def _metadata_of(**changes: Any) -> str:
    values: dict[str, Any] = {
        "tool_type": TOOL_TYPE.name,
        "family": "toy",
        "features": TOOL_TYPE.feature_names,
        "history": history.FEATURES,
        "run_id": "run",
        "dataset_version": 1,
        "trained_until": 0.0,
        "rows": 100,
        "seconds_range": (0.1, 1e4),
    }
    return ModelMetadata(**(values | changes)).to_json()


def _file(nodes: Nodes, tensors: Tensors, last: str = "weighed", **more: Any) -> bytes:
    """An honest model with `nodes` before its last, which adds 10 s to `last`."""
    return bytes(_proto(nodes, tensors, last, **more).SerializeToString())


def _proto(
    nodes: Nodes,
    tensors: Tensors,
    last: str = "weighed",
    metadata: str | None = None,
    opsets: Sequence[tuple[str, int]] = (("", 18), ("ai.onnx.ml", 3)),
) -> onnx.ModelProto:
    weights = np.zeros((WIDTH, 1), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", [INPUT], ["unknown"]),
            helper.make_node("Where", ["unknown", "zero", INPUT], ["known"]),
            helper.make_node("MatMul", ["known", "weights"], ["weighed"]),
            *nodes,
            helper.make_node("Add", [last, "bias"], [OUTPUT]),
        ],
        "toy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(weights, "weights"),
            _tensor("bias", 10),
            _tensor("zero", 0),
            *tensors,
        ],
    )
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    helper.set_model_props(proto, {KEY: metadata or _metadata_of()})
    return proto


def _tensor(name: str, values: Any, kind: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, kind), name)


_FOREIGN = """Abs Acos And ArgMax ArgSort AveragePool BatchNormalization Bernoulli BitShift
Ceil Celu Compress Concat ConcatFromSequence Constant Conv ConvTranspose Cos CumSum DFT
DepthToSpace Det Div Dropout Einsum Elu Equal Erf Expand EyeLike Flatten Floor GRU
GatherElements GatherND Gemm GlobalMaxPool Greater GridSample HardSigmoid Hardmax Identity
ImageDecoder InstanceNormalization IsInf LRN LSTM LeakyRelu Less Log LogSoftmax MatMulInteger
Max MaxPool MaxRoiPool MaxUnpool Mean MelWeightMatrix Min Mod Multinomial Neg NonMaxSuppression
NonZero Not OneHot Optional Or PRelu Pad Pow QLinearConv QuantizeLinear RNN RandomNormal
RandomUniform Range Reciprocal ReduceMax ReduceSum RegexFullMatch Resize ReverseSequence
RoiAlign Round STFT ScatterElements ScatterND Selu SequenceAt SequenceConstruct Shape Shrink
Sigmoid Sign Sin Size Slice Softmax SpaceToDepth Split Sqrt Squeeze StringConcat StringNormalizer
StringSplit Sub Sum Tan Tanh TfIdfVectorizer Tile TopK Transpose Trilu Unique Unsqueeze Upsample
Xor"""


def _operators() -> Iterator[tuple[str, bytes]]:
    """Operators that no exporter of ours emits, one by one; of other domains, too."""
    for operator in _FOREIGN.split():
        node = helper.make_node(operator, ["weighed"], ["foreign"])
        yield f"operator {operator}", _file([node], [], "foreign")
    for domain in ("com.microsoft", "ai.onnx", "ai.onnx.training", "evil", "ai.onnx.preview"):
        node = helper.make_node("Add", ["weighed", "bias"], ["foreign"], domain=domain)
        opsets = [("", 18), (domain, 1)]
        yield f"domain {domain}", _file([node], [], "foreign", opsets=opsets)
    for operator in ("SVMRegressor", "ZipMap", "StringConcat", "TreeEnsemble", "DictVectorizer"):
        node = helper.make_node(operator, ["known"], ["foreign"], domain="ai.onnx.ml")
        yield f"operator {operator}", _file([node], [], "foreign")


def _loops() -> Iterator[tuple[str, bytes]]:
    """Control flow: subgraphs, and functions by names that are allowed."""
    scalar = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["again"]),
            helper.make_node("Add", ["x", "x"], ["y"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            scalar,
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, []),
        ],
    )
    for turns in (10**6, 10**9, 2**62):
        node = helper.make_node("Loop", ["turns", "", "bias"], ["looped"], body=body)
        yield f"loop of {turns}", _file([node], [_tensor("turns", turns, np.int64)], "looped")
    for operator in ("If", "Scan", "SequenceMap"):
        node = helper.make_node(operator, ["weighed"], ["looped"], body=body)
        yield f"subgraph in {operator}", _file([node], [], "looped")
    for operator in ("Add", "Exp", "Clip"):  # allowed, but for what it carries
        node = helper.make_node(operator, ["weighed", "bias"], ["looped"], body=body)
        yield f"subgraph in {operator}", _file([node], [], "looped")
    for name in ("Add", "Exp"):
        proto = _proto([], [])
        loop = helper.make_node("Loop", ["n", "", "a"], ["b"], body=body)
        proto.functions.append(
            helper.make_function("", name, ["a", "n"], ["b"], [loop], [helper.make_opsetid("", 18)])
        )
        yield f"function named {name}", bytes(proto.SerializeToString())


def _bombs() -> Iterator[tuple[str, bytes]]:
    """Small files whose results are huge, folded at load or computed for each row."""
    for size in (10**6, 10**9, HUGE):
        shape = _tensor("shape", [size], np.int64)
        for operator in ("ConstantOfShape", "RandomNormalLike"):
            node = helper.make_node(operator, ["shape"], ["bomb"])
            yield f"{operator} of {size}", _file([node], [shape], "bomb")
        for operator in ("Expand", "Tile", "Pad", "Resize"):
            node = helper.make_node(operator, ["bias", "shape"], ["bomb"])
            yield f"{operator} to {size}", _file([node], [shape], "bomb")
    for size in (70_000, 300_000, 1_000_000):
        tall, wide = _tensor("tall", np.zeros((size, 1))), _tensor("wide", np.zeros((1, size)))
        for operator in ("Add", "Mul", "MatMul"):
            node = helper.make_node(operator, ["tall", "wide"], ["bomb"])
            yield f"{operator} of {size} by {size}", _file([node], [tall, wide], "bomb")
        row = helper.make_node("Add", ["weighed", "wide"], ["bomb"])
        yield f"rows of {size}", _file([row], [wide], "bomb")
        places = _tensor("places", np.zeros(size), np.int64)
        node = helper.make_node("Gather", ["known", "places"], ["bomb"], axis=1)
        yield f"Gather of {size}", _file([node], [places], "bomb")
    for shapes in (([-1], [1, -1]), ([1, -1], [-1, 1]), ([-1, 1], [1, -1])):
        tensors = [_tensor(f"s{i}", shape, np.int64) for i, shape in enumerate(shapes)]
        nodes = [helper.make_node("Reshape", ["known", f"s{i}"], [f"r{i}"]) for i in range(2)]
        nodes.append(helper.make_node("Add", ["r0", "r1"], ["bomb"]))
        yield f"rows times rows, {shapes}", _file(nodes, tensors, "bomb")
    node = helper.make_node("MatMul", ["known", "known"], ["bomb"])
    yield "rows times themselves", _file([node], [], "bomb")
    for to in (TensorProto.STRING, TensorProto.COMPLEX128, 99):
        node = helper.make_node("Cast", ["weighed"], ["bomb"], to=to)
        yield f"Cast to {to}", _file([node], [], "bomb")


def _trees() -> Iterator[tuple[str, bytes]]:
    """Trees that lead back, that are deeper than any stack, or that answer a billion numbers."""
    yield "tree that leads back", _tree([0, 1, 2], [1, 0, 0], [2, 2, 0], leaves=1)
    yield "tree that leads to itself", _tree([0, 1], [0, 0], [1, 0], leaves=1)
    yield "tree whose leaf comes first", _tree([1, 0], [0, 0], [0, 0], leaves=1)
    for depth in (20_000, 200_000):
        ids = list(range(2 * depth + 1))
        true = [i + 1 if i % 2 == 0 else 0 for i in ids]
        false = [i + 2 if i % 2 == 0 else 0 for i in ids]
        modes = ["BRANCH_LT" if i % 2 == 0 and i < 2 * depth else "LEAF" for i in ids]
        yield f"tree {depth} deep", _tree(ids, true, false, modes=modes)
    for targets in (0, 10**6, HUGE):
        yield f"tree with {targets} targets", _tree([0], [0], [0], leaves=1, n_targets=targets)
    yield "tree with fewer modes", _tree([0, 1, 2], [1, 0, 0], [2, 0, 0], modes=["LEAF"])
    for size in (1, 10**7):
        node = helper.make_node(
            "LinearRegressor", ["known"], ["bomb"], domain="ai.onnx.ml",
            coefficients=[0.0] * WIDTH, targets=size * 70_000,
        )  # fmt: skip
        yield f"linear with {size * 70_000} targets", _file([node], [], "bomb")


def _tree(
    ids: list[int],
    true: list[int],
    false: list[int],
    leaves: int = 0,
    modes: list[str] | None = None,
    n_targets: int = 1,
) -> bytes:
    count = len(ids)
    node = helper.make_node(
        "TreeEnsembleRegressor", ["known"], ["grown"], domain="ai.onnx.ml",
        n_targets=n_targets,
        nodes_nodeids=ids, nodes_treeids=[0] * count, nodes_featureids=[0] * count,
        nodes_truenodeids=true, nodes_falsenodeids=false, nodes_values=[0.5] * count,
        nodes_modes=modes or ["BRANCH_LT"] * (count - leaves) + ["LEAF"] * leaves,
        target_ids=[0], target_nodeids=[ids[-1]], target_treeids=[0], target_weights=[1.0],
    )  # fmt: skip
    return _file([node], [], "grown")


def _tensors() -> Iterator[tuple[str, bytes]]:
    """Initialisers that lie about their size, lie elsewhere, or are no numbers."""
    for dims in ([HUGE], [2**31, 2**31], [-1], [-5, -5], [2**62, 4]):
        tensor = TensorProto(name="lie", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"1234")
        yield f"initialiser of {dims}", _file([], [tensor])
    for place in ("model.data", "/etc/passwd", "../../secret", "/dev/zero"):
        tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        yield f"external data in {place}", _file([], [tensor])
    text = TensorProto(name="t", data_type=TensorProto.STRING, dims=[1], string_data=[b"x"])
    yield "initialiser of texts", _file([], [text])
    for kind in (TensorProto.UNDEFINED, TensorProto.COMPLEX128, TensorProto.FLOAT8E5M2, 77):
        tensor = TensorProto(name="odd", data_type=kind, dims=[1], raw_data=b"1")
        yield f"initialiser of type {kind}", _file([], [tensor])
    yield "large initialiser", _file([], [_tensor("large", np.zeros(2_000_000))])
    proto = _proto([], [])
    sparse = helper.make_sparse_tensor(_tensor("v", [1.0]), _tensor("i", [0], np.int64), [HUGE])
    proto.graph.sparse_initializer.append(sparse)
    yield "sparse initialiser", bytes(proto.SerializeToString())


def _containers() -> Iterator[tuple[str, bytes]]:
    """Far too many parts, parts twice, parts of another format."""
    nodes = [helper.make_node("Exp", ["weighed"], [f"n{i}"]) for i in range(5_000)]
    yield "5,000 nodes", _file(nodes, [])
    yield "5,000 initialisers", _file([], [_tensor(f"t{i}", 0.0) for i in range(5_000)])
    many = helper.make_node("Exp", ["weighed"], ["many"])
    many.attribute.extend(helper.make_attribute(f"a{i}", i) for i in range(100_000))
    yield "100,000 attributes", _file([many], [], "many")
    yield "over 16 MiB", honest() + b"\x0a" + bytes(17 * 2**20)
    yield "two graphs", honest() * 2
    again = helper.make_node("Exp", ["weighed"], ["known"])
    yield "a result twice", _file([again], [])
    yield "a result of nothing", _file([helper.make_node("Exp", ["nowhere"], ["n"])], [], "n")
    yield "ORT format", b"\x20\x00\x00\x00ORTM" + honest()
    for number in (26, 100, 2**28):
        yield f"field {number}", honest() + _varint(number << 3) + b"\x01"
    yield "groups in groups", honest() + b"\x0b" * 100_000
    yield "endless number", honest() + b"\x08" + b"\xff" * 100_000
    yield "length beyond the end", honest() + b"\x32" + _varint(HUGE)


def _metadata() -> Iterator[tuple[str, bytes]]:
    """Metadata that takes long to read, or is of the wrong types."""
    deep = '{"format":1,"clips":' + '{"a":' * 100_000
    texts = {
        "nested objects": deep,
        "nested lists": '{"format":1,"recent":' + "[" * 100_000,
        "9 million characters": _metadata_of(run_id="x" * 9_000_000),
        "30,000 executions": _metadata_of(recent=(("f", 0.0, 1.0, (), ()),) * 30_000),
        "2,000 features": _metadata_of(features=tuple(f"f{i}" for i in range(2_000))),
        "a feature twice": _metadata_of(features=("size", "size")),
        "a number too large": _metadata_of().replace('"rows":100', '"rows":' + "9" * 4_000),
        "a float too large": _metadata_of().replace('"rows":100', '"rows":1e999'),
        "a text as number": _metadata_of().replace('"rows":100', '"rows":"100"'),
        "a list as text": _metadata_of().replace('"run_id":"run"', '"run_id":["run"]'),
        "null": _metadata_of().replace('"seconds_range":[0.1,10000.0]', '"seconds_range":null'),
        "another tool type": _metadata_of(tool_type="other"),
        "another history": _metadata_of(history=("moon",)),
    }
    for kind, text in texts.items():
        yield f"metadata: {kind}", _file([], [], metadata=text)
    proto = _proto([], [])
    for number in range(100):
        proto.metadata_props.add(key=f"k{number}", value="v")
    yield "metadata: 100 keys", bytes(proto.SerializeToString())
    yield "metadata: no UTF-8", honest().replace(b'"family"', b'"fa\xffily"')


def _answers() -> Iterator[tuple[str, bytes]]:
    """Answers that are no times, and graphs of another signature."""
    for bias in (-100.0, float("nan"), float("inf"), float("-inf"), 0.0):
        node = helper.make_node("Mul", ["weighed", "zero"], ["none"])
        add = helper.make_node("Add", ["none", "wrong"], ["worse"])
        yield f"answers {bias}", _file([node, add], [_tensor("wrong", bias - 10)], "worse")
    for width in (1, WIDTH + 1, 70_000):
        proto = _proto([], [])
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = width
        yield f"reads {width} columns", bytes(proto.SerializeToString())
    proto = _proto([], [])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    yield "reads one row only", bytes(proto.SerializeToString())
    proto = _proto([], [])
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [None, 1]))
    yield "reads two inputs", bytes(proto.SerializeToString())


def _damaged() -> Iterator[tuple[str, bytes]]:
    """An honest file, cut and overwritten."""
    whole, source = honest(), random.Random(7)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        yield f"cut at {share:.0%}", whole[: int(len(whole) * share)]
    for number in range(10):
        yield f"noise {number}", source.randbytes(2_000)
    for start in range(0, 60, 10):  # the head says what everything behind it is
        damaged = bytearray(whole)
        damaged[start : start + 10] = struct.pack("<10B", *source.choices(range(128, 256), k=10))
        yield f"overwritten at {start}", bytes(damaged)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
