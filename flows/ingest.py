"""The flow that brings execution logs into the datasets."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import redis
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from malearn import expectations
from malearn.data import (
    csv_files,
    execution_window,
    outliers,
    redis_client,
    redis_scan,
    run_logs,
    validation_pages,
)
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.maze import reader, store
from malearn.data.maze.cursor import Cursor
from malearn.data.maze.store import RunFolder
from malearn.data.stream import Stream, existing
from malearn.flows import artifacts, failure, figures, news, parameters, progress
from malearn.flows.history_backfill import backfill, known_functions
from malearn.kernel import text
from malearn.kernel.errors import BatchRefused, InputError, without_password
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType
from malearn.learning import matrix

__all__ = ["ingest"]


def _run_name() -> str:
    """What is ingested, for the list of runs."""
    given = flow_run.parameters
    files = [
        Path(file).name
        for file in (*given["files"], *(given["tables"] or {}), *(given["maze"] or ()))
    ]
    if not files:
        return "ingest Redis"
    return f"ingest {files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")


@flow(
    name="ingest",
    flow_run_name=_run_name,
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def ingest(
    files: parameters.Files = (),
    home: parameters.Home = None,
    tables: parameters.Tables = None,
    maze: parameters.Maze = (),
) -> IngestReport:
    """Bring logs into the datasets below `home`; returns what became of every record.

    `files` are `task_exec_result.jsonl` logs, plain or gzipped; `tables` the
    original's CSV files, each with its tool type; `maze` run stores of Maze. Without any of
    them Redis at `$MALEARN_REDIS_URL` is read, the stream first, then `result:*`, and what is
    new in the Maze stores that `$MALEARN_MAZE` names.
    """
    place = Home.find(home)
    validator = _RecordingValidator()
    given = bool(files or tables or maze)
    watched = [] if given else store.from_environment()
    # A watched store may not exist yet; a given one that does not is a mistake.
    folders = store.find([*map(Path, maze), *watched], waiting=bool(watched))
    # Without a cursor, a store that was named is read from its beginning: duplicates are known.
    cursor = Cursor.open(place) if watched else None
    if cursor is not None:
        folders = [folder for folder in folders if cursor.changed(folder)]
    ingestion = Ingest(place, reader.known_types(place, folders), validator, outliers.fence)
    url = os.environ.get(redis_client.REDIS_SETTING, "")
    streamed = found = IngestReport()
    if files:
        found += take_files(ingestion, [Path(file) for file in files])
    for file, tool_type in (tables or {}).items():
        found += take_table(ingestion, Path(file), tool_type)
    if not given and not url and not watched:
        raise InputError(redis_client.REDIS_SETTING, "is not set, and no files were given")
    if not given and url:
        # The stream first: its entries know the serve-time features, and the scan then skips
        # the same tasks as duplicates.
        streamed = drain_stream(ingestion, url)
        found = scan_results(ingestion, url)
    if folders:
        found += take_maze(ingestion, folders, cursor)
    # Kept apart until here: `remember` below is about `found` alone.
    report = streamed + found
    # Before events are emitted: a flow that they start may fail, the page is there all the same.
    publish(validator, report, place)
    figures.ingested(place, report)
    news.emit(ingestion.datasets, report)
    if url:
        # What came by the stream its schedulers have remembered themselves.
        remember(ingestion, {n for n, counts in found.tool_types.items() if counts.accepted}, url)
    progress.finished(
        f"Ingested {text.counted(report.records, 'record')}: {report.accepted:,} accepted, "
        f"{report.accounted - report.accepted:,} kept out"
    )
    return report


# Without NO_CACHE Prefect would hash the arguments of every task, datasets included.
@task(cache_policy=NO_CACHE)
def take_files(ingestion: Ingest, files: Sequence[Path]) -> IngestReport:
    """Import run logs; a file that is not one fails the flow with its name."""
    report = IngestReport()
    for batch in run_logs.read(files):
        report += ingestion.take(batch, ", ".join(file.name for file in files))
        _log_progress(report, "record")
    return report


@task(cache_policy=NO_CACHE)
def take_table(ingestion: Ingest, file: Path, tool_type: str) -> IngestReport:
    """Import one of the original's datasets, `task_id,timestamp,<features>,execution_time`."""
    report = IngestReport()
    for batch in csv_files.read(file, ingestion.tool_types[tool_type]):
        report += ingestion.take(batch, file.name)
        _log_progress(report, "row")
    return report


