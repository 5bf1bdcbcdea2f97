"""The flow that looks at what serves, and retrains or rolls back where that is called for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from malearn.data import locks
from malearn.data.dataset import Dataset
from malearn.flows import failure, news, progress
from malearn.flows.retrain import Outcome, renew
from malearn.flows.train import load
from malearn.kernel import tool_types
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import plots
from malearn.learning.matrix import Matrix
from malearn.lifecycle import monitoring, promotion, tracking
from malearn.lifecycle.monitoring import Action, Live, Look
from malearn.lifecycle.promotion import Followed

__all__ = ["Watched", "monitor"]

_DONE = {
    Action.NOTHING: "nothing to do",
    Action.WATCH: "something is wrong, and watched",
    Action.RETRAIN: "another model is wanted",
    Action.ROLL_BACK: "rolled back",
    Action.WITHDRAW: "withdrawn",
}


@dataclass(frozen=True, slots=True)
class Watched:
    """What one pass saw and did: to an alias that a person moved, and to what serves.

    `production` serves afterwards; `retrained` says what came of a retraining, where one was
    made here rather than asked for. `page` shows the tool type's curves in MLflow.
    """

    look: Look
    followed: Followed | None
    production: int | None
    retrained: str | None = None
    page: str | None = None


@flow(
    name="monitor",
    flow_run_name="monitor",
    validate_parameters=False,
    on_failure=[failure.told],
)
def monitor(tools: Sequence[str] = (), home: str | None = None) -> Mapping[str, Watched]:
    """Compare predictions with outcomes, tool type by tool type, and act on what that shows.

    `tools` are tool types; without any, all are looked at. A retraining is asked for by the
    event `news.DRIFT`; outside a deployment, where nobody may listen, it is also made here.
    MLflow is at `$MLFLOW_TRACKING_URI`.
    """
    types = tool_types.declared()
    progress.tag(*tools)
    watched = {name: _watch(types[name], types, home) for name in tools or types}
    create_markdown_artifact(
        "\n\n".join(_described(name, one) for name, one in watched.items()),
        key="monitor",
        description="How what serves does, and what was done about it",
    )
    for name, one in watched.items():
        progress.finished(f"{name}: {_line(one)}")
    return watched


def _watch(tool_type: ToolType, types: ToolTypes, home: str | None) -> Watched:
    name, log = tool_type.name, get_run_logger()
    log.info("Looking at %s", name)
    with tracking.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        rows, _ = load(Dataset.of(Home.find(home), tool_type))
        followed = promotion.follow(rows)
        if followed is not None and not followed.promoted.promoted:
            log.error("%s", _refused(name, followed))
        seen = look(rows, types)
        with locks.to_retrain(Home.find(home), tool_type):
            serving = monitoring.act(seen, tool_type)
        page = chart(seen, tool_type) if seen.rows else None
    retrained = None
    if seen.verdict.retrain:
        about = {"version": seen.production, "why": _why(seen)}
        emit_event(news.DRIFT, news.resource(name), payload=about)
        if deployment.id is None:
            outcome = renew(name, home, "drift")
            retrained, serving = _retrained(outcome), outcome.production
    return Watched(seen, followed, serving, retrained, page)


@task(cache_policy=NO_CACHE)
def look(rows: Matrix, types: ToolTypes) -> Look:
    """Everyone's predictions beside what happened."""
    return monitoring.look(rows, types)


@task(cache_policy=NO_CACHE)
def chart(seen: Look, tool_type: ToolType) -> str:
    """A point on each of the tool type's curves in MLflow, and its plots; returns their page."""
    ours = seen.predicted["production"]
    others = {name: p for name, p in seen.predicted.items() if name != "production"}
    figures = {
        "error_over_time": plots.error_over_time(
            seen.actual,
            {"production": ours, **others},
            f"{tool_type.name}: how far off, over the newest {seen.rows} executions",
        ),
        "predicted_against_actual": plots.predicted_against_actual(
            seen.actual, ours, f"{tool_type.name} version {seen.production}: the newest {seen.rows}"
        ),
    }
    return tracking.run_page(tracking.log_monitoring(tool_type, seen.metrics(), figures))


def _retrained(outcome: Outcome) -> str:
    """What came of a retraining, in words."""
    version = outcome.trained.version
    if version is None:
        return outcome.why
    if version == outcome.production:
        return f"version {version} serves now: {outcome.why}"
    return f"version {version} is not promoted: {outcome.why}"


def _why(seen: Look) -> str:
    return "; ".join(seen.verdict.reasons)


def _line(watched: Watched) -> str:
    seen = watched.look
    return f"{_DONE[seen.verdict.action]}, {_why(seen)}"


def _refused(name: str, followed: Followed) -> str:
    instead = f"version {followed.production} serves" if followed.production else "no model serves"
    return (
        f"{name}: version {followed.moved_to} was given the alias Production in MLflow and must "
        f"not serve ({followed.promoted.why}); {instead}"
    )


def _described(name: str, watched: Watched) -> str:
    """One tool type in Markdown: what was done and why, then the numbers behind it."""
    seen = watched.look
    serving = f"version {watched.production}" if watched.production else "no version"
    lines = [f"## {name}: {_DONE[seen.verdict.action]}", "", f"Now {serving} serves.", ""]
    if (followed := watched.followed) is not None:
        lines.append(f"- {_followed(name, followed)}")
    lines += [f"- {reason}" for reason in seen.verdict.reasons]
    if watched.retrained:
        lines.append(f"- retrained: {watched.retrained}")
    if seen.scores:
        lines += ["", f"Replayed on {seen.rows} executions that no look had judged before.", ""]
        lines += _table(
            ("who", "MAE, s", "median error", "order"),
            [
                (who, f"{s.mae:.3g}", f"{s.median_ape:.0%}", f"{s.order:.0%}")
                for who, s in sorted(seen.scores.items(), key=lambda item: item[1].mae)
            ],
        )
    if seen.live:
        lines += ["", "What schedulers were told, and the baselines on the same executions.", ""]
        lines += _table(
            ("version", "answers", "MAE, s", "median error", "order", "covered", "median", "EMA"),
            [_told(one) for one in seen.live],
        )
    if seen.drifts:
        lines += ["", "How far from those it was trained on (two-sample Kolmogorov–Smirnov).", ""]
        lines += _table(
            ("what", "distance", "p", "median then", "now"),
            [
                (
                    f"**{d.name}**" if d.found else d.name,
                    f"{d.distance:.2f}",
                    f"{d.p_value:.1g}",
                    f"{d.before:.3g}",
                    f"{d.now:.3g}",
                )
                for d in seen.drifts
            ],
        )
    if watched.page:
        lines += ["", f"[Curves over time in MLflow]({watched.page})"]
    return "\n".join(lines)


def _followed(name: str, followed: Followed) -> str:
    if not followed.promoted.promoted:
        return _refused(name, followed)
    return (
        f"a person gave version {followed.moved_to} the alias Production in MLflow; "
        f"version {followed.promoted.version} is proven"
    )


def _told(one: Live) -> tuple[str, ...]:
    s, rivals = one.scores, one.baselines
    return (
        str(one.version or "no model"),
        str(s.n),
        f"{s.mae:.3g}",
        f"{s.median_ape:.0%}",
        f"{s.order:.0%}",
        f"{one.coverage:.0%}",
        *(f"{rivals[name].mae:.3g}" for name in ("function_median", "function_ema")),
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (header, marks, *rows)]
