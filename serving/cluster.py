"""A Redis Cluster as schedulers see it: its primaries, and which of them holds which slot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import monotonic, perf_counter

from malearn.kernel.redis_address import Address
from malearn.serving import hash_slots, resp
from malearn.serving.circuit_breaker import CircuitBreaker
from malearn.serving.connection import Connection
from malearn.serving.resp import ProtocolError, Reply, ResponseError

__all__ = ["Cluster", "Node", "Open"]

#: Opens a connection to one node. Raises OSError, `ProtocolError` and `ResponseError`.
Open = Callable[[Address], Connection]

_REFRESH_INTERVAL = 0.5  # seconds between two questions for the slots


class Node:
    """A primary; `breaker` is open while it does not answer."""

    __slots__ = ("address", "breaker")

    def __init__(self, address: Address) -> None:
        self.address, self.breaker = address, CircuitBreaker()

    def __str__(self) -> str:
        return f"{self.address.host}:{self.address.port}"


class Cluster:
    """Shared by all connections to one cluster. Callers only read `owners` and set `stale`.

    `seed` is the address that was given; `timeout` bounds a question to a node, in seconds.
    """

    def __init__(self, seed: Address, open_node: Open, timeout: float) -> None:
        self.open_node = open_node
        self._seed, self._timeout = seed, timeout
        self._by_place: dict[tuple[str, int], Node] = {}
        self._refresh_at = 0.0
        #: The primaries, and by slot the one that holds it; both are replaced, never changed.
        self.nodes: tuple[Node, ...] = ()
        self.owners: tuple[Node | None, ...] = (None,) * hash_slots.COUNT
        #: Whether slots have moved, or a node is away: the map is asked for again.
        self.stale = True

    def named(self, place: str, asked: Node) -> Node | None:
        """The node at `place`, as `MOVED` names it; None where it is not known yet."""
        host, _, port = place.rpartition(":")
        if not port.isdigit():
            return None
        # Without a host it is another port of the machine that was asked.
        return self._by_place.get((host or asked.address.host, int(port)))

    def maintain(self) -> None:
        """Ask for the slots again where that is due, and nodes that went away. Background only."""
        if self.stale and monotonic() >= self._refresh_at:
            # Where none answers, connections find that out.
            with contextlib.suppress(OSError, ProtocolError, ResponseError):
                self.refresh()
        for node in self.nodes:
            if node.breaker.due and (connection := self.connection_to(node)) is not None:
                connection.close()

    def refresh(self) -> None:
        """Learn which node holds which slots, from whichever answers. Background only.

        Raises what the last one that was asked raised where none answers.
        """
        self._refresh_at = monotonic() + _REFRESH_INTERVAL
        working = [node.address for node in self.nodes if node.breaker.closed]
        failure: Exception = ConnectionError("no node of the cluster answers")
        # The given address last: it may be a name that leads to any of them.
        for address in dict.fromkeys([*working, self._seed]):
            try:
                self._read(self._slots(address), address)
            except (OSError, ProtocolError, ResponseError) as error:
                failure = error
                continue
            # While a node is away its replica may take over at any time.
            self.stale = not all(node.breaker.closed for node in self.nodes)
            return
        raise failure

    def connection_to(self, node: Node) -> Connection | None:
        """A new connection to a node, None where there is none to be had. Background only."""
        try:
            connection = self.open_node(node.address)
        except (OSError, ProtocolError, ResponseError):
            self.failed(node)
            return None
        node.breaker.close()
        return connection

    def failed(self, node: Node) -> None:
        """Nobody waits for `node` until it answers again, or another has taken over."""
        node.breaker.fail()
        self.stale = True

    def _slots(self, address: Address) -> Reply:
        connection = self.open_node(address)
        try:
            deadline = perf_counter() + self._timeout
            (reply,) = connection.call(resp.pack("CLUSTER", "SLOTS"), 1, deadline)
        finally:
            connection.close()
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def _read(self, ranges: Reply, asked: Address) -> None:
        owners: list[Node | None] = [None] * hash_slots.COUNT
        try:
            for first, last, (host, port, *_), *_replicas in ranges:
                # A node that does not know its own name answers from where it was asked.
                known = host and host != b"?"
                node = self._node(asked.of_node(host.decode() if known else asked.host, int(port)))
                owners[first : last + 1] = [node] * (last + 1 - first)
        except (TypeError, ValueError, AttributeError) as error:
            raise ProtocolError("not the answer to CLUSTER SLOTS") from error
        if len(owners) != hash_slots.COUNT:
            raise ProtocolError("not the answer to CLUSTER SLOTS")
        nodes = tuple(dict.fromkeys(node for node in owners if node is not None))
        self.nodes, self.owners = nodes, tuple(owners)

    def _node(self, address: Address) -> Node:
        place = address.host, address.port
        if place not in self._by_place:
            # Replaced, not changed: callers look into it meanwhile.
            self._by_place = {**self._by_place, place: Node(address)}
        return self._by_place[place]
