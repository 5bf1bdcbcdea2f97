"""The main job: logs, lifecycle, predictor, report, on a platform that comes and goes with it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from malearn import __version__
from malearn.data.dataset import Dataset
from malearn.flows import console
from malearn.kernel import generic, text
from malearn.kernel.home import Home
from malearn.operations.upgrade import upgrade
from malearn.platform import Platform

if TYPE_CHECKING:
    from malearn.flows.lifecycle import Lifecycle

__all__ = ["PredictorAnswer", "Report", "run"]

_CALLS = 300  # of the predictor, for the latency that the report shows


@dataclass(frozen=True, slots=True)
class PredictorAnswer:
    """Where the predictor's answer for a tool type came from, and its median latency in seconds."""

    source: str
    version: int | None
    latency: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of the main job."""

    lifecycle: Lifecycle
    answers: Mapping[str, PredictorAnswer]
    home: Home

    def as_json(self) -> dict[str, Any]:
        """The form that `malearn run --json` prints."""
        ingested = self.lifecycle.ingested
        types = {}
        for name, outcome in self.lifecycle.outcomes.items():
            counts = ingested.tool_types.get(name)
            production = {"version": outcome.production, "family": outcome.family}
            types[name] = {
                "accepted": counts.accepted if counts else 0,
                "quarantined": counts.quarantined if counts else 0,
                "outliers": counts.outliers if counts else 0,
                "production": production if outcome.production else None,
                "why": outcome.why,
            }
        return {
            "records": ingested.records,
            "rejected": dict(ingested.rejected),
            "tool_types": types,
        }


def run(
    home: Home, files: Sequence[Path], shown: console.Progress, maze: Sequence[Path] = ()
) -> Report:
    """Run `files` and the Maze stores `maze` through the whole lifecycle below `home`, and ask a
    predictor for predictions. Without any, a small real workload is executed here first.
    """
    upgrade(home, __version__, notify=shown.step)
    with Platform(home, redis=True, mlflow=True, prefect=True, on_event=shown.server) as platform:
        if not files and not maze:
            _work(platform.redis_url, shown)
        with console.following(shown):
            # Imported within: Prefect reads the server's address when it is imported.
            from malearn.flows.lifecycle import lifecycle

            done = lifecycle(
                [str(file) for file in files],
                str(home.root),
                trigger="malearn run",
                maze=[str(store) for store in maze],
            )
        shown.step("Asking the predictor …")
        answers = _ask(home, platform)
        # The step is shown until the `with` is left, which takes seconds.
        shown.step("Stopping the servers …")
    return Report(done, answers, home)


def _work(redis_url: str, shown: console.Progress) -> None:
    from malearn import workload

    def show(finished: int, total: int) -> None:
        # Where stderr is not a terminal each of these is a line.
        if finished % 20 == 0 or finished == total:
            shown.step(
                f"Executing a small real workload: {finished} of {text.counted(total, 'task')}"
            )

    records = workload.execute(redis_url, progress=show)
    shown.done(f"Executed a small real workload: {text.counted(records, 'record')} in Redis")


def _ask(home: Home, platform: Platform) -> dict[str, PredictorAnswer]:
    """Predict the newest execution of every tool type, as a scheduler would a start node."""
    from malearn import DAGTaskPredictor
    from malearn.learning import matrix

    answers, types = {}, generic.declared(home)
    with DAGTaskPredictor(
        redis_url=platform.redis_url,
        tracking_uri=platform.tracking_uri,
        cache_dir=home.cache,
        tool_types=types,
    ) as predictor:
        # Models load in the background; answers before that would be from history.
        predictor.wait_until_ready(30.0)
        for name, tool_type in types.items():
            dataset = Dataset.open(home, tool_type)
            # Nothing was ingested: the first function of the declaration stands for the tool type.
            if dataset.version is None:
                function, features = next(iter(tool_type.functions), name), {}
            else:
                (newest,) = dataset.newest(1)
                # What was known before it started, since a scheduler knows no more.
                known = zip(tool_type.feature_names, matrix.known_before(newest), strict=True)
                function = newest.function
                features = {key: value for key, value in known if not math.isnan(value)}
            times = []
            # The median of many: the first calls load the model's code into caches.
            for _ in range(_CALLS):
                began = time.perf_counter()
                answer = predictor.estimate(function, tool_type.resource, [], features=features)
                times.append(time.perf_counter() - began)
            answers[name] = PredictorAnswer(
                answer.source, answer.model_version, statistics.median(times)
            )
    return answers
