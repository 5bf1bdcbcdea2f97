"""What a check finds, decides and does: the rules on their own, then on a real MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import mlflow
import numpy as np
import pytest

from malearn.kernel.records import Execution
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes
from malearn.learning import export, matrix, regressor
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores
from malearn.lifecycle import live, logged_models, monitor_decision, monitoring, registry, runs
from malearn.lifecycle.drift import Drift
from malearn.lifecycle.monitor_decision import Action, MonitorDecision, MonitorState
from malearn.lifecycle.monitoring import FEWEST_ROWS, WINDOW
from malearn.lifecycle.registry import PREVIOUS, PRODUCTION

MOVED = Drift("pages", 0.6, 1e-9, True, 10.0, 50.0)
STILL = Drift("words", 0.1, 0.4, False, 10.0, 10.0)


def errors(**mae: float) -> dict[str, Scores]:
    """Scores that differ in their mean absolute error alone, in seconds."""
    known = {"function_median": 10.0, "function_ema": 10.0, "without_model": 10.0, **mae}
    return {name: Scores(40, e, e, 0.5, 0.1, 0.1, 0.9, 0.9) for name, e in known.items()}


def judged(
    state: MonitorState | None = None, drifts: tuple[Drift, ...] = (STILL,), **mae: float
) -> MonitorDecision:
    state = state or MonitorState()
    return monitor_decision.decide(errors(**mae), drifts, state, until=7.0)


def test_what_does_well_is_left_alone() -> None:
    verdict = judged(production=5.0, previous=6.0)
    assert verdict.action is Action.NOTHING
    assert verdict.state == MonitorState(until=7.0)
    assert "no competitor clearly better, no drift" in verdict.reasons[0]


def test_a_little_worse_is_not_worse() -> None:
    assert judged(production=10.5, previous=10.0, without_model=9.6).action is Action.NOTHING


def test_what_is_worse_once_is_watched_and_twice_is_rolled_back() -> None:
    first = judged(production=9.0, previous=5.0)
    assert (first.action, first.state.worse) == (Action.WARN, True)
    assert "more than 10 % above that of previous (5 s)" in first.reasons[0]
    second = judged(first.state, production=9.0, previous=5.0)
    assert (second.action, second.state.worse) == (Action.ROLL_BACK, False)
    assert second.reasons[-1] == "worse in two consecutive checks: roll back to the last version"
    assert not second.retrain


def test_a_good_check_in_between_begins_the_count_anew() -> None:
    state = judged(production=9.0, previous=5.0).state
    state = judged(state, production=4.0, previous=5.0).state
    assert judged(state, production=9.0, previous=5.0).action is Action.WARN


def test_worse_than_a_baseline_the_version_before_comes_back_if_it_does_better() -> None:
    verdict = judged(MonitorState(worse=True), production=20.0, previous=10.5)
    assert verdict.action is Action.ROLL_BACK


@pytest.mark.parametrize("previous", [{}, {"previous": 19.0}, {"previous": 12.0}])
def test_where_no_version_does_better_none_serves_and_another_is_wanted(
    previous: dict[str, float],
) -> None:
    verdict = judged(MonitorState(worse=True), production=20.0, **previous)
    assert verdict.action is Action.DISABLE_MODEL
    assert verdict.retrain
    assert "each function's recent durations (MAE 10 s)" in verdict.reasons[-1]


def test_where_nothing_at_hand_does_better_another_is_wanted() -> None:
    verdict = judged(MonitorState(worse=True), production=20.0, without_model=30.0)
    assert (verdict.action, verdict.retrain) == (Action.RETRAIN, True)


def test_drift_is_watched_once_and_retrained_for_twice() -> None:
    first = judged(drifts=(MOVED, STILL), production=5.0)
    assert (first.action, first.retrain) == (Action.WARN, False)
    assert first.reasons[0] == "pages drifted: distance 0.60, median 10 before, 50 now"
    second = judged(first.state, drifts=(MOVED,), production=5.0)
    assert (second.action, second.state.drifted) == (Action.RETRAIN, ())
    assert second.reasons[-1] == "two consecutive checks found drift in pages: retrain"


def test_another_drift_than_the_last_one_is_watched_first() -> None:
    state = judged(drifts=(MOVED,), production=5.0).state
    assert judged(state, (replace(MOVED, name="words"),), production=5.0).action is Action.WARN


def test_what_checks_found_survives_as_json() -> None:
    state = MonitorState(True, ("pages", "error"), 1.7e9)
    assert MonitorState.from_json(state.to_json()) == state
    assert MonitorState.from_json("") == MonitorState.from_json(None) == MonitorState()


# Live: what schedulers answered.


def told(executions: list[Execution], version: int | None, factor: float) -> list[Execution]:
    """Predictions on record, all off by the same factor."""
    return [replace(e, predicted=e.seconds * factor, model_version=version) for e in executions]


def test_predictions_are_judged_by_the_version_that_made_them(own_tool_type, synthetic) -> None:
    log = synthetic(own_tool_type, 90)
    mixed = [*told(log[:30], None, 3.0), *told(log[30:60], 1, 2.0), *told(log[60:], 2, 1.1)]
    report = live.score_live(mixed, ToolTypes([own_tool_type]))
    assert [one.version for one in report] == [2, 1, None]
    assert [one.scores.median_ape for one in report] == pytest.approx([0.1, 1.0, 2.0])
    assert {one.scores.n for one in report} == {30}
    assert {s.n for one in report for s in one.baselines.values()} == {30}
    assert all(0.0 <= one.coverage <= 1.0 for one in report)


def test_of_each_version_the_newest_answers_count(own_tool_type, synthetic) -> None:
    log = synthetic(own_tool_type, WINDOW + 100)
    mixed = [*told(log[:100], 1, 9.0), *told(log[100:], 1, 1.5)]
    (one,) = live.score_live(mixed, ToolTypes([own_tool_type]))
    assert one.scores.n == WINDOW
    assert one.scores.median_ape == pytest.approx(0.5)


def test_without_predictions_on_record_there_is_nothing_live(own_tool_type, synthetic) -> None:
    log = synthetic(own_tool_type, 20)
    assert live.score_live(log, ToolTypes([own_tool_type])) == ()
    assert live.fallback_share(log) is None


def test_the_fallback_share_is_that_of_answers_no_model_gave(own_tool_type, synthetic) -> None:
    log = synthetic(own_tool_type, 40)
    mixed = [*told(log[:10], None, 1.0), *told(log[10:30], 4, 1.0), *log[30:]]
    assert live.fallback_share(mixed) == pytest.approx(1 / 3)


# Checks against a real registry.


@pytest.fixture
def tool_type(request: pytest.FixtureRequest) -> ToolType:
    """One that MLflow has not heard of, of the same name in every run of a test."""
    name = request.node.name.replace("test", "watched", 1)
    features = (
        Feature("words", "tokens", 0, 5_000),
        Feature("pages", "pages", 0, 100),
        Feature("careful", "flag", 0, 1, default=0.0),
    )
    return ToolType(name, (name,), "cpu", features)


@pytest.fixture
def log(tool_type: ToolType, synthetic) -> list[Execution]:
    return synthetic(tool_type, 300)


def rows_of(tool_type: ToolType, log: list[Execution]) -> Matrix:
    return matrix.build(tool_type, log)


@pytest.fixture
def serve(connected: str, tool_type: ToolType) -> Callable[..., int]:
    """Lets a linear model serve that was fitted on `rows`, proven or not."""

    def with_model(rows: Matrix, upside_down: bool = False) -> int:
        taught = replace(rows, seconds=50.0 / rows.seconds) if upside_down else rows
        fitted = regressor.fit("linear", taught)
        model = export.to_onnx(fitted, export.metadata_for(fitted, rows, "", 1))
        mlflow.set_experiment("monitoring tests")
        with mlflow.start_run() as run:
            uri = logged_models.log_onnx(model, rows)
            runs.log_errors(np.log(fitted.seconds(rows.inputs) / rows.seconds))
        number = registry.register(tool_type, uri, run.info.run_id, {"malearn.family": "linear"})
        registry.move(tool_type, PRODUCTION, number)
        return number

    return with_model


def checked(
    tool_type: ToolType, log: list[Execution]
) -> tuple[monitoring.MonitorReport, int | None]:
    """One check of what came in so far, and which version serves after it."""
    report = monitoring.check(rows_of(tool_type, log), ToolTypes([tool_type]))
    return report, monitoring.act(report, tool_type)


def test_where_nothing_serves_there_is_nothing_to_judge(connected, tool_type, log) -> None:
    report, serving = checked(tool_type, log)
    assert (report.decision.action, report.rows, serving) == (Action.NOTHING, 0, None)
    assert "no version serves" in report.decision.reasons[0]


def test_a_check_waits_for_enough_and_scores_nothing_twice(serve, tool_type, log) -> None:
    number = serve(rows_of(tool_type, log[:150]))
    early, _ = checked(tool_type, log[: 150 + FEWEST_ROWS - 10])
    assert early.decision.reasons[0].endswith(f"new executions; a check needs {FEWEST_ROWS}")

    first, serving = checked(tool_type, log[:220])
    assert (first.decision.action, serving) == (Action.NOTHING, number)
    assert set(first.scores) == {
        "production", "function_median", "function_ema", "function_ema_6", "same_inputs", "stack",
        "without_model",
    }  # fmt: skip
    assert {d.name for d in first.drifts} == {"words", "pages", "careful", "seconds", "error"}

    again, _ = checked(tool_type, log[:220])
    assert (again.rows, again.scores) == (0, {})
    second, _ = checked(tool_type, log)
    assert first.rows + second.rows <= len(log) - 150
    assert second.decision.state.until == max(e.end for e in log)


def test_an_execution_dated_in_the_future_does_not_end_monitoring(serve, tool_type, log) -> None:
    """What a check has seen reaches to its own moment, whatever the clock of a worker says."""
    serve(rows_of(tool_type, log[:150]))
    moment = log[219].end
    ahead = replace(log[0], task_id=f"{log[0].task_id}-ahead", start=moment + 9e8, end=moment + 1e9)
    rows = rows_of(tool_type, [*log[:220], ahead])
    first = monitoring.check(rows, ToolTypes([tool_type]), now=moment)
    assert first.rows and first.decision.state.until == moment
    monitoring.act(first, tool_type)
    second, _ = checked(tool_type, [*log, ahead])
    assert second.rows > 1


def test_a_bad_version_is_rolled_back_by_the_second_check(serve, tool_type, log) -> None:
    good = serve(rows_of(tool_type, log[:150]))
    bad = serve(rows_of(tool_type, log[:150]), upside_down=True)
    first, serving = checked(tool_type, log[:220])
    assert (first.decision.action, serving) == (Action.WARN, bad)
    assert first.scores["production"].mae > first.scores["previous"].mae

    second, serving = checked(tool_type, log)
    assert (second.decision.action, serving) == (Action.ROLL_BACK, good)
    assert registry.by_alias(tool_type, PRODUCTION).number == good
    assert registry.by_alias(tool_type, PREVIOUS).number == bad
    why = registry.version(tool_type, bad).tags["malearn.unpublished"]
    assert "roll back to the last version" in why


def test_a_bad_version_with_none_before_it_is_disabled(serve, tool_type, log) -> None:
    serve(rows_of(tool_type, log[:150]), upside_down=True)
    checked(tool_type, log[:220])
    second, serving = checked(tool_type, log)
    assert (second.decision.action, serving) == (Action.DISABLE_MODEL, None)
    assert registry.by_alias(tool_type, PRODUCTION) is None


def test_another_regime_is_noticed_though_predictions_follow_it(serve, tool_type, log) -> None:
    """The level follows within a few tasks; what a model learnt beside it may be of no use now."""
    serve(rows_of(tool_type, log[:150]))
    slower = [replace(e, end=e.start + 5.0 * e.seconds) for e in log[150:]]
    first, _ = checked(tool_type, [*log[:150], *slower[:75]])
    drifted = {d.name for d in first.drifts if d.found}
    assert "seconds" in drifted
    assert "words" not in drifted
    second, _ = checked(tool_type, [*log[:150], *slower])
    assert second.decision.action is Action.RETRAIN
    assert math.isfinite(second.decision.state.until)


def test_checks_are_points_on_the_curves_of_one_run(serve, tool_type, log) -> None:
    serve(rows_of(tool_type, log[:150]))
    for until in (220, 300):
        report, _ = checked(tool_type, log[:until])
        run_id = runs.log_monitoring(tool_type, report.metrics(), {})
    history = mlflow.MlflowClient().get_metric_history(run_id, "mae/production")
    assert [point.step for point in history] == [1, 2]
    assert {"mae/function_ema", "drift/words", "serving/version"} <= set(
        mlflow.get_run(run_id).data.metrics
    )
