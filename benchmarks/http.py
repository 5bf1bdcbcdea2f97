"""The HTTP service's figures: requests a second, predictions a second in batches, and latency.

The service runs in a process of its own with a model as training exports it, without Redis;
the client is a loop over raw sockets. Each is bound to a core of its own where there are two.
The service's rates are given per second of its own CPU time, which is what one core does however
busy the machine is; latencies are as the client saw them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

from benchmarks.figure import Figure, at_least, at_most
from benchmarks.serving import FUNCTION, NO_MLFLOW, TOOL, artifact
from malearn import DAGTaskPredictor
from malearn.integrations.http import app, server
from malearn.kernel.tool_types import declared
from malearn.serving.cache import ModelCache

__all__ = ["figures"]

TOKEN = "a token for a benchmark alone"
BATCH = 512
_TICKS = os.sysconf("SC_CLK_TCK")


def figures(requests: int = 20_000, batches: int = 400, seconds: float = 20.0) -> list[Figure]:
    """All of them, from so many requests; latency is measured for `seconds`."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        tool_type = declared()[TOOL]
        ModelCache(place, NO_MLFLOW, "Production").write(
            tool_type.registered_model, 1, artifact(tool_type)
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.http", folder], stdout=subprocess.PIPE, text=True
        )
        ours = _apart(process.pid)
        try:
            assert process.stdout is not None
            client = _Client(int(process.stdout.readline()), process.pid)
            task = {"task_name": FUNCTION, "features": {"text_length": 1200, "token_count": 300}}
            single = client.request("/predict", task)
            batch = client.request("/predict_batch", {"tasks": [task] * BATCH})
            client.rate(single, requests // 20, 8)
            client.rate(batch, batches // 20, 2)
            rate, wall = client.rate(single, requests, 8)
            predictions, _ = client.rate(batch, batches, 2)
            latency = client.latency(single, wall / 2, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            if ours:
                os.sched_setaffinity(0, ours)
    return [
        at_least("/predict, 8 connections, per second of CPU", rate, "requests/s", 1_000),
        at_least("/predict, 8 connections, as the client saw it", wall, "requests/s", 1_000),
        at_least(
            f"/predict_batch of {BATCH}, per second of CPU",
            predictions * BATCH,
            "tasks/s",
            50_000,
        ),
        at_most("/predict at half of that rate, 99th percentile", 1e3 * latency, "ms", 15.0),
    ]


def _apart(service: int) -> set[int]:
    """Bind this process and the one just started to a core each, so that neither waits for the
    other; gives the cores that this one could use before, none where it was not bound.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        return set()
    before = os.sched_getaffinity(0)
    first, *others = sorted(before)
    if not others:
        return set()
    os.sched_setaffinity(service, {others[-1]})
    os.sched_setaffinity(0, {first})
    return before


class _Client:
    """Sends prepared requests over connections that are kept, and reads no more than it must."""

    def __init__(self, port: int, pid: int) -> None:
        self._port, self._pid = port, pid

    def request(self, path: str, body: object) -> bytes:
        """One request as it goes over the wire."""
        raw = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(raw)}\r\n\r\n"
        )
        return head.encode() + raw

    def rate(self, request: bytes, count: int, connections: int) -> tuple[float, float]:
        """Requests per second of the service's CPU time, and per second of the clock."""
        sockets = [self._connect() for _ in range(connections)]
        rounds = max(1, count // connections)
        cpu, began = self._cpu(), perf_counter()
        for _ in range(rounds):
            for one in sockets:
                one.sendall(request)
            for one in sockets:
                _read(one)
        wall, used = perf_counter() - began, self._cpu() - cpu
        for one in sockets:
            one.close()
        return rounds * connections / max(used, 1 / _TICKS), rounds * connections / wall

    def latency(self, request: bytes, rate: float, seconds: float) -> float:
        """The 99th percentile of the seconds that an answer takes, at `rate` requests a second.

        A request that is sent late because the one before took long counts from when it was due.
        """
        connection = self._connect()
        took = []
        began = perf_counter()
        due = began
        while due < began + seconds:
            while (wait := due - perf_counter()) > 0.0:
                sleep(wait)
            connection.sendall(request)
            _read(connection)
            took.append(perf_counter() - due)
            due += 1.0 / rate
        connection.close()
        return sorted(took)[int(0.99 * len(took))]

    def _connect(self) -> socket.socket:
        found = socket.create_connection(("127.0.0.1", self._port))
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def _cpu(self) -> float:
        """Seconds of CPU that the service has used."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def _read(connection: socket.socket) -> None:
    """One answer, which must be a good one."""
    read = connection.recv(1 << 20)
    while b"\r\n\r\n" not in read:
        read += connection.recv(1 << 20)
    head, _, body = read.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), read[:500]
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    left = length - len(body)
    while left > 0:
        left -= len(connection.recv(1 << 20))


def _serve(folder: str) -> None:
    """The service on a free port, which it prints once it answers."""
    types = declared()
    with (
        server.listen("127.0.0.1", 0) as listener,
        DAGTaskPredictor(
            "redis://127.0.0.1:1/0", NO_MLFLOW, cache_dir=folder, tool_types=types
        ) as predictor,
    ):
        port = listener.getsockname()[1]
        asgi = app.create(predictor, types, TOKEN)
        server.run(asgi, listener, lambda: print(port, flush=True))


if __name__ == "__main__":
    _serve(sys.argv[1])
