"""The flow that checks the serving models, and retrains or rolls back where that is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from malearn.data import execution_window, locks, redis_client
from malearn.data.dataset import Dataset
from malearn.flows import failure, figures, news, parameters, progress, workflow_progress
from malearn.flows.retrain import RetrainOutcome, renew
from malearn.flows.train import load, workflow_scores
from malearn.kernel import generic, text
from malearn.kernel.errors import MalearnError
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import matrix, plots
from malearn.learning.matrix import Matrix
from malearn.lifecycle import mlflow_connection, mlflow_pages, monitoring, promotion, runs
from malearn.lifecycle.live import LiveAccuracy
from malearn.lifecycle.monitor_decision import Action
from malearn.lifecycle.monitoring import MonitorReport
from malearn.lifecycle.promotion import ManualPromotion

__all__ = ["MonitorOutcome", "monitor"]

_DONE = {
    Action.NOTHING: "nothing to do",
    Action.WARN: "warning",
    Action.RETRAIN: "retraining",
    Action.ROLL_BACK: "rolled back",
    Action.DISABLE_MODEL: "the model is disabled",
}

#: Executions that new ones are compared with, where they are older than those read anyway.
#: Not all that a model was trained on: replaying a million rows takes minutes and gigabytes.
_REFERENCE = 1_000

#: Of the table of live predictions; the last two are the MAE of the baselines, in seconds.
_LIVE_COLUMNS = (
    "version",
    "answers",
    "MAE, s",
    "median error",
    "pairwise accuracy",
    "covered",
    "median",
    "EMA",
)


@dataclass(frozen=True, slots=True)
class MonitorOutcome:
    """What one run of the monitor found for a tool type, and what it did.

    `manual` is set if a person had moved the alias. `production` is the version in Production
    afterwards; `retrained` the result of a retraining, if one was run here rather than requested.
    `page` is the address of the tool type's curves in MLflow.
    """

    report: MonitorReport
    manual: ManualPromotion | None
    production: int | None
    retrained: str | None = None
    page: str | None = None


@flow(
    name="monitor",
    flow_run_name="monitor",
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def monitor(
    tools: parameters.ToolTypeNames = (), home: parameters.Home = None
) -> Mapping[str, MonitorOutcome]:
    """Compare predictions with outcomes, tool type by tool type, and act on what that shows.

    `tools` are tool types; without any, all are checked. A retraining is requested by the
    event `news.DRIFT`; outside a deployment, where no automation may listen, it also runs here.
    MLflow is at `$MLFLOW_TRACKING_URI`.
    """
    types = generic.declared(Home.find(home))
    progress.tag(*tools)
    watched = {name: _watch(types[name], types, home) for name in tools or types}
    create_markdown_artifact(
        "\n\n".join([*(_described(name, one) for name, one in watched.items()), *_workflows()]),
        key="monitor",
        description="How the models in Production perform, and what was done about it",
    )
    for name, one in watched.items():
        progress.finished(f"{name}: {_line(one)}")
    return watched


def _workflows() -> list[str]:
    """How intervals of whole workflows did, where the Redis of the schedulers is known."""
    url = os.environ.get(redis_client.REDIS_SETTING)
    if not url:
        return []
    try:
        return [workflow_progress.described(workflow_progress.coverage(url))]
    except MalearnError as error:
        get_run_logger().warning("Whole workflows are not reported: %s", error)
        return []


def _watch(tool_type: ToolType, types: ToolTypes, home: str | None) -> MonitorOutcome:
    name, log = tool_type.name, get_run_logger()
    log.info("Checking %s", name)
    with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        dataset = Dataset.open(Home.find(home), tool_type)
        rows, _ = load(dataset, window=execution_window.TAIL)
        # First: a version that fails verification loses the alias, so another one is checked.
        manual = promotion.verify_manual_promotion(
            rows, lambda: workflow_scores(Home.find(home), types)
        )
        if manual is not None and not manual.promoted.promoted:
            # Logged, not raised: the tool type is still to be checked, and the others after it.
            log.error("%s", _refused(name, manual))
        # A function: older rows are read only where those here do not reach back far enough.
        report = check(rows, types, partial(_older, dataset))
        # A retraining that moved the alias between the check and this would be rolled back.
        with locks.retrain_lock(Home.find(home), tool_type):
            serving = monitoring.act(report, tool_type)
        page = chart(report, tool_type) if report.rows else None
    figures.checked(Home.find(home), name, report)
    if report.decision.action in (Action.ROLL_BACK, Action.DISABLE_MODEL):
        instead = f"version {serving} is in its place" if serving else "no model is"
        about = {"version": report.production, "why": _why(report), "instead": instead}
        emit_event(news.WITHDRAWN, news.resource(name), payload=about)
    retrained = None
    if report.decision.retrain:
        about = {"version": report.production, "why": _why(report)}
        emit_event(news.DRIFT, news.resource(name), payload=about)
        # Within a deployment an automation reacts to the event; both would retrain twice.
        if deployment.id is None:
            outcome = renew(name, home, "drift")
            retrained, serving = _retrained(outcome), outcome.production
    return MonitorOutcome(report, manual, serving, retrained, page)


@task(cache_policy=NO_CACHE)
def check(
    rows: Matrix, types: ToolTypes, older: Callable[[float], Matrix] | None = None
) -> MonitorReport:
    """Compare the predictions of every model and baseline with the outcomes."""
    return monitoring.check(rows, types, older)


def _older(dataset: Dataset, moment: float) -> Matrix:
    """The newest executions that started before `moment`: those that a model was trained on."""
    window = execution_window.read(dataset, _REFERENCE, before=moment)
    return matrix.build(dataset.tool_type, window.executions, window.before)


@task(cache_policy=NO_CACHE)
def chart(report: MonitorReport, tool_type: ToolType) -> str:
    """Log a point per curve of the tool type, and its plots, to MLflow; returns their page."""
    ours = report.predicted["production"]
    others = {name: p for name, p in report.predicted.items() if name != "production"}
    figures = {
        "error_over_time": plots.error_over_time(
            report.actual,
            {"production": ours, **others},
            f"{tool_type.name}: error over time, "
            f"the newest {text.counted(report.rows, 'execution')}",
        ),
        "predicted_against_actual": plots.predicted_against_actual(
            report.actual,
            ours,
            f"{tool_type.name} v{report.production}: the newest {report.rows}",
        ),
    }
    return mlflow_pages.run_page(runs.log_monitoring(tool_type, report.metrics(), figures))


def _retrained(outcome: RetrainOutcome) -> str:
    """The result of a retraining, in words."""
    version = outcome.trained.version
    if version is None:
        return outcome.why
    if version == outcome.production:
        return f"version {version} was promoted: {outcome.why}"
    return f"version {version} is not promoted: {outcome.why}"


def _why(report: MonitorReport) -> str:
    return "; ".join(report.decision.reasons)


def _line(watched: MonitorOutcome) -> str:
    report = watched.report
    return f"{_DONE[report.decision.action]}, {_why(report)}"


def _refused(name: str, manual: ManualPromotion) -> str:
    instead = (
        f"version {manual.production} is in Production"
        if manual.production
        else "no version is in Production"
    )
    return (
        f"{name}: version {manual.moved_to} was given the alias Production in MLflow but failed "
        f"verification ({manual.promoted.why}); {instead}"
    )


def _described(name: str, watched: MonitorOutcome) -> str:
    """One tool type in Markdown: what was done and why, then the numbers behind it."""
    report = watched.report
    production = f"version {watched.production}" if watched.production else "no version"
    lines = [
        f"## {name}: {_DONE[report.decision.action]}",
        "",
        f"In Production now: {production}.",
        "",
    ]
    if (manual := watched.manual) is not None:
        lines.append(f"- {_manual_promotion(name, manual)}")
    lines += [f"- {reason}" for reason in report.decision.reasons]
    if watched.retrained:
        lines.append(f"- retrained: {watched.retrained}")
    if report.scores:
        replayed = text.counted(report.rows, "execution")
        lines += ["", f"Replayed on {replayed} that no earlier check had scored.", ""]
        lines += _table(
            ("predictor", "MAE, s", "median error", "pairwise accuracy"),
            [
                (who, f"{s.mae:.3g}", f"{s.median_ape:.0%}", f"{s.pairwise_accuracy:.0%}")
                for who, s in sorted(report.scores.items(), key=lambda item: item[1].mae)
            ],
        )
    if report.live:
        lines += [
            "",
            "Predictions that schedulers used, and the baselines on the same tasks.",
            "",
        ]
        lines += _table(
            _LIVE_COLUMNS,
            [_live_row(one) for one in report.live],
        )
    if report.drifts:
        lines += [
            "",
            "Distance from the training executions (two-sample Kolmogorov–Smirnov).",
            "",
        ]
        lines += _table(
            ("what", "distance", "p", "median in training", "median now"),
            [
                (
                    f"**{d.name}**" if d.found else d.name,
                    f"{d.distance:.2f}",
                    f"{d.p_value:.1g}",
                    f"{d.before:.3g}",
                    f"{d.now:.3g}",
                )
                for d in report.drifts
            ],
        )
    if watched.page:
        lines += ["", f"[Curves over time in MLflow]({watched.page})"]
    return "\n".join(lines)


def _manual_promotion(name: str, manual: ManualPromotion) -> str:
    if not manual.promoted.promoted:
        return _refused(name, manual)
    return (
        f"a person gave version {manual.moved_to} the alias Production in MLflow; "
        f"version {manual.promoted.version} is verified"
    )


def _live_row(one: LiveAccuracy) -> tuple[str, ...]:
    s, baselines = one.scores, one.baselines
    return (
        str(one.version or "no model"),
        str(s.n),
        f"{s.mae:.3g}",
        f"{s.median_ape:.0%}",
        f"{s.pairwise_accuracy:.0%}",
        f"{one.coverage:.0%}",
        *(f"{baselines[name].mae:.3g}" for name in ("function_median", "function_ema")),
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (header, marks, *rows)]
