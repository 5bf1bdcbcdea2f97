"""Where a Redis is, by URL, and how a connection to it begins.

`redis://`, `rediss://` (TLS) and `unix://`, with credentials and options as redis-py reads
them. redis-py itself is not used here: loading it costs a scheduler 25 MiB and a third of a
second, for a socket and two commands.

What is not understood is refused, never passed over: a misspelt option of TLS would
otherwise turn off the protection that it asks for.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from malearn.kernel.errors import InputError, without_password

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["Address", "Tls", "of_cluster", "one_database", "unsuitable"]

_TRUE, _FALSE = {"true", "t", "yes", "y", "1"}, {"false", "f", "no", "n", "0"}
_VERIFY = ("required", "optional", "none")
#: Codes of the errors that only a server which holds a part of the keys answers with.
_OF_CLUSTER = ("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN", "TRYAGAIN")
_OPTIONS = ("db", "username", "password")
_TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server's certificate is checked, and which one is shown to it.

    Paths are empty where none is given: then the system's own authorities count.
    """

    verify: str = "required"
    check_hostname: bool = True
    authorities: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> SSLContext:
        """Raises OSError for files that cannot be read."""
        import ssl

        context = ssl.create_default_context(cafile=self.authorities or None)
        # First: Python refuses CERT_NONE as long as names are checked.
        context.check_hostname = self.check_hostname
        if self.verify != "required":
            context.verify_mode = getattr(ssl, f"CERT_{self.verify.upper()}")
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key or None)
        return context


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one server. `path` is a socket's; `tls` is None where none is used."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: Tls | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises `InputError`, without any password, for what is not understood.

        >>> Address.parse("redis://:secret@cache:7000/2")
        Address(host='cache', port=7000, path='', database=2, user='', tls=None)
        """
        try:
            parts = _split(url)
            options = _options(parts)
            unix = parts.scheme == "unix"
            # The path of unix:// is the socket's, so its database can stand in the query alone.
            database = options.get("db", "" if unix else parts.path.strip("/"))
            if database and not (database.isascii() and database.isdigit()):
                raise ValueError("its database is not a number")
            return cls(
                host=unquote(parts.hostname or "127.0.0.1"),
                port=parts.port or 6379,
                path=unquote(parts.path) if unix else "",
                database=int(database or 0),
                user=unquote(parts.username or "") or options.get("username", ""),
                password=unquote(parts.password or "") or options.get("password", ""),
                tls=_tls(options) if parts.scheme == "rediss" else None,
            )
        except ValueError as error:
            # `from None`: a traceback would show what was parsed, password included.
            raise InputError(without_password(url), f"is not a usable Redis URL: {error}") from None

    def of_node(self, host: str, port: int) -> Address:
        """The address of a node of the cluster that is reached here: the same credentials, and
        certificates, and the only database that a cluster has."""
        return replace(self, host=host, port=port, path="", database=0)

    def connect(self, timeout: float) -> socket.socket:
        """An open socket; each step waits `timeout` seconds at most. Raises OSError."""
        if self.path:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
            try:
                sock.connect(self.path)
            except BaseException:
                sock.close()
                raise
            return sock
        sock = socket.create_connection((self.host, self.port), timeout)
        # A command is one small packet that is waited for: Nagle's algorithm would hold it back.
        # Keep-alive tells a worker's idle connection of a peer that is gone.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.tls is None:
            return sock
        try:
            secured: socket.socket = self.tls.context().wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        return secured

    def greeting(self) -> list[tuple[str, ...]]:
        """The commands that a connection begins with."""
        commands: list[tuple[str, ...]] = []
        if self.user:
            commands.append(("AUTH", self.user, self.password))  # a user may have no password
        elif self.password:
            commands.append(("AUTH", self.password))
        if self.database:
            # After AUTH, before which a server refuses everything else.
            commands.append(("SELECT", str(self.database)))
        return commands


def of_cluster(code: str) -> bool:
    """Whether a server that answers an error with this `code` is a node of a Redis Cluster."""
    return code in _OF_CLUSTER


def one_database(url: str, database: int) -> InputError:
    """The error of a `url` that names a database of a cluster other than its only one, 0."""
    problem = f"is a Redis Cluster, which has no database {database}; leave it out of the URL"
    return InputError(f"Redis at {without_password(url)}", problem)


def unsuitable(said: str) -> str | None:
    """What a server is, and what to give instead, that answers the error `said`.

    None where the error says nothing against the server itself.
    """
    if "unknown command" in said.lower():
        return (
            f"is no Redis that holds data ({said}), a Sentinel perhaps; give the primary's address"
        )
    return None


def _split(url: str) -> SplitResult:
    """The parts of `url`. Raises ValueError with a sentence that holds nothing of a password."""
    if url.startswith(("redis+sentinel://", "rediss+sentinel://", "sentinel://")):
        raise ValueError(
            "Sentinel is not supported; give the primary's own address, or a name that follows it"
        )
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("it must begin with redis://, rediss:// or unix://")
    # Python's own sentences would show what stands where the port should: part of a password.
    hint = "a #, /, ? or @ in a user or password is written %23, %2F, %3F or %40"
    if "#" in url:
        raise ValueError(f"it has a #; {hint}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {hint}") from None
    if "@" in parts.query:  # so what stands before it is most likely a password with a ?
        raise ValueError(f"it has an @ after its ?; {hint}")
    if port == 0:
        raise ValueError("its port is 0")
    return parts


def _options(parts: SplitResult) -> dict[str, str]:
    """The query's options by name. Raises ValueError, naming the first that is not understood."""
    secure = parts.scheme == "rediss"
    known = (*_OPTIONS, *_TLS_OPTIONS) if secure else _OPTIONS
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            where = "needs rediss://" if name in _TLS_OPTIONS else "is not one of its options"
            raise ValueError(f"'{name}' {where} ({', '.join(known)})")
        if name in options:
            raise ValueError(f"'{name}' is given twice")
        if not value:
            raise ValueError(f"'{name}' has no value")
        options[name] = value
    return options


def _tls(options: dict[str, str]) -> Tls:
    verify = options.get("ssl_cert_reqs", "required").lower()
    if verify not in _VERIFY:
        raise ValueError(f"'ssl_cert_reqs' must be one of {', '.join(_VERIFY)}")
    # Without verification a name proves nothing, so it is checked only where that is asked for
    # together with a certificate.
    check = options.get("ssl_check_hostname", "no" if verify == "none" else "yes").lower()
    if check not in _TRUE | _FALSE:
        raise ValueError("'ssl_check_hostname' must be true or false")
    if check in _TRUE and verify == "none":
        raise ValueError("'ssl_check_hostname' needs a certificate that is verified")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("'ssl_keyfile' needs 'ssl_certfile'")
    return Tls(
        verify,
        check in _TRUE,
        options.get("ssl_ca_certs", ""),
        options.get("ssl_certfile", ""),
        options.get("ssl_keyfile", ""),
    )
