"""The scheduler's process: what is loaded into it, and what a fork does to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from malearn import DAGTaskPredictor
from malearn.kernel.tool_types import ToolType
from malearn.serving import stream_format
from malearn.serving.cache import ModelCache

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
URI = "http://127.0.0.1:1"
HEAVY = ["pandas", "mlflow", "sklearn", "xgboost", "prefect", "great_expectations", "onnx", "redis"]

SCRIPT = """
import sys
from malearn import DAGTaskPredictor
from malearn.kernel.tool_types import declared
types = declared(sys.argv[1])
p = DAGTaskPredictor(sys.argv[2], sys.argv[3], cache_dir=sys.argv[4], tool_types=types)
answer = p.estimate("toy_process", "cpu", features={"size": 2, "words": 1})
assert answer.source == "model", answer
p.wait_until_ready(120)
p.collect_data_for_task("t", "toy_process", '{"start_time": 1, "end_time": 2}')
p.close()
print(*(name for name in sys.argv[5:] if name in sys.modules))
"""


def test_a_prediction_loads_none_of_the_training_stack(
    toy: Any, tool_type: ToolType, tmp_path: Any, redis_url: str
) -> None:
    ModelCache(tmp_path / "cache", URI, "Production").write(tool_type.registered_model, 1, toy())
    declaration = tmp_path / "types.toml"
    declaration.write_text(
        f"[{tool_type.name}]\nfunctions = ['toy_process']\n[{tool_type.name}.features]\n"
        "size = {min = 0}\nwords = {default = 1}\n"
    )
    command = [sys.executable, "-c", SCRIPT, declaration, redis_url, URI, tmp_path / "cache"]
    done = subprocess.run([*command, *HEAVY], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is nothing to fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # it is what we test
def test_after_a_fork_parent_and_child_both_go_on(
    predictor: Callable[..., DAGTaskPredictor],
    record: Any,
    toy: Any,
    tool_type: ToolType,
    tmp_path: Any,
    redis_url: str,
    redis_client: Any,
    eventually: Any,
) -> None:
    ModelCache(tmp_path / "cache", URI, "Production").write(tool_type.registered_model, 1, toy())
    p = predictor(redis_url, tracking_uri=URI)
    p.wait_until_ready(120)
    redis_client.set(f"result:{RUN}-a", record(successors={"toy_process": {"size": 7}}))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            p.collect_data_for_task(f"{RUN}-child", "step", record(4.0))
            eventually(lambda: p.predict("toy_process", "cpu", [f"{RUN}-a"]) == 18.0)
            p.close()
            code = 0 if p.stats().sent == 1 else 2
        finally:
            os._exit(code)
    p.collect_data_for_task(f"{RUN}-parent", "step", record(4.0))
    assert p.predict("toy_process", "cpu", [f"{RUN}-a"]) == 18.0
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    eventually(lambda: redis_client.xlen(stream_format.STREAM) == 2)
    assert p.stats().internal_errors == 0
