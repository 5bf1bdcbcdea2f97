"""What is asked of MLflow, with whose credentials, and what of them is shown."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from malearn.kernel.errors import ArtifactRefused, Unreachable
from malearn.kernel.onnx import onnx_file
from malearn.serving import registry


class Answers(BaseHTTPRequestHandler):
    """Answers every path with what the test says, and remembers what it was asked."""

    reply: ClassVar[dict[str, tuple[int, bytes]]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        known = [answer for part, answer in self.reply.items() if part in self.path]
        status, body = known[0] if known else (404, b"{}")
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    Answers.reply, Answers.asked = {}, []
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _models(*versions: tuple[str, str, str]) -> bytes:
    return json.dumps(
        {
            "registered_models": [
                {"name": name, "aliases": [{"alias": alias, "version": version}]}
                for name, alias, version in versions
            ]
        }
    ).encode()


def test_one_request_tells_of_all_models(address: str) -> None:
    found = _models(("malearn-a", "Production", "3"), ("malearn-b", "production", "4"))
    Answers.reply = {"registered-models/search": (200, found)}
    asked = registry.Registry(f"http://{address}", environment={})
    assert asked.versions(["malearn-a", "malearn-b"]) == {"malearn-a": 3}
    assert len(Answers.asked) == 1


def test_a_registry_that_cannot_be_searched_is_asked_one_by_one(address: str) -> None:
    version = json.dumps({"model_version": {"version": "5"}}).encode()
    Answers.reply = {
        "search": (400, b'{"error_code": "INVALID_PARAMETER_VALUE"}'),
        "alias?name=malearn-a&": (200, version),
        "alias?name=malearn-b&": (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}'),
    }
    asked = registry.Registry(f"http://{address}", environment={})
    assert asked.versions(["malearn-a", "malearn-b"]) == {"malearn-a": 5}


@pytest.mark.parametrize(
    ("user", "environment", "sent"),
    [
        ("ann:p%40ss@", {}, "Basic " + base64.b64encode(b"ann:p@ss").decode()),
        (
            "",
            {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "s"},
            "Basic " + base64.b64encode(b"ann:s").decode(),
        ),
        ("", {"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        ("", {}, None),
    ],
)
def test_credentials_come_from_the_url_or_the_environment(
    address: str, user: str, environment: dict[str, str], sent: str | None
) -> None:
    Answers.reply = {"search": (200, b"{}")}
    registry.Registry(f"http://{user}{address}", environment=environment).versions([])
    assert Answers.asked[0][1] == sent


def test_an_error_shows_no_password(address: str) -> None:
    Answers.reply = {"search": (403, b"{}")}
    with pytest.raises(Unreachable) as error:
        registry.Registry(f"http://ann:secret@{address}", environment={}).versions([])
    assert "secret" not in str(error.value)
    assert "HTTP status 403" in str(error.value)


def test_a_redirect_is_not_followed_with_our_credentials(address: str) -> None:
    Answers.reply = {"search": (302, b"")}
    asked = registry.Registry(f"http://{address}", environment={})
    with pytest.raises(Unreachable, match="HTTP status 302"):
        asked.versions(["malearn-a"])


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"registered_models": 5}', b"\xff", b""])
def test_an_answer_that_is_not_mlflows_is_told_apart(address: str, body: bytes) -> None:
    Answers.reply = {"search": (200, body)}
    with pytest.raises(Unreachable, match="not MLflow's"):
        registry.Registry(f"http://{address}", environment={}).versions(["malearn-a"])


def test_an_oversized_file_is_not_read_to_its_end(address: str) -> None:
    Answers.reply = {"model.onnx": (200, bytes(onnx_file.LARGEST + 1))}
    asked = registry.Registry(f"http://{address}", environment={})
    with pytest.raises(ArtifactRefused, match=r"malearn-a version 2 is refused: .* larger than"):
        asked.download("malearn-a", 2)


GONE = (
    b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias X not found."}'
)


@pytest.mark.parametrize(
    ("status", "body", "gone"),
    [
        (400, GONE, True),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no model"}', True),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}', False),
        (404, b"<html>not found</html>", False),
        (400, b"{}", False),
        (404, b"[]", False),
        (200, b"<html>please log in</html>", False),
        (503, GONE, False),
    ],
)
def test_only_mlflows_own_word_means_that_an_alias_is_gone(
    address: str, status: int, body: bytes, gone: bool
) -> None:
    Answers.reply = {"alias?": (status, body)}
    asked = registry.Registry(f"http://{address}", environment={})
    if gone:
        assert asked.version("malearn-a") is None
    else:
        with pytest.raises(Unreachable):
            asked.version("malearn-a")


@pytest.mark.parametrize("status", [400, 404])
def test_a_search_that_a_proxy_answers_empties_nothing(address: str, status: int) -> None:
    Answers.reply = {"search": (status, b"<html>not here</html>")}
    with pytest.raises(Unreachable, match=f"HTTP status {status}"):
        registry.Registry(f"http://{address}", environment={}).versions(["malearn-a"])


def test_pages_that_repeat_themselves_end(address: str) -> None:
    Answers.reply = {"search": (200, b'{"registered_models": [], "next_page_token": "again"}')}
    with pytest.raises(Unreachable, match="pages without an end"):
        registry.Registry(f"http://{address}", environment={}).versions(["malearn-a"])


def test_the_digest_that_was_noted_is_told(address: str) -> None:
    tags = [{"key": "malearn.family", "value": "x"}, {"key": registry.DIGEST, "value": "abc"}]
    found = {"model_version": {"version": "1", "tags": tags}}
    Answers.reply = {"name=malearn-a&": (200, json.dumps(found).encode())}
    Answers.reply["name=malearn-b&"] = (200, b'{"model_version": {"version": "1"}}')
    asked = registry.Registry(f"http://{address}", environment={})
    assert asked.digest("malearn-a", 1) == "abc"
    assert asked.digest("malearn-b", 1) is None


# Answers without an end. Each would take minutes; a limit of half a second holds.


def _drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.1)


def _slow_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(90):
        connection.sendall(f"X-{number}: y\r\n".encode())
        time.sleep(0.1)


def _endless_continue(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


def _endless_chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1\r\n \r\n")
        time.sleep(0.1)


def _cut(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Serves every connection with bytes that no HTTP server would send."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(answer: Callable[[socket.socket], None]) -> str:
        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                answer(connection)

        def all_of_them() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=all_of_them, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.mark.parametrize("answer", [_drip, _slow_headers, _endless_continue, _endless_chunks])
def test_an_answer_that_never_ends_is_given_up(raw: Any, answer: Any) -> None:
    asked = registry.Registry(raw(answer), patience=0.5, environment={})
    with pytest.raises(Unreachable, match=r"too long|timed out"):
        asked.versions(["malearn-a"])


def test_a_download_that_was_cut_off_is_no_broken_version(raw: Any) -> None:
    asked = registry.Registry(raw(_cut), environment={})
    with pytest.raises(Unreachable, match="cut off after 10 of 1,000 bytes"):
        asked.versions(["malearn-a"])


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:1", ":::", "http://["])
def test_proxy_variables_of_any_kind_leave_this_machine_alone(
    address: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for another one, what is wrong with them is no more than a server out of reach."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    Answers.reply = {"search": (200, b"{}")}
    assert registry.Registry(f"http://{address}", environment={}).versions(["malearn-a"]) == {}
    with pytest.raises(Unreachable):
        registry.Registry("http://mlflow.invalid:5000", environment={}).versions(["malearn-a"])


def test_a_proxy_is_asked_and_mlflow_gets_the_credentials(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{address}")
    monkeypatch.delenv("no_proxy", raising=False)
    Answers.reply = {"http://mlflow.invalid:5000/api": (200, b"{}")}
    asked = registry.Registry("http://ann:s@mlflow.invalid:5000", environment={})
    assert asked.versions(["malearn-a"]) == {}
    assert Answers.asked[0][1] == "Basic " + base64.b64encode(b"ann:s").decode()
