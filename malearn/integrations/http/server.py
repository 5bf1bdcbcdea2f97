"""Serving the HTTP interface with uvicorn, until SIGINT or SIGTERM."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from malearn.integrations.http.connection import HEAD_TIMEOUT, MOST_CONNECTIONS, Connection
from malearn.kernel.errors import InputError

__all__ = ["configuration", "listen", "run"]

_BACKLOG = 2_048
#: Seconds for which an idle connection is kept, and requests are waited for at the end.
_KEEP_ALIVE, _GRACE = 75, 5


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`, 0 for any. Raises `InputError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio turns Nagle's algorithm off on what it accepts; else the body
    # of an answer waits up to 40 ms for the client to acknowledge the head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart must not fail on closed connections of the last process (TIME_WAIT).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(f"{host}:{port}", f"cannot be listened at ({error.strerror})") from error
    return listener


def run(app: ASGIApp, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Answer requests at `listener` until SIGINT or SIGTERM; `ready` is called once it does."""
    # uvicorn raises the signal again that ended it; Ctrl-C is how a person ends a service.
    with contextlib.suppress(KeyboardInterrupt):
        _Server(configuration(app), ready).run([listener])


def configuration(
    app: ASGIApp,
    head_timeout: float = HEAD_TIMEOUT,
    most_connections: int = MOST_CONNECTIONS,
) -> uvicorn.Config:
    """How uvicorn serves `app`: within bounds, and silent about itself.

    `head_timeout` is the seconds that the head of a request may take; requests on more than
    `most_connections` are answered with 503.
    """
    protocol: Any = functools.partial(  # built by uvicorn
        Connection, head_timeout=head_timeout, most_connections=most_connections
    )
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol,
        # There are no WebSockets, and nothing that starts with the application.
        ws="none",
        lifespan="off",
        interface="asgi3",
        # uvicorn would configure logging for the whole process.
        log_config=None,
        access_log=False,
        # Its warnings are of what clients send: they must not be able to fill a log.
        log_level="error",
        server_header=False,
        date_header=False,
        # Else any client on this machine could claim another address by X-Forwarded-For.
        proxy_headers=False,
        # `Connection` keeps to a limit itself: uvicorn would answer in plain text.
        limit_concurrency=None,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )


class _Server(uvicorn.Server):
    """uvicorn's server with a callback for when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn has no callback of its own for this.
        await super().startup(sockets)
        self._ready()
