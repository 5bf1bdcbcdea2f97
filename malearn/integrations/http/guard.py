"""Access control of the HTTP service: by host name, origin and token.

A page in a browser can reach a service on loopback, under a name of its own that it has pointed
there (DNS rebinding) or as a cross-site request. So a Host that is not ours and any foreign Origin
are refused, before anything else is looked at.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http import HTTPStatus

from malearn.integrations.http.refused import RequestRefused
from malearn.kernel import hosts

__all__ = ["Guard", "Headers"]

#: What a health probe may ask without a token: it reveals only that the service is up.
_OPEN = frozenset({"/health"})
_LONGEST = 512  # characters of a host's name

#: As ASGI gives them: lower-case names, raw values.
Headers = Iterable[tuple[bytes, bytes]]


class Guard:
    """Checks a request's headers: `names` are hosts that this service goes by.

    `token` is what `Authorization: Bearer` must carry, None where nobody needs one.
    """

    def __init__(self, token: str | None, names: Iterable[str] = ()) -> None:
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._names = frozenset(hosts.of_header(name) for name in names)

    def check(self, path: str, headers: Headers, arrived_at: str) -> None:
        """Raise `RequestRefused` for a request that may not pass.

        `arrived_at` is the address of ours that the connection was made to, which is always a
        fine name: a rebound name is never an address.
        """
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in (b"host", b"origin", b"authorization"):
                # A proxy before this service might have checked the other one.
                if name in found:
                    raise RequestRefused(400, f"The header {name.decode()} is there twice.")
                found[name] = value
        # latin-1 decodes any bytes, so a strange header is refused below instead of raising here.
        host = found.get(b"host", b"").decode("latin-1").lower()
        if not self._is_ours(host, arrived_at):
            raise RequestRefused(
                HTTPStatus.FORBIDDEN,
                f"The host '{host[:_LONGEST]}' is not a name of this service; "
                "start it with --allow-host if it should be.",
            )
        origin = found.get(b"origin")
        # Programs send no Origin; a page of this service's own sends its host.
        if origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host:
            raise RequestRefused(
                HTTPStatus.FORBIDDEN, "Pages of other origins may not use this service."
            )
        if self._expected is None or path in _OPEN:
            return
        given = found.get(b"authorization", b"")
        # In constant time: how long it takes must not tell how much of a guess is right.
        if not hmac.compare_digest(given, self._expected):
            raise RequestRefused(
                HTTPStatus.UNAUTHORIZED,
                "A token is needed: send it as 'Authorization: Bearer TOKEN'.",
            )

    def _is_ours(self, host: str, arrived_at: str) -> bool:
        name = hosts.of_header(host)
        return hosts.is_loopback(name) or name in self._names or name == arrived_at
