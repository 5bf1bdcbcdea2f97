"""docs/tour.ipynb, run from top to bottom in a kernel of its own, as a reader would."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def test_the_notebook_runs_and_ends_with_a_model_in_production(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("MALEARN_HOME", raising=False)
    monkeypatch.delenv("MALEARN_TOOL_TYPES", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells), "outputs are not committed"
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(
        output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        for cell in book.cells
        for output in cell.get("outputs", [])
    )
    assert "its ONNX file equals the trainer's model" in said
    assert "version" in said
    assert "seconds" in said
    assert list(tmp_path.iterdir())
