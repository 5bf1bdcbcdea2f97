"""DAPS prefers what is nearly done, then what much depends on."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from malearn.serving import daps

counts = st.integers(-5, 10_000)
times = st.floats(allow_nan=True)


def test_the_formula_is_the_schedulers() -> None:
    urgency = daps.urgency(remaining_inferences=3, max_known_inferences=4)
    criticality = daps.criticality(predicted_seconds=15.0, expected_dag_seconds=60.0)
    assert daps.score(urgency, criticality) == 2 * 0.25 + 1 * 0.25


def test_weights_may_be_chosen() -> None:
    assert daps.score(0.5, 0.5, urgency_weight=0.0, criticality_weight=4.0) == 2.0


@given(counts, counts)
def test_urgency_lies_between_0_and_1(remaining: int, most: int) -> None:
    assert 0.0 <= daps.urgency(remaining, most) <= 1.0


@given(times, times)
def test_criticality_is_a_number_whatever_is_predicted(predicted: float, expected: float) -> None:
    assert not math.isnan(daps.criticality(predicted, expected))
    assert daps.criticality(predicted, expected) >= 0.0


@given(st.integers(0, 100), st.integers(1, 100))
def test_the_fewer_remain_the_more_urgent(remaining: int, most: int) -> None:
    assert daps.urgency(remaining, most) >= daps.urgency(remaining + 1, most)


def test_the_example_scheduler_runs_every_query_to_its_end() -> None:
    example = Path(__file__).parents[2] / "docs" / "scheduler.py"
    environment = os.environ | {"MALEARN_REDIS_URL": "redis://127.0.0.1:1"}
    command = [sys.executable, str(example)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean completion") == 2
