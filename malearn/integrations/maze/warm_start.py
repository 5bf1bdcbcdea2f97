"""What a new head process begins with: the durations in its own run store, read in the background.

Without it a head that was restarted, and that has no Redis, would know nothing of yesterday.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection
from pathlib import Path

from malearn.data.maze import outcomes, run, store
from malearn.data.maze.store import RunFolder
from malearn.kernel import generic
from malearn.kernel.errors import MalearnError
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolTypes
from malearn.serving import DAGTaskPredictor

__all__ = ["WORKSPACE", "begin", "observations"]

_log = logging.getLogger("malearn.maze")

#: Maze's variable for the directory of its workspace.
WORKSPACE = "MAZE_WORKSPACE_DIR"
#: Runs that are read: the latest.
_RUNS = 300


def begin(predictor: DAGTaskPredictor) -> threading.Thread | None:
    """Read the store of `$MAZE_WORKSPACE_DIR`, where that is set, on a thread of its own."""
    workspace = os.environ.get(WORKSPACE)
    if not workspace:
        return None
    thread = threading.Thread(
        target=_read, args=(predictor, Path(workspace)), name="malearn-maze-store", daemon=True
    )
    thread.start()
    return thread


def observations(
    workspace: Path,
    types: ToolTypes | None = None,
    without: Collection[str] = (),
    most: int = _RUNS,
) -> list[Observation]:
    """The durations of the latest runs in `workspace`, but for the runs `without`.

    `types` are those declared in this process's home unless given. Raises `MalearnError`.
    """
    folders = sorted(store.find([workspace], waiting=True), key=_age)[-most:]
    if types is None:
        types = generic.with_generic(generic.declared(Home.find()))
    found = []
    for folder in folders:
        read = run.read(folder)
        if read.run_id in without:
            continue
        for outcome in outcomes.of_run(read, types):
            if isinstance(outcome, Execution):
                # NaN is not equal to itself: whether anything was known before the start.
                known = any(value == value for value in outcome.serve)
                found.append(
                    Observation(
                        outcome.function,
                        outcome.tool_type,
                        outcome.start,
                        outcome.end,
                        outcome.serve if known else outcome.ran,
                        outcome.context,
                    )
                )
    return found


def _read(predictor: DAGTaskPredictor, workspace: Path) -> None:
    try:
        count = predictor.remember(observations(workspace))
    # Maze must start all the same.
    except (MalearnError, OSError) as error:
        _log.warning("malearn begins without earlier runs: %s", error)
        return
    _log.info("malearn begins with %d tasks of earlier runs", count)


def _age(folder: RunFolder) -> int:
    # The fingerprint alternates sizes and times of modification (nanoseconds).
    return max(folder.fingerprint[1::2], default=0)
