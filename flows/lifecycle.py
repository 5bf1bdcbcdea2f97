"""The flow of flows: ingest, then retrain each tool type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from threadpoolctl import threadpool_limits

from malearn.data.dataset import Dataset
from malearn.data.ingest_report import IngestReport
from malearn.flows import artifacts, failure, parameters, progress, task_runner
from malearn.flows.ingest import ingest
from malearn.flows.retrain import RetrainOutcome, due, renew, without_executions
from malearn.flows.task_runner import TaskRunnerChoice
from malearn.kernel import generic, text
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes
from malearn.lifecycle import mlflow_pages

__all__ = ["Lifecycle", "lifecycle", "retrain_task"]


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The result of one run of the lifecycle."""

    ingested: IngestReport
    outcomes: Mapping[str, RetrainOutcome]


@flow(
    name="lifecycle",
    flow_run_name="lifecycle {trigger}",
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def lifecycle(
    files: parameters.Files = (),
    home: parameters.Home = None,
    trigger: parameters.Trigger = "manual",
    maze: parameters.Maze = (),
) -> Lifecycle:
    """Ingest new logs, retrain every tool type, promote what passes the gate.

    `files` are run logs, `maze` run stores of Maze; without any, as `ingest` has it. With
    `$MALEARN_TASK_RUNNER` tool types are retrained several at once; one that fails does not stop
    the others, and its error is raised when they are done.
    """
    runner = task_runner.choice()  # what is no task runner is refused before anything is done
    progress.tag(trigger)
    place = Home.find(home)
    bar = progress.Steps("progress-lifecycle", 1 + len(generic.declared(place)), "Lifecycle")
    bar.next("Ingesting")
    ingested = ingest(files, home, maze=maze)
    # Read again: ingestion may have found tool types, which are trained as well.
    types = generic.declared(place)
    datasets = [Dataset.open(place, tool_type) for tool_type in types.values()]
    outcomes = without_executions(datasets)
    if outcomes:
        progress.finished(f"{', '.join(_first(outcomes))}: nothing trained, 0 rows")
    filled = [one for one in datasets if one.tool_type.name not in outcomes]
    at_once = due(filled) if runner else []
    if runner and runner.address:
        # What is known of the generic one is kept in this home, which others do not have.
        at_once = [name for name in at_once if not types[name].generic]
    failures: dict[str, Exception] = {}
    if runner and len(at_once) > 1:
        trained, failures = _several(runner, at_once, home, trigger, bar)
        outcomes |= trained
    for name in types:
        if name not in outcomes and name not in failures:
            bar.next(f"Retraining {name}")
            outcomes[name] = renew(name, home, trigger)
    outcomes = {name: outcomes[name] for name in types if name in outcomes}
    bar.end()
    done = Lifecycle(ingested, outcomes)
    create_markdown_artifact(
        _summary(done, types), key="lifecycle", description="What is in Production now, and why"
    )
    if failures:
        raise next(iter(failures.values()))  # all of them are in the log
    return done


def _first(names: Collection[str], count: int = 8) -> list[str]:
    """The first of `names`, and how many more there are."""
    more = len(names) - count
    return [*names] if more <= 0 else [*islice(names, count), f"{more:,} more"]


def _several(
    chosen: TaskRunnerChoice,
    names: Sequence[str],
    home: str | None,
    trigger: str,
    bar: progress.Steps,
) -> tuple[dict[str, RetrainOutcome], dict[str, Exception]]:
    """Retrain `names` as tasks of a task runner: the outcomes, and the errors of those that failed.

    A task whose worker was lost is marked as crashed.
    """

    def ended(name: str, outcome: RetrainOutcome) -> None:
        if chosen.elsewhere:  # nobody here has read what it logged
            progress.finished(f"{name}: {outcome.why}")

    futures = {}
    try:
        # One thread each for linear algebra: with limits of their own, set and reset by several
        # threads of one process, they would be left with each other's.
        with threadpool_limits(1), chosen.build() as runner:
            for name in names:
                given = {"tool_type": name, "home": home, "trigger": trigger}
                futures[name] = runner.submit(retrain_task, given)
            results, failures = task_runner.wait(
                futures, lambda name: bar.next(f"Retraining {name}"), ended
            )
    finally:  # the flow may have been interrupted
        task_runner.mark_interrupted(futures, UUID(flow_run.id))
    for name, error in failures.items():
        sentence = " ".join(str(error).split()) or type(error).__name__
        get_run_logger().error("%s was not retrained: %s", name, sentence)
    return results, failures


@task(name="retrain", task_run_name="retrain {tool_type}", cache_policy=NO_CACHE)
def retrain_task(tool_type: str, home: str | None, trigger: str) -> RetrainOutcome:
    """`renew`, wherever the task runner puts it. What is done already is not repeated."""
    return renew(tool_type, home, trigger)


def _summary(done: Lifecycle, types: ToolTypes) -> str:
    report = done.ingested
    ranked = sorted(report.rejected.items(), key=lambda item: -item[1])
    lines = [
        f"# {text.counted(report.records, 'record')} in, {report.accepted:,} accepted",
        "",
        *(f"- {n:,} rejected: `{why}`" for why, n in ranked if n),
        "",
        f"[Validation report]({artifacts.validation_page()})",
        "",
        "| tool type | accepted | quarantined | outliers | Production |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name, outcome in done.outcomes.items():
        counts = report.tool_types.get(name)
        numbers = (counts.accepted, counts.quarantined, counts.outliers) if counts else (0, 0, 0)
        serving = "–"
        if outcome.production:
            page = mlflow_pages.version_page(types[name], outcome.production)
            serving = f"[v{outcome.production} {outcome.family}]({page})"
        cells = " | ".join(str(n) for n in numbers)
        lines.append(f"| {name} | {cells} | {serving} |")
    for name, outcome in done.outcomes.items():
        lines += ["", f"**{name}**", "", *artifacts.reasons(outcome.reasons)]
    changes = [(n, text) for n, o in done.outcomes.items() for text in o.trained.schema_changes]
    if changes:
        lines += ["", "The declaration has changed:", ""]
        lines += [f"- {name}: {sentence}" for name, sentence in changes]
    return "\n".join(lines)
