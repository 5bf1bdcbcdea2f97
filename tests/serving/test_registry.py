"""What is asked of MLflow, with whose credentials, and what of them is shown."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from malearn.kernel import onnx_file
from malearn.kernel.errors import ArtifactRefused, Unreachable
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
    Answers.reply = {"search": (400, b"{}"), "alias?name=malearn-a&": (200, version)}
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
    assert asked.versions(["malearn-a"]) == {}


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
