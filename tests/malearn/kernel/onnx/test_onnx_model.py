"""How onnxruntime is loaded; what it answers is for the tests of those who load models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_onnxruntime_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    # What it looks at to tell a test machine, where it sends nothing anyway, is taken away.
    kept = {n: v for n, v in os.environ.items() if n != "CI" and not n.startswith(("ORT_", "XDG_"))}
    program = "from malearn.kernel.onnx import onnx_model; onnx_model.runtime()"
    environment = {**kept, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=300)
    # Else there would be its number for this machine, and what waits to be sent.
    assert not list(tmp_path.iterdir())
