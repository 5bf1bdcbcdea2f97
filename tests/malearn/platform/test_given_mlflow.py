"""An MLflow behind a proxy that wants a login, and other servers that are not simply there."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from malearn.kernel.errors import InputError, Unreachable
from malearn.lifecycle import mlflow_connection
from malearn.platform import MLflowServer

USER, PASSWORD = "ana", "p@ss:w/1"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


class Guarded(BaseHTTPRequestHandler):
    """Wants a login for every path."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") in (BASIC, "Bearer t0ken")
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Moved(Guarded):
    """Sends everybody elsewhere."""

    def do_GET(self) -> None:
        self.send_response(301)
        self.send_header("Location", "https://ana:secret@elsewhere.example/health")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(params=[Guarded])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Host and port of a server of the asked kind."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), request.param)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody there, and nobody is asked


@pytest.fixture
def _mlflow_as_it_was() -> Iterator[None]:
    import mlflow

    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)  # which child processes inherit


@pytest.mark.parametrize(
    ("credentials", "variables"),
    [
        ("ana:p%40ss%3Aw%2F1@", {}),
        ("", {"USERNAME": USER, "PASSWORD": PASSWORD}),
        ("", {"TOKEN": "t0ken"}),
        ("ana:p%40ss%3Aw%2F1@", {"USERNAME": "another", "PASSWORD": "wrong"}),
    ],
)
@pytest.mark.usefixtures("_mlflow_as_it_was")
def test_a_login_comes_from_the_url_or_from_mlflows_variables(
    address: str, credentials: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    MLflowServer.ping(f"http://{credentials}{address}")
    mlflow_connection.connect(f"http://{credentials}{address}/")


@pytest.mark.parametrize("credentials", ["", "ana:guess@"])
def test_a_missing_or_a_wrong_login_is_said_in_a_sentence(address: str, credentials: str) -> None:
    with pytest.raises(PermissionError, match="it wants a login, HTTP status 401: put a login in"):
        MLflowServer.ping(f"http://{credentials}{address}")
    with pytest.raises(Unreachable, match="Unauthorized") as refusal:
        mlflow_connection.connect(f"http://{credentials}{address}")
    assert "guess" not in str(refusal.value)


@pytest.mark.parametrize("address", [Moved], indirect=True)
def test_no_redirect_carries_the_login_elsewhere(address: str) -> None:
    with pytest.raises(ConnectionError, match="HTTP status 301"):
        MLflowServer.ping(f"http://ana:x@{address}")


@pytest.mark.parametrize("url", ["ftp://mlflow.example", "htp://mlflow.example:5000"])
def test_an_address_of_no_store_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI: must begin with http"):
        MLflowServer.ping(url)


def test_a_database_is_taken_as_it_is() -> None:
    MLflowServer.ping("sqlite:////nowhere/mlflow.db")
    MLflowServer.ping("postgresql+psycopg2://db/mlflow")
