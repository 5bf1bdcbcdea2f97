"""How much of a dataset nobody has learnt from yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes
from malearn.learning import matrix
from malearn.lifecycle import training, untrained
from malearn.lifecycle.training import DatasetVersion


@pytest.mark.usefixtures("connected")
def test_counts_what_came_after_the_newest_version_and_what_came_late(
    own_tool_type: ToolType, synthetic, home: Home
) -> None:
    dataset = Dataset.open(home, own_tool_type)
    early, *rest = synthetic(own_tool_type, 101)
    assert untrained.count(dataset) == 0
    dataset.append(rest[:80])
    assert untrained.count(dataset) == 80

    rows = matrix.build(own_tool_type, dataset.read())
    source = DatasetVersion(str(dataset.path), dataset.version)
    training.train(rows, ToolTypes([own_tool_type]), source, families=("linear",))
    assert untrained.count(dataset) == 0
    dataset.append(rest[80:])
    dataset.append([early])  # older than all that the version has seen
    assert untrained.count(dataset) == 21

    wider = replace(own_tool_type, features=(*own_tool_type.features, Feature("new")))
    assert untrained.count(Dataset.open(home, wider)) == 101
