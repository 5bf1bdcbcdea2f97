"""How much of a dataset nobody has learnt from yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from malearn import matrix, training, unlearnt
from malearn.dataset import Dataset
from malearn.home import Home
from malearn.tool_types import Feature, ToolType, ToolTypes
from malearn.training import Source


@pytest.mark.usefixtures("connected")
def test_counts_what_came_after_the_newest_version_and_what_came_late(
    own_tool_type: ToolType, synthetic, home: Home
) -> None:
    dataset = Dataset.of(home, own_tool_type)
    early, *rest = synthetic(own_tool_type, 101)
    assert unlearnt.count(dataset) == 0
    dataset.append(rest[:80])
    assert unlearnt.count(dataset) == 80

    rows = matrix.build(own_tool_type, dataset.read())
    source = Source(str(dataset.path), dataset.version)
    training.train(rows, ToolTypes([own_tool_type]), source, families=("linear",))
    assert unlearnt.count(dataset) == 0
    dataset.append(rest[80:])
    dataset.append([early])  # older than all that the version has seen
    assert unlearnt.count(dataset) == 21

    wider = replace(own_tool_type, features=(*own_tool_type.features, Feature("new")))
    assert unlearnt.count(Dataset.of(home, wider)) == 101
