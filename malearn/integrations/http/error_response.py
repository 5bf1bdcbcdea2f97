"""What every failure is answered with: JSON that holds one sentence."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.responses import Response

__all__ = ["MEDIA_TYPE", "body", "response"]

MEDIA_TYPE = "application/json"

#: Statuses after which a part of the body may be unread.
_UNREAD = {401, 403, 408, 413, 415, 503}


class _Error(msgspec.Struct, frozen=True):
    status: str
    error: str


def body(sentence: str) -> bytes:
    """The error as JSON.

    >>> body("There is no such run.")
    b'{"status":"error","error":"There is no such run."}'
    """
    return msgspec.json.encode(_Error("error", sentence))


def response(status: int, sentence: str) -> Response:
    """The answer with `status` and the headers that HTTP wants with it."""
    # Else the rest of the body would be taken for the next request on the connection.
    headers = {"Connection": "close"} if status in _UNREAD else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(body(sentence), status, headers, MEDIA_TYPE)
