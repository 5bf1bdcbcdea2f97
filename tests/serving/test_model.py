"""An artifact is served only when it is what it should be; otherwise it is refused by name."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from malearn.kernel.errors import ArtifactRefused
from malearn.kernel.onnx import onnx_file
from malearn.kernel.tool_types import Feature, ToolType
from malearn.serving import model


def test_a_good_one_answers(toy: Any, tool_type: ToolType) -> None:
    loaded = model.load(toy(), tool_type, 4)
    row = loaded.row((3.0, 2.0), [0.0] * len(loaded.metadata.history))
    assert loaded.seconds(row) == 15.0
    two = np.ones((2, 2)), np.zeros((2, len(loaded.metadata.history)))
    assert loaded.many(*two) == [12.0, 12.0]
    assert loaded.version == 4


def test_threads_that_share_a_model_get_each_their_own_answers(
    toy: Any, tool_type: ToolType
) -> None:
    loaded = model.load(toy(), tool_type, 1)
    answers: dict[int, set[float]] = {size: set() for size in range(4)}

    def ask(size: int) -> None:
        row = loaded.row((float(size), 1.0), [0.0] * len(loaded.metadata.history))
        answers[size] = {loaded.seconds(row) for _ in range(2000)}

    threads = [threading.Thread(target=ask, args=(size,)) for size in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {size: {11.0 + size} for size in range(4)}


def test_features_in_another_order_are_put_right(toy: Any, tool_type: ToolType) -> None:
    loaded = model.load(toy(features=("words", "size")), tool_type, 1)
    assert loaded.row((3.0, 2.0), ()) == (2.0, 3.0)
    values, history = np.array([[3.0, 2.0]]), np.zeros((1, len(loaded.metadata.history)))
    assert loaded.many(values, history) == [15.0]


def test_what_is_declared_no_more_is_missing_from_then_on(
    toy: Any, tool_type: ToolType, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = model.load(toy(features=("luck", "size")), tool_type, 1)
    assert str(loaded.row((3.0, 2.0), ())) == "(nan, 3.0)"
    assert (
        "version 1 reads features that are no longer declared, now always missing: luck"
        in caplog.text
    )


@pytest.mark.parametrize("found", [("pages", "tokens"), ()])
def test_a_generic_tool_types_features_are_those_of_its_model(
    toy: Any, found: tuple[str, ...]
) -> None:
    """A head that was never told what others found takes it from the model."""
    here = ToolType("other", (), "cpu", (), generic=True)
    there = ToolType("other", (), "cpu", tuple(map(Feature, found)), generic=True)
    loaded = model.load(toy(tool_type=there), here, 1).reordered(there)
    row = loaded.row((3.0, 2.0)[: len(found)], [0.0] * len(loaded.metadata.history))
    assert loaded.seconds(row) == (15.0 if found else 10.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metadata": None}, "has no malearn metadata"),
        ({"format": 99}, "not of format"),
        ({"history": ("moon_phase",)}, "history features"),
        ({"features": ("luck", "mood")}, "nobody declares: luck, mood"),
        ({"columns": 5}, "not (any,"),
        ({"flat": True}, "MatMul does not multiply two matrices"),
        ({"bias": -5.0}, "non-positive duration"),
        ({"bias": float("nan")}, "non-positive duration"),
        ({"clips": {"size": (-1e9, 1.0)}}, "non-positive duration"),
    ],
)
def test_others_are_refused_with_the_reason(
    toy: Any, tool_type: ToolType, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ArtifactRefused) as refusal:
        model.load(toy(**changes), tool_type, 7)
    assert f"{tool_type.registered_model} version 7 is refused" in str(refusal.value)
    assert reason in str(refusal.value)


def test_another_tool_types_model_is_refused(toy: Any, tool_type: ToolType) -> None:
    other = ToolType("other", ("other",), "gpu", tool_type.features)
    with pytest.raises(ArtifactRefused, match="predicts other, not toy_"):
        model.load(toy(tool_type=other), tool_type, 1)


@pytest.mark.parametrize("damage", [b"", b"no model", "half", "flipped"])
def test_a_damaged_file_is_refused(toy: Any, tool_type: ToolType, damage: Any) -> None:
    whole = toy()
    broken = {"half": whole[: len(whole) // 2], "flipped": bytes(b ^ 255 for b in whole)}
    with pytest.raises(ArtifactRefused, match="version 1 is refused: "):
        model.load(broken.get(damage, damage), tool_type, 1)


def test_an_oversized_file_is_refused_unread(tool_type: ToolType) -> None:
    with pytest.raises(ArtifactRefused, match="larger than 16 MiB"):
        model.load(bytes(onnx_file.LARGEST + 1), tool_type, 1)
