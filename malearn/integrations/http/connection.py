"""One client's connection: within limits, and every answer in the form of the interface."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from malearn.integrations.http import error_response

__all__ = ["HEAD_TIMEOUT", "MOST_CONNECTIONS", "OVERLOADED", "Connection"]

#: Seconds in which the head of a request must have arrived: from the start of the connection or,
#: on one that is kept, from the first byte of the next request.
HEAD_TIMEOUT = 10.0
#: Connections at once; requests on more are answered with 503.
MOST_CONNECTIONS = 1_000
#: The key of a request's `state` that says whether there are more than that.
OVERLOADED = "overloaded"

_UNREADABLE = "The request is not valid HTTP/1.1, or its head is larger than 64 KiB."


class Connection(H11Protocol):
    """uvicorn's protocol with a limit for the head of a request, which uvicorn does not have.

    Without it, whoever opens connections and sends nothing, or a byte now and then, occupies all
    that there may be, and needs no token for it. What uvicorn would answer in plain text is
    answered as all else is: an unreadable request here, one on too many connections by the
    application, which finds `OVERLOADED` in its state.
    """

    def __init__(
        self,
        *given: Any,
        head_timeout: float = HEAD_TIMEOUT,
        most_connections: int = MOST_CONNECTIONS,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self._head_timeout, self._most_connections = head_timeout, most_connections
        self._deadline: asyncio.TimerHandle | None = None
        self.app_state = dict(self.app_state)  # of this connection alone

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._limit()

    def data_received(self, data: bytes) -> None:
        """Take in what came; a head that is not complete by then has its limit."""
        super().data_received(data)
        # h11 is IDLE until the head is complete.
        if self.conn.their_state is h11.IDLE:
            self._limit()
        else:
            self._unlimit()

    def handle_events(self) -> None:
        """Pass on what is complete of the requests that came."""
        # Requests get a copy of this state. Those of connections that were lost still run.
        busy = max(len(self.connections), len(self.tasks))
        self.app_state[OVERLOADED] = busy > self._most_connections
        super().handle_events()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and end the connection."""
        # Within another answer it would be taken for a part of that one.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(HTTPStatus.BAD_REQUEST, _UNREADABLE)
        self.transport.close()

    def on_response_complete(self) -> None:
        """Go on to what the client sent meanwhile, be it only the beginning of a request."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._limit()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._unlimit()
        super().connection_lost(exc)

    def _limit(self) -> None:
        # Not renewed by further bytes: a client that sends one now and then must not wait for ever.
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._head_timeout, self._too_slow)

    def _unlimit(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        # The head may have become complete in the same turn of the event loop.
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        sentence = f"The head of the request did not arrive within {self._head_timeout:g} seconds."
        self._answer(HTTPStatus.REQUEST_TIMEOUT, sentence)
        self.transport.close()

    def _answer(self, status: HTTPStatus, sentence: str) -> None:
        """Send an error for which there is no request that the application could answer."""
        body = error_response.body(sentence)
        # Written by hand: h11 has no reply to a request that it has not seen the end of.
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {error_response.MEDIA_TYPE}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
