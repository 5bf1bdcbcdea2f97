"""Scheduled ingestion and a Maze store that grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from malearn.data.maze.store import MAZE_SETTING
from malearn.flows.ingest import ingest
from malearn.kernel import generic
from malearn.kernel.home import Home

pytestmark = pytest.mark.usefixtures("prefect_api")


def test_scheduled_ingestion_reads_what_is_new_in_a_store(
    home: Home, tmp_path: Path, maze_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "workspace"
    monkeypatch.setenv(MAZE_SETTING, str(store))
    monkeypatch.delenv("MALEARN_REDIS_URL", raising=False)
    assert ingest((), str(home.root)).records == 0, "Maze was not started yet"
    maze_run(store, 1)
    first = ingest((), str(home.root))
    maze_run(store, 2)
    second = ingest((), str(home.root))
    by_hand = ingest((), str(home.root), maze=[str(store)])
    for report in (first, second):
        accepted = {name: counts.accepted for name, counts in report.tool_types.items()}
        assert accepted == {"llm_process": 1, "other": 1}
    assert by_hand.rejected == {"duplicate": 4}
    assert "other" in generic.declared(home)
