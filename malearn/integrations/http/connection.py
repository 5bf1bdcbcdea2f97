"""One client's connection, which must not be kept busy by a request that never gets complete."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_TIMEOUT", "Connection"]

#: Seconds in which the head of a request must have arrived: from the start of the connection or,
#: on one that is kept, from the first byte of the next request.
HEAD_TIMEOUT = 10.0

_TOO_SLOW = (
    b'{"status":"error","error":"The head of the request did not arrive within %g seconds."}'
)


class Connection(H11Protocol):
    """uvicorn's protocol with a limit for the head of a request, which uvicorn does not have.

    Without it, whoever opens connections and sends nothing, or a byte now and then, occupies all
    that there may be, and needs no token for it.
    """

    def __init__(self, *given: Any, head_timeout: float = HEAD_TIMEOUT, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_timeout = head_timeout
        self._deadline: asyncio.TimerHandle | None = None

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
        body = _TOO_SLOW % self._head_timeout
        # Written by hand: h11 has no reply to a request that it has not seen the end of.
        head = (
            "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
