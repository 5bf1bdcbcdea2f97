"""Plain HTTP with a deadline on the whole exchange, and MLflow's credentials.

For whoever must not load MLflow: the scheduler's process, and the check whether a server
answers before MLflow's client is imported. A redirect is an answer, not a way on: it
would carry the credentials elsewhere. Proxies are those of the environment, but never
for this machine.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from malearn.kernel import hosts, late_imports

__all__ = [
    "FIRST_ANSWER",
    "Answer",
    "HttpClient",
    "TooLarge",
    "authorization",
    "without_credentials",
]

#: Seconds in which a server that was given must answer at all: its first answer may be slow, of
#: one that sleeps while nobody asks or that has just been started.
FIRST_ANSWER = 30.0
_CHUNK = 256 * 1024  # bytes between two looks at the deadline


class TooLarge(Exception):
    """A body beyond what was asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and whole body."""

    status: int
    body: bytes


class HttpClient:
    """One server. `timeout`, in seconds, bounds each wait for the network. Not thread-safe."""

    def __init__(
        self, address: str, timeout: float, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._base = without_credentials(address).rstrip("/")
        parts = urlsplit(self._base)
        self.usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        self._local = hosts.is_loopback(parts.hostname or "")
        self._timeout, self._environment = timeout, environment
        self._authorization = authorization(address, environment)
        self._opener: Any = None
        self._until = 0.0

    def get(self, path: str, largest: int, until: float) -> Answer:
        """What `path` answers, whatever its status, before `until` by the monotonic clock.

        Raises `TooLarge` beyond `largest` bytes, `OSError` when there is no whole answer.
        """
        with late_imports.uninterrupted():
            # Loaded with the first exchange: a process without MLflow is spared their import.
            from http.client import HTTPException
            from urllib.error import HTTPError
            from urllib.request import Request

        request = Request(self._base + path)
        if self._authorization:  # unredirected: a proxy's tunnel does not get to see it
            request.add_unredirected_header("Authorization", self._authorization)
        self._opener = self._opener or self._built()
        self._until = until  # for the connection; there is one exchange at a time
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole exchange takes too long")
        try:
            with self._opener.open(request, timeout=min(self._timeout, left)) as response:
                return Answer(response.status, _body(response, largest))
        except HTTPError as error:
            # To urllib a status from 400 on is an error; here it is an answer with a body.
            with error:
                return Answer(error.code, _body(error, largest))
        # It is no OSError, and callers handle those alone.
        except HTTPException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def _built(self) -> Any:
        """urllib's opener whose connections keep to the deadline, made when first needed."""
        import http.client
        import urllib.request as web

        def response(sock: Any, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
            made = http.client.HTTPResponse(sock, *arguments, **options)
            # urllib bounds each `recv` alone: a server that drips bytes would hold the thread for
            # ever. HTTPResponse offers no other way in than its file.
            made.fp.close()
            made.fp = io.BufferedReader(_Deadline(sock, self._until, self._timeout))
            return made

        class Plain(http.client.HTTPConnection):
            response_class = staticmethod(response)  # type: ignore[assignment]

        class Secure(http.client.HTTPSConnection):
            response_class = staticmethod(response)  # type: ignore[assignment]

        class HttpHandler(web.HTTPHandler):
            def http_open(self, request: web.Request) -> Any:
                return self.do_open(Plain, request)

        class HttpsHandler(web.HTTPSHandler):
            def https_open(self, request: web.Request) -> Any:
                return self.do_open(Secure, request, context=context)

        # None makes urllib raise the redirect's own status, which `get` gives as the answer.
        class NoRedirects(web.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        handlers: list[Any] = [NoRedirects(), HttpHandler()]
        if self._local:
            # An empty table, since without this handler urllib adds one of the environment's.
            handlers.append(web.ProxyHandler({}))
        if self._base.startswith("https"):
            context = _tls(self._environment)
            handlers.append(HttpsHandler())
        return web.build_opener(*handlers)


class _Deadline(io.RawIOBase):
    """What a socket receives, until the deadline: a byte now and then does not put it off."""

    def __init__(self, sock: socket.socket, until: float, timeout: float) -> None:
        self._socket, self._until, self._timeout = sock, until, timeout
        # Keeps the socket open as long as there is something to read from it.
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole exchange takes too long")
        self._socket.settimeout(min(left, self._timeout))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _body(response: Any, largest: int) -> bytes:
    """The whole body. A server that says how long it is and sends less was cut off."""
    parts, size = [], 0
    while part := response.read(_CHUNK):
        size += len(part)
        if size > largest:
            raise TooLarge
        parts.append(part)
    # Read in parts, http.client takes an early end for the end of the body.
    promised = response.headers.get("Content-Length", "")
    if promised.isdigit() and size < int(promised):
        raise ConnectionError(f"the answer was cut off after {size:,} of {int(promised):,} bytes")
    return b"".join(parts)


def without_credentials(address: str) -> str:
    """An http address without user and password; "" for one that cannot be read.

    >>> without_credentials("https://ann:secret@host:5000/mlflow")
    'https://host:5000/mlflow'
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def authorization(address: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The `Authorization` header for an MLflow server: the address's user, else MLflow's variables.

    Those are `MLFLOW_TRACKING_USERNAME` and `_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`, in
    the order in which MLflow's own client looks at them.

    >>> authorization("http://host", {"MLFLOW_TRACKING_TOKEN": "abc"})
    'Bearer abc'
    """
    credentials, at, _ = address.partition("://")[2].partition("/")[0].rpartition("@")
    if at:
        user, _, password = map(unquote, credentials.partition(":"))
    else:
        user = environment.get("MLFLOW_TRACKING_USERNAME", "")
        password = environment.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


def _tls(environment: Mapping[str, str]) -> Any:
    """TLS as MLflow's client would set it up from its variables."""
    import ssl

    context = ssl.create_default_context(
        cafile=environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None
    )
    if client := environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        context.load_cert_chain(client)
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
