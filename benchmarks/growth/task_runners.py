"""Tool types retrained one after the other, and several at once: in processes, on Ray, on Dask.

Every fit keeps one thread busy for `$MALEARN_BENCH_FIT` seconds of its CPU time (10), and a
retraining fits several times: about a minute in all. Ray is two nodes of one processor each on
this machine, reached as a cluster elsewhere would be: its ports are open to whoever reaches this
machine while it runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from benchmarks.figure import Figure, at_least, at_most
from benchmarks.growth.process import answer, ask, say
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.platform import MLflowServer, PrefectServer
from malearn.platform import port as ports
from malearn.serving.registry import Registry

__all__ = ["task_runners"]

_TYPES, _ROWS, _SECONDS = 8, 100, 10.0
#: A family whose fit takes long: the same fit, again and again.
_FAMILY = """
import os, time
from dataclasses import replace
from malearn.learning.families import pipelines

def fit(inputs, target, parameters):
    end = time.thread_time() + float(os.environ["MALEARN_BENCH_FIT"])
    while True:
        fitted = pipelines.LINEAR.fit(inputs, target, parameters)
        if time.thread_time() >= end:
            return fitted

SLOW = replace(pipelines.LINEAR, name="slow", fit=fit)
"""


def task_runners() -> Iterator[Figure]:
    """8 tool types (`$MALEARN_BENCH_TYPES`), the same executions and servers for each runner."""
    count = int(os.environ.get("MALEARN_BENCH_TYPES") or _TYPES)
    seconds = float(os.environ.get("MALEARN_BENCH_FIT") or _SECONDS)
    runners = (os.environ.get("MALEARN_BENCH_RUNNERS") or "process:2 ray dask").split()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write(folder, count)
        home = Home(folder / "servers")
        with MLflowServer(home) as mlflow, PrefectServer(home) as prefect:
            given = {
                "MALEARN_TOOL_TYPES": str(folder / "types.toml"),
                "MALEARN_BENCH_FIT": str(seconds),
                "MLFLOW_TRACKING_URI": mlflow.url,
                "PREFECT_API_URL": prefect.url,
                "PREFECT_API_AUTH_STRING": prefect.login(),
                "PYTHONPATH": str(folder),
            }
            os.environ.update(given)
            say(f"{count} tool types, one after the other, fits of {seconds:g} s")
            alone, expected = ask("task_runners", "lifecycle", folder, "alone", "")
            for runner in runners:
                kind = runner.partition(":")[0]
                say(f"the same by {runner}")
                with _ray() if kind == "ray" else _as_it_is(runner) as address:
                    took, models = ask("task_runners", "lifecycle", folder, kind, address)
                where = "Ray of two nodes" if kind == "ray" else kind
                of = f"{count} tool types, fits of {seconds:g} s, {os.cpu_count()} cores"
                yield at_least(f"growth: {of}: {where}, against one after the other",
                               alone / took, "times", 1.4)  # fmt: skip
                other = sum(models.get(name) != digest for name, digest in expected.items())
                yield at_most(f"growth: {of}: {where}, models that are not the same bit for bit",
                              other + abs(count - len(models)), "models", 0)  # fmt: skip


def _write(folder: Path, count: int) -> None:
    """The declaration, its family, and a log of each tool type."""
    (folder / "slow_family.py").write_text(_FAMILY)
    lines = ['families = ["slow_family:SLOW"]']
    for n in range(count):
        lines += [f"[t{n}]", f'functions = ["step{n}"]', 'resource = "cpu"', 'families = ["slow"]']
        lines += [f"[t{n}.features]", "size = { min = 0 }"]
    (folder / "types.toml").write_text("\n".join(lines))
    for n in range(count):
        draw, name = np.random.default_rng(n), f"step{n}"
        records = []
        for row in range(_ROWS):
            size, start = float(draw.uniform(1.0, 500.0)), 1.7e9 + 60.0 * row
            data = {"start_time": start, "end_time": start + 1.0 + size / 20.0}
            said = {"curr_task_feat": {"size": size}, "status": "success"}
            task = f"{UUID(int=1000 * n + row)}-{name}"
            records.append({"task_id": task, "func_name": name, "status": "finished",
                            "dag_id": task[:36], "data": data | said})  # fmt: skip
        text = "".join(f"{json.dumps(record)}\n" for record in records)
        (folder / f"{name}.jsonl").write_text(text)


@contextmanager
def _as_it_is(runner: str) -> Iterator[str]:
    yield runner


@contextmanager
def _ray() -> Iterator[str]:
    """The address of a Ray of two nodes, one processor each, on the loopback interface."""
    command = [sys.executable, "-m", "benchmarks.growth.task_runners", "ray"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        said = (line.strip() for line in process.stdout)  # Ray may say something first
        address = next((line for line in said if line.startswith("ray://")), None)
        if address is None:
            raise RuntimeError("Ray does not start.")
        try:
            yield address
        finally:
            process.stdin.close()


def _serve_ray() -> None:
    """Two nodes until stdin is closed; the first line of stdout is their address."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "300"}
    port = ports.find_free("ray")
    # Not on the loopback address alone: Ray's client service takes that for another machine's.
    node: dict[str, Any] = {"num_cpus": 1}
    head = {**node, "include_dashboard": False, "ray_client_server_port": port}
    cluster = import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        print(f"ray://{cluster.head_node.node_ip_address}:{port}", flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


def _lifecycle(folder: Path, name: str, runner: str) -> None:
    """Seconds of retraining all, and the models that it made: by name a digest of each graph."""
    os.environ |= {"MALEARN_PREFIX": name, "PREFECT_LOGGING_LEVEL": "ERROR"}
    if runner:
        os.environ["MALEARN_TASK_RUNNER"] = runner
    from malearn.flows.ingest import ingest
    from malearn.flows.lifecycle import lifecycle

    home, files = str(folder / name), [str(file) for file in sorted(folder.glob("*.jsonl"))]
    ingest(files, home)
    began = time.perf_counter()
    done = lifecycle(files[:1], home)
    took = time.perf_counter() - began
    import onnx

    registry = Registry(os.environ["MLFLOW_TRACKING_URI"], names=Names(name))
    digests = {}
    for tool_type, outcome in done.outcomes.items():
        if not outcome.trained.rows:  # those that are shipped
            continue
        assert outcome.production, outcome.why
        model = registry.download(Names(name).registered_model(tool_type), outcome.production)
        graph = onnx.load_from_string(model).graph
        digests[tool_type] = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()
    answer([took, digests])


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "ray":
        _serve_ray()
    else:
        _lifecycle(Path(given[0]), given[1], given[2])
