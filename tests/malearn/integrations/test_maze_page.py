"""docs/maze.md, followed to the letter in a head that is the tests' stand-in for Maze."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from malearn import maze
from malearn.data.maze import reader, store
from malearn.integrations.maze import target
from malearn.kernel import tool_types

_PAGE = (Path(__file__).parents[3] / "docs" / "maze.md").read_text("utf-8")


def code(chapter: str, language: str = "") -> list[str]:
    """The blocks of code in a chapter."""
    text = _PAGE.split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_commands_for_a_head_start_one_with_malearn_inside(
    maze_files: Path, tmp_path: Path
) -> None:
    """Without the servers that the variables name: a head does not wait for them."""
    install, *steps = code("Predict in Maze's queue")[0].splitlines()
    assert re.fullmatch(r"pip install malearn-[\d.]+-py3-none-any\.whl", install)
    secret = tmp_path / "malearn" / ".malearn" / "secrets" / "redis"
    secret.parent.mkdir(parents=True)
    secret.write_text("secret\n")
    script = "\n".join(["set -e", f"python() {{ '{sys.executable}' \"$@\"; }}", *steps])
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(maze_files)}
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["MalearnEstimator", *steps[-1].split()[3:]]


def test_a_program_that_starts_maze_itself_writes_what_stands_there(
    head: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (text,) = code("Predict in Maze's queue", "python")
    monkeypatch.setenv("MALEARN_HOME", str(tmp_path))
    monkeypatch.delenv("MALEARN_REDIS_URL", raising=False)
    exec(compile(text, "docs/maze.md", "exec"), {})
    assert type(head().runtime_estimator).__name__ == "MalearnEstimator"
    maze.uninstall()


def test_the_declaration_there_claims_what_it_says() -> None:
    (text,) = code("Functions of any name", "toml")
    types = tool_types.declared()
    for tool_type in tool_types.parse(text, "docs/maze.md"):
        types = types.with_added(tool_type)
    claimed = types.for_task("gaia_model_answer", "gpu", "Qwen3-8B", "vllm")
    assert claimed is not None and claimed.name == "local_llm"
    assert types.for_task("gaia_model_answer", "cpu", "Qwen3-8B", "vllm") is None
    assert types.for_task("gaia_model_answer", "gpu", "gpt-5", "openai") is None


def test_every_name_that_is_relied_on_stands_there() -> None:
    sentence = next(line for line in _PAGE.splitlines() if line.startswith("What is refused"))
    for name in ("RuntimePrediction", *(n.rpartition(".")[2] for n in target.SIGNATURES)):
        assert name in sentence


def test_a_workspace_of_any_depth_is_what_the_options_take(
    tmp_path: Path, maze_run: Callable[..., None]
) -> None:
    workspace = tmp_path / "maze-workspace"
    maze_run(workspace / "workflow_runs", 1)
    (run,) = (workspace / "workflow_runs" / "static_runs").iterdir()
    before = sorted(workspace.rglob("*"))
    for place in (workspace, run.parents[1], run.parent, run):
        batches = list(reader.read(store.find([place]), tool_types.declared()))
        assert sum(len(batch) for batch, _ in batches) == 2
    assert sorted(workspace.rglob("*")) == before, "nothing is written there"


def test_the_modules_that_are_named_are_there() -> None:
    for name in re.findall(r"python -m ([\w.]+)", _PAGE):
        assert importlib.util.find_spec(name) is not None
