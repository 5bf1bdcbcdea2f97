"""Clients that open connections and do not send, or send no HTTP: a service meets many."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest

from malearn import DAGTaskPredictor
from malearn.integrations.http import app, server
from malearn.kernel import tool_types
from tests.malearn.integrations.http.conftest import TOKEN, Service, serving


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits for the head of a request for three seconds."""
    types = tool_types.declared()
    place = tmp_path_factory.mktemp("http")
    with DAGTaskPredictor("redis://127.0.0.1:1/0", cache_dir=place, tool_types=types) as predictor:
        asgi = app.create(predictor, types, TOKEN)
        with serving(asgi, head_timeout=3.0) as port:
            yield Service(port, predictor)


def connected(service: Service, sent: bytes = b"") -> socket.socket:
    found = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    found.sendall(sent)
    return found


def all_of(connection: socket.socket) -> bytes:
    """What comes until the service ends the connection."""
    found = b""
    with connection:
        while piece := connection.recv(65536):
            found += piece
    return found


def answer_on(connection: socket.socket) -> bytes:
    """One answer to `HEALTH`, which may come in pieces; the connection is kept."""
    found = b""
    while not found.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, "the service ended the connection"
        found += piece
    return found


HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def test_a_head_that_does_not_arrive_ends_the_connection(hasty: Service) -> None:
    beginnings = (b"", b"GET /hea", HEALTH[:-2], HEALTH + b"GET /hea")
    for sent, connection in [(sent, connected(hasty, sent)) for sent in beginnings]:
        answer = all_of(connection).decode()
        status, _, rest = answer.rpartition("HTTP/1.1 ")[2].partition("\r\n")
        assert status == "408 Request Timeout"
        assert "The head of the request did not arrive within 3 seconds." in rest
        assert answer.count("200 OK") == sent.count(HEALTH)


def test_silent_connections_end_and_others_are_answered_and_may_be_kept(hasty: Service) -> None:
    silent = [connected(hasty, b"GET") for _ in range(100)]
    with connected(hasty, HEALTH) as kept:
        assert b"200 OK" in answer_on(kept)
        assert all(b"408" in all_of(one) for one in [*silent, connected(hasty)])
        kept.sendall(HEALTH)
        # It was idle for longer than a head may take.
        assert b"200 OK" in answer_on(kept)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\r\n\r\n", HEALTH.replace(b"1.1\r", b"\r"), b"x" * 70_000]
)
def test_what_is_no_http_is_answered_as_any_other_error(
    hasty: Service, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head, _, body = all_of(connected(hasty, sent)).decode().partition("\r\n\r\n")
    assert head.splitlines()[0] == "HTTP/1.1 400 Bad Request"
    assert {"Content-Type: application/json", "Connection: close"} <= set(head.splitlines())
    assert json.loads(body) == {
        "status": "error",
        "error": "The request is not valid HTTP/1.1, or its head is larger than 64 KiB.",
    }
    assert caplog.records == [], "a client cannot fill the log"


def test_what_is_no_http_within_a_request_ends_it_without_a_second_answer(hasty: Service) -> None:
    chunked = HEALTH[:-2].replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = all_of(connected(hasty, chunked + b"no length\r\n"))
    assert answer.count(b"HTTP/1.1 ") <= 1


def test_too_many_connections_are_answered_as_any_other_error() -> None:
    types = tool_types.declared()
    with DAGTaskPredictor("", tool_types=types) as predictor:
        asgi = app.create(predictor, types, TOKEN)
        with serving(asgi, most_connections=2) as port:
            service = Service(port, predictor)
            held = [connected(service), connected(service)]
            full = service.ask("GET", "/health")
            assert full.status == 503
            assert full.error == "There are too many connections; try again in a moment."
            assert full.headers["content-type"] == "application/json"
            assert full.headers["connection"] == "close"
            for one in held:
                one.close()
            until = time.monotonic() + 60.0
            while service.ask("GET", "/health").status == 503 and time.monotonic() < until:
                time.sleep(0.01)
            shown = service.ask("GET", "/metrics").body.decode()
            assert 'malearn_http_requests_total{route="other",status="503"}' in shown


def test_an_answer_is_not_held_back_until_its_head_is_acknowledged() -> None:
    async def undelayed(listener: socket.socket) -> int:
        """Whether the service's end of a connection sends at once, as its event loop leaves it."""
        found: asyncio.Queue[int] = asyncio.Queue()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            end = writer.get_extra_info("socket")
            found.put_nowait(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, sock=listener):
            _, client = await asyncio.open_connection(*listener.getsockname())
            client.close()
            await client.wait_closed()
            return await found.get()

    with server.listen("127.0.0.1", 0) as listener:
        assert asyncio.run(undelayed(listener))
