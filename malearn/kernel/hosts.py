"""Names of hosts: which of them are this machine's alone, and how a Host header names one."""

from __future__ import annotations

__all__ = ["LOOPBACK", "is_loopback", "of_header"]

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether a server at `host`, or one that listens there, is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    >>> is_loopback("127.example.com")
    False
    """
    # All of 127.0.0.0/8 is loopback, but a name that begins so may resolve to anywhere.
    numbers = host.startswith("127.") and host.replace(".", "").isdigit()
    return numbers or host in ("localhost", "::1")


def of_header(header: str) -> str:
    """The host that a Host header names, in lower case, without port and brackets.

    A service on loopback answers to loopback's names alone: a page in a browser can reach it under
    a name of its own that it has pointed there (DNS rebinding).

    >>> of_header("LOCALHOST:8080"), of_header("[::1]:80"), of_header("::1"), of_header("evil:x")
    ('localhost', '::1', '::1', 'evil:x')
    """
    host = header.lower()
    name, _, port = host.rpartition(":")
    # A bare IPv6 address has colons of its own: what follows the last one is no port.
    if port.isdecimal() and (":" not in name or name.endswith("]")):
        host = name
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
