"""Ports: free, below those of outgoing connections, the same for the same home."""

from __future__ import annotations

import socket

from malearn.kernel import hosts
from malearn.platform import port


def test_is_the_same_for_the_same_home() -> None:
    assert port.find_free("home a") == port.find_free("home a")


def test_another_one_is_found_when_that_is_taken() -> None:
    first = port.find_free("home b")
    with socket.create_server((hosts.LOOPBACK, first)):
        assert not port.is_free(first)
        assert port.find_free("home b") != first
