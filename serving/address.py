"""Where a Redis is, by URL, and how a connection to it begins.

`redis://`, `rediss://` (TLS) and `unix://`, with the options that redis-py
reads from a URL. redis-py itself is not used here: loading it costs a scheduler
25 MiB and a third of a second, for a socket and two commands.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from malearn.kernel.errors import InputError, without_password

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one server. `path` is a socket's, `tls` the options of a secure one."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises `InputError`, without the password, for what is no Redis URL.

        >>> Address.parse("redis://:secret@cache:7000/2")
        Address(host='cache', port=7000, path='', database=2, user='', tls=None)
        """
        try:
            parts = urlsplit(url)
            options = dict(parse_qsl(parts.query))
            unix = parts.scheme == "unix"
            if parts.scheme not in {"redis", "rediss", "unix"}:
                raise ValueError("it must begin with redis://, rediss:// or unix://")
            database = options.get("db") or ("" if unix else parts.path.strip("/"))
            return cls(
                host=unquote(parts.hostname or "127.0.0.1"),
                port=parts.port or 6379,
                path=unquote(parts.path) if unix else "",
                database=int(database or 0),
                user=unquote(parts.username or options.get("username", "")),
                password=unquote(parts.password or options.get("password", "")),
                tls=options if parts.scheme == "rediss" else None,
            )
        except ValueError as error:
            raise InputError(without_password(url), f"is no Redis URL ({error})") from None

    def connect(self, timeout: float) -> socket.socket:
        """An open socket; each step waits `timeout` seconds at most. Raises OSError."""
        if self.path:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
            sock.connect(self.path)
            return sock
        sock = socket.create_connection((self.host, self.port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.tls is None:
            return sock
        try:
            secured: socket.socket = _context(self.tls).wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        return secured

    def greeting(self) -> list[tuple[str, ...]]:
        """The commands that a connection begins with."""
        commands: list[tuple[str, ...]] = []
        if self.password:
            credentials = (self.user, self.password) if self.user else (self.password,)
            commands.append(("AUTH", *credentials))
        if self.database:
            commands.append(("SELECT", str(self.database)))
        return commands


def _context(options: Mapping[str, str]) -> Any:
    import ssl

    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    verify = options.get("ssl_cert_reqs", "required")
    if (
        options.get("ssl_check_hostname", "").lower() in {"false", "0", "no"}
        or verify != "required"
    ):
        context.check_hostname = False
    if verify != "required":
        context.verify_mode = ssl.CERT_OPTIONAL if verify == "optional" else ssl.CERT_NONE
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    return context
