"""Two versions on the same rows: what is called better must be so, and not by chance."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from malearn.learning import comparison_plots, version_comparison
from malearn.learning.version_comparison import VersionComparison


def compared(first_noise: float, second_noise: float, n: int = 200, **changes) -> VersionComparison:
    dice = np.random.default_rng(1)
    actual = np.exp(dice.normal(2.0, 0.5, n))
    predicted = tuple(
        actual * np.exp(dice.normal(0.0, noise, n)) for noise in (first_noise, second_noise)
    )
    functions = changes.get("functions", ["<f>" if i % 4 else "g" for i in range(n)])
    states = ["steady"] * (n - 10) + ["cold"] * 10
    seen = changes.get("seen", (0, 0))
    return version_comparison.compare("toy", (3, 5), actual, predicted, functions, states, seen)


def test_a_clearly_better_version_is_named() -> None:
    done = compared(0.5, 0.1)
    assert done.overall.better == 1
    assert done.verdict.startswith("version 5 is significantly better than version 3 ")
    assert done.overall.high < 0.0
    assert compared(0.1, 0.5).verdict.startswith("version 3 is significantly better")


def test_two_equals_are_not_told_apart() -> None:
    done = compared(0.3, 0.3)
    assert done.overall.better is None
    assert "not told apart" in done.verdict
    same = np.full(20, 3.0)
    equal = version_comparison.compare(
        "toy", (1, 2), same, (same, same), ["f"] * 20, ["steady"] * 20, (0, 0)
    )
    assert (equal.overall.better, equal.overall.p_value) == (None, 1.0)


def test_every_function_and_state_has_its_own_line() -> None:
    done = compared(0.5, 0.1)
    lines = {(g.kind, g.name): g.n for g in done.groups}
    assert lines == {
        ("function", "<f>"): 150,
        ("function", "g"): 50,
        ("state", "steady"): 190,
        ("state", "cold"): 10,
    }
    assert sum(g.n for g in done.groups if g.kind == "function") == done.n
    weighed = sum(g.mae[0] * g.n for g in done.groups if g.kind == "state") / done.n
    assert weighed == pytest.approx(done.overall.mae[0])


def test_a_handful_of_rows_proves_nothing() -> None:
    done = compared(0.5, 0.1, functions=["rare"] * 4 + ["f"] * 196)
    (rare,) = (g for g in done.groups if g.name == "rare")
    assert (rare.p_value, rare.better) == (None, None)


def test_the_more_groups_are_looked_at_the_less_each_p_value_says() -> None:
    one = compared(0.4, 0.3, functions=["f"] * 200)
    many = compared(0.4, 0.3, functions=["f"] * 150 + [f"g{i // 10}" for i in range(50)])
    assert one.groups[0].p_value == pytest.approx(one.overall.p_value)
    assert many.groups[0].p_value > one.overall.p_value


def test_rows_that_a_version_knows_are_said() -> None:
    assert "neither version was trained on any" in compared(0.3, 0.2).note
    note = compared(0.3, 0.2, seen=(12, 0)).note
    assert "12 of them are known to version 3, which looks better for it" in note


def test_the_page_holds_tables_and_figures_and_loads_nothing() -> None:
    done = compared(0.5, 0.1)
    figures = comparison_plots.of_versions(done)
    page = comparison_plots.page(done, figures, datetime(2026, 1, 2, tzinfo=UTC))
    assert "Version 5 is significantly better" in page
    assert "&lt;f&gt;" in page
    assert "<f>" not in page
    assert page.count("data:image/png;base64,") == len(figures) == 2
    assert "http" not in page
