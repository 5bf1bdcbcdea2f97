"""Reaching MLflow, and what is said where it cannot be reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import mlflow
import pytest

from malearn.kernel.errors import Unreachable
from malearn.lifecycle import mlflow_connection


def refusal(uri: str, patience: float = 30.0) -> str:
    with pytest.raises(Unreachable) as refused:
        mlflow_connection.connect(uri, patience)
    return str(refused.value)


def test_where_nobody_listens_the_sentence_says_so_at_once() -> None:
    said = refusal("http://127.0.0.1:1")
    assert said.startswith("MLflow at http://127.0.0.1:1 cannot be reached (")
    assert said.endswith("; start it or point MLFLOW_TRACKING_URI at another.")


def test_a_password_in_the_address_is_not_shown() -> None:
    assert "secret" not in refusal("http://user:secret@127.0.0.1:1")
    assert "secret" not in refusal("http://user:secret@no.such.host.invalid")


def test_a_server_that_speaks_no_http_is_not_mlflow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"-ERR wrong number of arguments\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        said = refusal(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "cannot be reached (" in said


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "timed out" in refusal(f"http://127.0.0.1:{server.getsockname()[1]}", 0.2)


class Guarded(BaseHTTPRequestHandler):
    """Lets in who knows the password `s3cret/`."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Basic dXNlcjpzM2NyZXQv"
        self.send_response(200 if known and self.path == "/health" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to the test's output."""


@pytest.fixture
def guarded() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def _pointed_back(connected: str) -> Iterator[None]:
    yield
    mlflow_connection.connect(connected)


@pytest.mark.usefixtures("_pointed_back")
def test_user_and_password_in_the_address_are_used(guarded: str) -> None:
    mlflow_connection.connect(f"http://user:s3cret%2F@{guarded}")
    assert mlflow.get_tracking_uri().endswith(guarded)


@pytest.mark.usefixtures("_pointed_back")
def test_mlflows_own_variables_are_used_too(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # not for this machine
    mlflow_connection.connect(f"http://{guarded}")
    assert mlflow.get_tracking_uri().endswith(guarded)


def test_a_wrong_password_is_told_from_no_answer(guarded: str) -> None:
    assert "(Unauthorized)" in refusal(f"http://user:wrong@{guarded}")


@pytest.mark.usefixtures("_pointed_back")
def test_user_and_password_in_mlflows_own_variables_are_used(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret/")
    mlflow_connection.connect(f"http://{guarded}")


def test_a_run_that_a_notebook_left_in_the_environment_is_not_gone_on_with(
    connected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "somebody else's")
    mlflow_connection.connect(connected)
    mlflow.set_experiment("connection tests")
    with mlflow.start_run() as run:
        assert mlflow.get_experiment(run.info.experiment_id).name == "connection tests"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_stands_between_us_and_a_server_on_this_machine(
    connected: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(other, "intranet.example")
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    mlflow_connection.connect(connected)
    assert mlflow.search_experiments(max_results=1)