@task(cache_policy=NO_CACHE)
def take_maze(
    ingestion: Ingest, folders: Sequence[RunFolder], cursor: Cursor | None
) -> IngestReport:
    """Import runs of Maze stores; with a `cursor`, what it has not seen of them."""
    report = IngestReport()
    stores = ", ".join(dict.fromkeys(str(folder.store) for folder in folders))
    for batch, done in reader.read(folders, ingestion.tool_types, cursor):
        report += ingestion.take(batch, f"Maze, {stores}")
        # Moves the cursor, once the batch is in the dataset: after a kill it is read again, and the
        # rows that are known count as duplicates.
        done()
        _log_progress(report, "record")
    return report


def _log_progress(report: IngestReport, noun: str) -> None:
    read = text.counted(report.records, noun)
    get_run_logger().info("%s read, %d accepted", read, report.accepted)


# A Redis that is restarted answers again by then; files are not retried, as nothing mends them.
@task(retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def drain_stream(ingestion: Ingest, url: str) -> IngestReport:
    """Ingest what schedulers added to the stream, each entry exactly once."""
    report = IngestReport()
    for key in existing(url):
        with Stream(url, ingestion.tool_types, key) as stream:
            if warning := stream.state().warning:
                get_run_logger().warning("%s", warning)
            for part in ingestion.drain(stream):
                report += part
                get_run_logger().info(
                    "%s read from the stream", text.counted(report.records, "record")
                )
    return report


@task(retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def scan_results(ingestion: Ingest, url: str) -> IngestReport:
    """Ingest the `result:*` keys, for schedulers that do not add to the stream."""
    report = IngestReport()
    for batch in redis_scan.scan(url, ingestion.tool_types, ends=ingestion.ends):
        report += ingestion.take(batch, "redis")
        _log_progress(report, "result")
    return report


def publish(validator: _RecordingValidator, report: IngestReport, home: Home) -> None:
    """The validation report: a page on disk, and the same as an artifact of this run."""
    now = datetime.now(UTC)  # in the page's name, too, so that pages sort by time
    versions = {n: t.version for n, t in report.tool_types.items() if t.version is not None}
    refused = [why for t in report.tool_types.values() for why in t.refused]
    found = expectations.Findings(
        validator.batches,
        report.records,
        report.reasons,
        now,
        sources=report.sources,
        functions=report.functions,
        versions=versions,
        refused=refused,
    )
    html = expectations.html_report(found)
    page = validation_pages.write(home, f"validation-{now:%Y%m%dT%H%M%S}.html", html)
    markdown = expectations.markdown_report(found)
    create_markdown_artifact(
        f"{markdown}\n\nPage: `{page}`\n",
        key=artifacts.VALIDATION,
        description=f"{text.counted(report.records, 'record')} in, {report.accepted:,} accepted",
    )


@task(cache_policy=NO_CACHE)
def remember(ingestion: Ingest, fresh: Collection[str], url: str) -> None:
    """Publish the functions' recent durations to Redis, for schedulers that start later.

    For the tool types in `fresh`, and for those of which this Redis has none. It is a
    help, not the data: if Redis does not answer, that is logged and nothing else happens.
    """
    types = ingestion.tool_types
    try:
        with redis_client.connect(url) as client:
            known = {
                t.name for f in known_functions(client) if (t := types.for_function(f)) is not None
            }
            for name, dataset in ingestion.datasets.items():
                if name in fresh or name not in known:
                    newest = execution_window.of_functions(dataset)
                    backfill(client, [matrix.observation(one) for one in newest], types)
    # A cluster none of whose nodes can be reached is told of by an error outside that tree.
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        get_run_logger().warning(
            "Could not publish recent durations to Redis at %s; schedulers will not see them (%s)",
            without_password(url),
            error,
        )


class _RecordingValidator:
    """Validates batches and keeps a tally of each for the report."""

    def __init__(self) -> None:
        self.batches: list[expectations.Tally] = []

    def __call__(
        self, tool_type: ToolType, executions: Sequence[Execution]
    ) -> expectations.ValidationResult:
        try:
            validated = expectations.validate(tool_type, executions)
        except BatchRefused:
            # Nobody is let through, but the page shows what was wrong with each.
            everyone = expectations.validate(tool_type, executions, allowed_bad=1.0)
            self.batches.append(everyone.tally())
            raise
        self.batches.append(validated.tally())
        return validated
