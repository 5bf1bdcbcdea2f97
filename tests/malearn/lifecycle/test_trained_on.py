"""Until when a version was trained, whatever clocks wrote its executions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from malearn.lifecycle import trained_on


@pytest.mark.parametrize(("latest", "until"), [(900.0, 900.0), (4e9, 1000.0)])
def test_an_execution_dated_into_the_future_does_not_count_as_seen(
    latest: float, until: float
) -> None:
    version: Any = SimpleNamespace(created=1000.0)
    metadata: Any = SimpleNamespace(trained_until=latest)
    assert trained_on.until(version, metadata) == until
