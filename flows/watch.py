"""Ingest results as they come, from Redis or a Maze store, until asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from malearn import expectations
from malearn.data import keyspace, outliers
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.maze import reader, store
from malearn.data.maze.cursor import Cursor
from malearn.flows.console import Progress
from malearn.kernel import generic, text
from malearn.kernel.home import Home

__all__ = ["watch", "watch_maze"]

#: Seconds between two looks at a Maze store.
_POLL = 2.0


def watch(home: Home, url: str, shown: Progress, *, enable: bool) -> IngestReport:
    """Ingest what is set in the Redis at `url` into the datasets below `home` until Ctrl-C.

    What was read by then is ingested too. `enable` turns keyspace notifications on.
    """
    types = generic.declared(home)
    ingestion = Ingest(home, types, expectations.validate, outliers.fence)
    report = IngestReport()
    with _asked_to_stop() as stop:
        source = keyspace.Watch(url, types, stop.is_set, enable=enable, notify=shown.step)
        shown.step("Watching; Ctrl-C ends it")
        for batch in source.batches():
            report += ingestion.take(batch, "redis")
            shown.step(
                _progress(report)
                + (f", {source.missed:,} gone before they could be read" if source.missed else "")
            )
    return report


def watch_maze(
    home: Home, stores: Sequence[Path], shown: Progress, seconds: float = _POLL
) -> IngestReport:
    """Ingest what is new in the Maze `stores` every few `seconds`, until Ctrl-C."""
    report = IngestReport()
    cursor = Cursor.open(home)
    with _asked_to_stop() as stop:
        shown.step("Watching; Ctrl-C ends it")
        while True:
            found = store.find(stores, waiting=True)
            folders = [folder for folder in found if cursor.changed(folder)]
            if folders:
                types = reader.known_types(home, folders)
                # Made anew: a run may announce tool types that were not known at the last round.
                ingestion = Ingest(home, types, expectations.validate, outliers.fence)
                for batch, done in reader.read(folders, types, cursor):
                    report += ingestion.take(batch, "Maze")
                    done()
                shown.step(_progress(report))
            # Not sleep(): a signal ends the wait.
            if stop.wait(seconds):
                return report


def _progress(report: IngestReport) -> str:
    records = text.counted(report.records, "record")
    return f"Watching: {records}, {report.accepted:,} accepted"


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C or SIGTERM; a second one ends the process as usual."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        # The next one is for whoever cannot wait for the batch in hand.
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
