"""The platform's HTTP endpoint: `/metrics` for Prometheus, `/health` and `/live` for probes."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self

from malearn.kernel import hosts
from malearn.operations.metrics import PlatformMetrics

__all__ = ["Endpoint"]

#: Seconds after which a client that does not send its request is disconnected.
_PATIENCE = 10.0


class Endpoint:
    """Serves `metrics` at `http://host:port` until the `with` is left.

    On loopback it answers requests to loopback's own names alone, so that no page in the
    operator's browser reads it under a name of its own (DNS rebinding).
    """

    def __init__(self, metrics: PlatformMetrics, port: int, host: str = hosts.LOOPBACK) -> None:
        # http.server makes the handler itself, for each request: attributes of a class of its own
        # are the way to hand it anything.
        bound = {"metrics": metrics, "open_to_all": not hosts.is_loopback(host)}
        handler = type("_Bound", (_Handler,), bound)
        self._server = ThreadingHTTPServer((host, port), handler)
        # A client that keeps its connection open must not keep this process from ending.
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, name="malearn-metrics")
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # First the loop, then its socket: the loop would fail on a socket that is closed.
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    metrics: PlatformMetrics
    open_to_all: bool
    # http.server sets it on the connection; by default a client may wait for ever.
    timeout = _PATIENCE
    server_version, sys_version = "malearn", ""

    def do_GET(self) -> None:
        if not self.open_to_all and not hosts.is_loopback(
            hosts.of_header(self.headers.get("Host", ""))
        ):
            self._answer(HTTPStatus.FORBIDDEN, b"This is not served under that name.\n", "plain")
        elif self.path == "/metrics":
            self._answer(HTTPStatus.OK, self.metrics.text(), "plain; version=0.0.4")
        elif self.path == "/health":
            health = self.metrics.health()
            status = HTTPStatus.OK if health["healthy"] else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, json.dumps(health).encode() + b"\n", "json")
        elif self.path == "/live":  # for who would restart this process, not the servers it uses
            self._answer(HTTPStatus.OK, b"alive\n", "plain")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There are /metrics, /health, /live.\n", "plain")

    def _answer(self, status: HTTPStatus, content: bytes, form: str) -> None:
        self.send_response(status)
        kind = "application/json" if form == "json" else f"text/{form}; charset=utf-8"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a scrape every few seconds is no news."""
