"""The workflows in progress in Maze's run stores, for the platform's `/metrics`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from malearn.flows import maze_progress, workflow_progress
from malearn.kernel.home import Home
from malearn.kernel.workflows.workflow_status import WorkflowStatus

if TYPE_CHECKING:
    from malearn import DAGTaskPredictor

__all__ = ["MazeGauges"]


class MazeGauges:
    """Reads `stores` at each call, and predicts with one predictor, built when first needed.

    What a scheduler's predictor publishes of a run counts for more: it knows what waits. `close`
    ends the predictor. Calls are not to overlap.
    """

    def __init__(
        self, home: Home, stores: Sequence[Path], redis_url: str, tracking_uri: str
    ) -> None:
        self._home, self._stores = home, stores
        self._redis_url, self._tracking_uri = redis_url, tracking_uri
        self._types = maze_progress.tool_types(home)
        self._held = ExitStack()
        self._predictor: DAGTaskPredictor | None = None

    def __call__(self) -> list[WorkflowStatus]:
        """The status of each run that is not over, as `ordered` of `workflow_progress`."""
        runs = [one for one in maze_progress.recent(self._stores) if not one.is_over]
        if not runs:
            return []
        published = {s.run_id: s for s in workflow_progress.in_progress(self._redis_url)}
        found = [published[one.run_id] for one in runs if one.run_id in published]
        asked = [one for one in runs if one.run_id not in published]
        if asked:
            # A run whose graph has a cycle has no status; `malearn status --workflows` names it.
            more, _ = maze_progress.estimated(self._ready(), self._types, self._stores, asked)
            found += more
        return workflow_progress.ordered(one for one in found if one.ended is None)

    def close(self) -> None:
        self._held.close()
        self._predictor = None

    def _ready(self) -> DAGTaskPredictor:
        if self._predictor is None:
            from malearn import DAGTaskPredictor

            self._predictor = self._held.enter_context(
                DAGTaskPredictor(
                    redis_url=self._redis_url,
                    tracking_uri=self._tracking_uri,
                    cache_dir=self._home.cache,
                    tool_types=self._types,
                    shares=False,
                )
            )
            # History answers until the models are there: a scrape does not wait for long.
            self._predictor.wait_until_ready(2.0)
        return self._predictor
