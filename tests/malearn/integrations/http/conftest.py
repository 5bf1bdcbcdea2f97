"""The HTTP service on a port of its own, and a client that sends what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest
import uvicorn

from malearn import DAGTaskPredictor
from malearn.integrations.http import app, server
from malearn.kernel import tool_types

TOKEN = "a token that only this test knows"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: `json` is the decoded body, None where it is none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        found = self.json
        assert found["status"] == "error"
        return str(found["error"])


@dataclass(frozen=True, slots=True)
class Service:
    """A running service: `ask` sends one request; a header of None is left out."""

    port: int
    predictor: DAGTaskPredictor

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str | None] | None = None,
    ) -> Reply:
        given: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
        }
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        given = {**given, "Content-Length": str(len(raw)), **(headers or {})}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders()
        connection.send(raw)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        reply = Reply(answer.status, found, answer.read())
        connection.close()
        return reply

    def post(self, path: str, body: object) -> Any:
        """The answer to what should succeed."""
        reply = self.ask("POST", path, body)
        assert reply.status == 200, reply.body
        assert reply.json["status"] == "success"
        return reply.json


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without Redis and without MLflow: it learns from what it is told."""
    types = tool_types.declared()
    place = tmp_path_factory.mktemp("http")
    with DAGTaskPredictor("redis://127.0.0.1:1/0", cache_dir=place, tool_types=types) as predictor:
        asgi = app.create(predictor, types, TOKEN, ["times.example"])
        with serving(asgi) as port:
            yield Service(port, predictor)


class serving:  # noqa: N801 - used as a statement
    """`asgi` on a port of its own, in a thread, for as long as the `with` lasts."""

    def __init__(self, asgi: Callable[..., Any], **more: Any) -> None:
        self._listener = server.listen("127.0.0.1", 0)
        self._server = uvicorn.Server(server.configuration(asgi, **more))
        run = self._server.run
        self._thread = threading.Thread(target=lambda: run([self._listener]), daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()
