"""Ctrl-C in the middle of things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from malearn.kernel.home import Home
from tests.flows.conftest import Log, Running, processes


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[Running]]:
    """What a test started; ended, should the test have failed to."""
    started: list[Running] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


def test_ctrl_c_stops_a_run_and_leaves_nothing_running(
    running: list[Running], log: Log, tmp_path: Path, home: Home
) -> None:
    run = Running(tmp_path, "run", "--from", log(80), "--home", home.root, "--json")
    running.append(run)
    run.wait_for("Fitting")
    assert run.ctrl_c() == (130, "")
    assert run.said[-1] == "malearn: stopped\n"
    assert "Traceback" not in (said := "".join(run.said)), said
    assert processes(home) == set()
