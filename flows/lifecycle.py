"""The flow of flows: ingest, then retrain each tool type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from malearn.data.ingest_report import IngestReport
from malearn.flows import artifacts, failure, parameters, progress
from malearn.flows.ingest import ingest
from malearn.flows.retrain import RetrainOutcome, renew
from malearn.kernel import generic
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes
from malearn.lifecycle import mlflow_pages

__all__ = ["Lifecycle", "lifecycle"]


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

    `files` are run logs, `maze` run stores of Maze; without any, as `ingest` has it.
    """
    progress.tag(trigger)
    place = Home.find(home)
    bar = progress.Steps("progress-lifecycle", 1 + len(generic.declared(place)), "Lifecycle")
    bar.next("Ingesting")
    ingested = ingest(files, home, maze=maze)
    # Read again: ingestion may have found tool types, which are trained as well.
    types = generic.declared(place)  # ingestion may have found more
    outcomes = {}
    for name in types:
        bar.next(f"Retraining {name}")
        outcomes[name] = renew(name, home, trigger)
    bar.end()
    done = Lifecycle(ingested, outcomes)
    create_markdown_artifact(
        _summary(done, types), key="lifecycle", description="What is in Production now, and why"
    )
    return done


def _summary(done: Lifecycle, types: ToolTypes) -> str:
    report = done.ingested
    ranked = sorted(report.rejected.items(), key=lambda item: -item[1])
    lines = [
        f"# {report.records:,} records in, {report.accepted:,} accepted",
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
