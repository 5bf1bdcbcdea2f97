"""Free ports on loopback, the same ones every time for the same home where possible."""

from __future__ import annotations

import socket
from itertools import islice
from zlib import crc32

__all__ = ["LOOPBACK", "free", "is_free"]

LOOPBACK = "127.0.0.1"
# Below the range from which Linux (32768) and macOS (49152) take the source ports of outgoing
# connections, so that nobody gets the port by chance before the server listens on it.
FIRST, LAST = 20_000, 32_000


def free(seed: str) -> int:
    """A free port. It depends on `seed` so that a restarted server keeps its address.

    >>> free("a home") in range(20_000, 32_000)
    True
    """
    start = crc32(seed.encode())
    candidates = (FIRST + (start + 7 * step) % (LAST - FIRST) for step in range(LAST - FIRST))
    for port in islice(candidates, 500):
        if is_free(port):
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
