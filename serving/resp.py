"""RESP2, Redis's protocol: commands are packed here, replies are parsed by hiredis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis

__all__ = [
    "INCOMPLETE",
    "NodeUnreachable",
    "ProtocolError",
    "Reply",
    "ResponseError",
    "pack",
    "pack_gets",
    "reader",
    "unpack",
]

#: What Redis answers: bytes, an integer, None, a list of such, or a `ResponseError`.
Reply = Any

#: What a reader gives while the next reply has not wholly arrived.
INCOMPLETE = object()


class ProtocolError(Exception):
    """The server's bytes are not RESP; the connection cannot be used any further."""


class ResponseError(Exception):
    """Redis answered with an error, such as `OOM …` or `LOADING …`."""

    @property
    def code(self) -> str:
        """The error's first word, which says what kind it is: `READONLY`, `NOAUTH`, …"""
        return str(self).partition(" ")[0]


class NodeUnreachable(ResponseError):
    """Stands for the answer of a node of a cluster that gave none; others answered."""

    def __init__(self, node: str) -> None:
        super().__init__(f"UNREACHABLE {node}, a node of the cluster, does not answer")


def reader() -> Any:
    """A parser that is fed bytes and gives replies, `INCOMPLETE` once there is no whole one."""
    # hiredis returns a `replyError` as one reply among others, and raises a `protocolError`.
    return hiredis.Reader(
        protocolError=ProtocolError, replyError=ResponseError, notEnoughData=INCOMPLETE
    )


def pack(*words: str | bytes) -> bytes:
    """One command.

    >>> pack("GET", "ü")
    b'*2\\r\\n$3\\r\\nGET\\r\\n$2\\r\\n\\xc3\\xbc\\r\\n'
    """
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        # A task id may hold half a surrogate pair, and must not cost an answer.
        raw = word if isinstance(word, bytes) else word.encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def pack_gets(keys: Sequence[str]) -> bytes:
    """As `pack("GET", key)` for each of `keys`, in a third of the time where they are ASCII."""
    commands = "".join([f"*2\r\n$3\r\nGET\r\n${len(key)}\r\n{key}\r\n" for key in keys])
    # Only then is a key's length in characters its length in bytes.
    if commands.isascii():
        return commands.encode()
    return b"".join([pack("GET", key) for key in keys])


def unpack(packed: bytes) -> list[list[bytes]]:
    """The words of each of `packed` commands.

    >>> unpack(pack("GET", "a") + pack("EXISTS", "b"))
    [[b'GET', b'a'], [b'EXISTS', b'b']]
    """
    # A command is a list of byte strings, and so is its form a reply's.
    parser, commands = reader(), list[list[bytes]]()
    parser.feed(packed)
    while (command := parser.gets()) is not INCOMPLETE:
        commands.append(command)
    return commands
