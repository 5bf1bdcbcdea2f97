"""Where embedded servers listen: free ports, the same ones for the same home where possible."""

from __future__ import annotations

import socket
from itertools import islice
from zlib import crc32

from malearn.kernel.hosts import LOOPBACK

__all__ = ["client_host", "find_free", "is_free"]

ANY_HOST = "0.0.0.0"
# Below the range from which Linux (32768) and macOS (49152) take the source ports of outgoing
# connections, so that nobody gets the port by chance before the server listens on it.
FIRST, LAST = 20_000, 32_000


def find_free(seed: str, host: str = LOOPBACK) -> int:
    """A free port of `host`. It depends on `seed` so that a restarted server keeps its address.

    >>> find_free("a home") in range(20_000, 32_000)
    True
    """
    # Not hash(), which differs from process to process.
    start = crc32(seed.encode())
    # 7 shares no factor with the size of the range, so the steps reach every port.
    candidates = (FIRST + (start + 7 * step) % (LAST - FIRST) for step in range(LAST - FIRST))
    for port in islice(candidates, 500):
        if is_free(port, host):
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `port` of `host`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: without it, closed connections of the last server (TIME_WAIT) would
        # make its port look taken for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def client_host(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return LOOPBACK if host == ANY_HOST else host
