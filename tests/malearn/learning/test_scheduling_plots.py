"""The plots of a simulation show what was simulated, and nothing that looks like another."""

from __future__ import annotations

import math

import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from malearn.learning import scheduling_plots, simulation
from malearn.learning.policy_comparison import Comparison
from tests.malearn.learning.test_policy_comparison import compare, run

KINDS = ("slow", 90.0), ("quick", 3.0), ("usual", 20.0)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    """Five runs under all policies, forty workflows in the last."""
    runs = [
        run(f"run{n}", *[KINDS[(n + at) % 3] for at in range(40 if n == 4 else 5)], at=1e4 * n)
        for n in range(5)
    ]
    return compare(*runs, slots={"gpu": 2}, loads=(0.9, None), deadlines=(2.0, 1.5, 3.0))


def texts(figure: Figure) -> str:
    (axes,) = figure.axes
    title = figure.get_suptitle()
    return "\n".join([title, axes.get_title("left"), axes.get_xlabel()])


def test_gains_are_drawn_in_per_cent_with_their_intervals(compared: Comparison) -> None:
    figure = scheduling_plots.completions(compared)
    figure.canvas.draw()
    (axes,) = figure.axes
    bars = [one for one in axes.containers if isinstance(one, BarContainer)]
    with_seconds = [p for p in simulation.POLICIES if p not in simulation.WITHOUT_SECONDS]
    gains = [compared.gain(policy, "malearn").mean for policy in with_seconds]
    (ours,) = (one for one in bars if one.get_label() == "malearn")
    assert [bar.get_width() for bar in ours] == pytest.approx(gains)
    assert [one.get_label() for one in bars] == [
        "function_ema", "malearn", "noise_limited", "oracle",
    ]  # fmt: skip
    assert sum(isinstance(one, ErrorbarContainer) for one in axes.containers) == len(bars)
    assert "95 % interval over runs" in texts(figure)
    said = [one.get_text() for one in axes.texts]
    assert len(said) == len(simulation.WITHOUT_SECONDS)
    assert axes.get_xticklabels()[0].get_text().endswith("%")


def test_titles_say_what_was_simulated(compared: Comparison) -> None:
    what = (
        "load 0.9 and arrivals as recorded, 2 gpu slots; 60 workflows of 5 runs, "
        "1 simulation of each run"
    )
    for figure in (scheduling_plots.completions(compared), scheduling_plots.lateness(compared)):
        assert what in texts(figure)
    said = texts(scheduling_plots.gantt(compared))
    assert "a colour for each of 40 workflows" in said
    assert "run4 under triage, predictions by malearn, load 0.9, 2 gpu slots" in said


def test_no_two_policies_look_alike_and_ticks_are_where_deadlines_were(
    compared: Comparison,
) -> None:
    (axes,) = scheduling_plots.lateness(compared).axes
    lines = axes.get_lines()
    assert len(lines) == len(simulation.POLICIES)
    assert len({to_hex(line.get_color()) for line in lines}) == len(lines)
    assert len({line.get_marker() for line in lines}) == len(lines)
    assert len({line.get_linestyle() for line in lines}) > 3
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1.5", "2", "3"]
    assert list(axes.get_xticks()) == [1.5, 2.0, 3.0]


def test_each_workflow_has_a_colour_of_its_own(compared: Comparison) -> None:
    (axes,) = scheduling_plots.gantt(compared).axes
    assert len({to_hex(bar.get_facecolor()) for bar in axes.patches}) == 40
    assert {label.get_text() for label in axes.get_yticklabels()} == {"gpu 1", "gpu 2"}


def test_few_runs_have_no_intervals_and_constants_alone_no_gain() -> None:
    few = compare(run("one", *KINDS), run("two", *KINDS, at=1e4))
    assert math.isnan(few.gain("srw", "malearn").low)
    alone = compare(run("one", *KINDS), predictors=("default",))
    without = compare(run("one", *KINDS), policies=("fcfs",))
    for one in (few, alone, without):
        for figure in scheduling_plots.of_comparison(one).values():
            figure.canvas.draw()
        assert "interval" not in texts(scheduling_plots.completions(one))
