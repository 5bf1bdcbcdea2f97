"""Connections to all nodes of a Redis Cluster, used together as if they were one.

Keys are asked for where they are: one round trip for each node, to all of them at once. What a
node does not answer by the deadline is missing, and what the others answered is used.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import ClassVar

from malearn.serving import hash_slots, resp
from malearn.serving.cluster import Cluster, Node
from malearn.serving.connection import Connection
from malearn.serving.resp import NodeUnreachable, ProtocolError, Reply, ResponseError

__all__ = ["UNANSWERED", "ClusterConnection", "PartlyAnswered"]

#: Stands for the value of a key that no node has given.
UNANSWERED = object()
_ROUNDS = 4  # in which commands are sent, anew where slots have moved meanwhile
_ASKING = resp.pack("ASKING")
#: Packed commands, and how many replies they have.
_Part = tuple[bytes, int]


class PartlyAnswered(Exception):
    """Some keys have no answer; `values` are those of all, `UNANSWERED` where there is none.

    `failure` is the trouble in one word, `refusal` an error that Redis answered. `lost` says that
    a connection broke which another one may still have.
    """

    def __init__(
        self, values: list[Reply], failures: Sequence[str], refusal: ResponseError | None
    ) -> None:
        self.failure = failures[0] if failures else "redis_failed"
        self.lost = "redis_failed" in failures
        super().__init__(self.failure)
        self.values, self.refusal = values, refusal


class ClusterConnection:
    """One open connection to each node that answers, for one caller at a time.

    `get_many` never opens one; `call` and `maintain`, which are for the background, do.
    """

    __slots__ = ("_cluster", "_connections")
    in_order: ClassVar[bool] = False

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._connections: dict[Node, Connection] = {}

    @classmethod
    def open(cls, cluster: Cluster) -> ClusterConnection:
        """To every node that answers. Raises `ConnectionError` where none does, `ResponseError`
        where there is none, and what `Cluster.refresh` raises. Background only."""
        opened = cls(cluster)
        if not any(node.breaker.closed for node in cluster.nodes):
            cluster.refresh()
            opened._connect(cluster.nodes)
        opened._complete()
        if not cluster.nodes:
            raise ResponseError("CLUSTERDOWN no slot has a node")
        if not opened._connections:
            raise ConnectionError("no node of the cluster answers")
        return opened

    @property
    def outdated(self) -> bool:
        """Whether a node answers to which this has no connection."""
        return bool(self._missing())

    def get_many(self, keys: Sequence[str], deadline: float) -> list[bytes | None]:
        """As `Connection.get_many`. Raises `PartlyAnswered`, after which this can be used on."""
        owners, slot_of = self._cluster.owners, hash_slots.slot_of
        places_of: dict[Node, list[int]] = {}
        for place, key in enumerate(keys):
            if (node := owners[slot_of(key)]) is not None:
                places_of.setdefault(node, []).append(place)
        parts = {
            node: (resp.pack_gets([keys[place] for place in places]), len(places))
            for node, places in places_of.items()
        }
        answers, failures = self._exchange(parts, deadline)
        values: list[Reply] = [UNANSWERED] * len(keys)
        moved: dict[Node, list[tuple[int, bool]]] = {}
        refusal: ResponseError | None = None
        for node, places in places_of.items():
            for place, reply in zip(places, answers[node], strict=False):
                if reply is None or type(reply) is bytes:
                    values[place] = reply
                elif not isinstance(reply, ResponseError):
                    self._cluster.failed(node)  # that is no Redis
                elif reply.code == "WRONGTYPE":
                    values[place] = None
                elif (target := self._moved(reply, node)) is not None:
                    moved.setdefault(target, []).append((place, reply.code == "ASK"))
                else:
                    refusal = reply
        if moved:
            failures |= self._follow(moved, keys, values, deadline)
        if UNANSWERED in values:
            raise PartlyAnswered(values, list(failures.values()), refusal)
        return values

    def call(self, packed: bytes, count: int, deadline: float) -> list[Reply]:
        """As `Connection.call`, each command to the node that holds its first key.

        What no node answers is a `NodeUnreachable` in its place. Commands on one key are carried
        out in their order; of others nothing is said. Background only.
        """
        commands = resp.unpack(packed)
        replies: list[Reply] = [UNANSWERED] * count
        left: list[int] = list(range(count))
        for _ in range(_ROUNDS):
            self._complete()
            places_of: dict[Node, list[int]] = {}
            for place in left:
                if (node := self._owner(commands[place])) is not None:
                    places_of.setdefault(node, []).append(place)
            parts = {
                node: (b"".join(resp.pack(*commands[place]) for place in places), len(places))
                for node, places in places_of.items()
            }
            answers, failures = self._exchange(parts, deadline)
            left = []
            for node, places in places_of.items():
                for place, reply in zip(places, answers[node], strict=False):
                    replies[place] = self._asked(commands[place], reply, node, deadline)
                    if self._is_moved(replies[place]):
                        left.append(place)
                # A connection that was closed while it was idle is no outage: once more.
                if failures.get(node) == "redis_failed":
                    left += places[len(answers[node]) :]
            if not left or perf_counter() > deadline:
                break
            left.sort()
            self._cluster.maintain()
        for place, reply in enumerate(replies):
            if reply is UNANSWERED:
                replies[place] = NodeUnreachable(str(self._owner(commands[place]) or "a slot"))
        return replies

    def probe(self, keys: Sequence[str], deadline: float) -> None:
        """Make sure that any node answers, whoever holds `keys`. Background only.

        Raises `ConnectionError` where none does.
        """
        self.maintain()
        if not self._connections:
            raise ConnectionError("no node of the cluster answers")

    def maintain(self) -> None:
        """Follow the cluster: slots that moved, nodes that came and went. Background only."""
        self._cluster.maintain()
        self._complete()

    def nodes(self) -> Sequence[Connection]:
        """The connections to all nodes that answer. Background only."""
        self._complete()
        return list(self._connections.values())

    def closed_by_server(self) -> bool:
        """Whether every node has closed its connection; those that have are parted with."""
        for node, connection in list(self._connections.items()):
            if connection.closed_by_server():
                self._lose(node)
        return not self._connections

    def close(self) -> None:
        """Close quietly; safe to repeat."""
        for connection in self._connections.values():
            connection.close()

    def abandon(self) -> None:
        """As `Connection.abandon`."""
        for connection in self._connections.values():
            connection.abandon()

    def _missing(self) -> list[Node]:
        connected = self._connections
        return [n for n in self._cluster.nodes if n not in connected and n.breaker.closed]

    def _complete(self) -> None:
        """Connect to nodes that answer, and part with what is no primary any more."""
        for node in self._connections.keys() - set(self._cluster.nodes):
            self._connections.pop(node).close()
        self._connect(self._missing())

    def _connect(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if (connection := self._cluster.connection_to(node)) is not None:
                self._connections[node] = connection

    def _owner(self, command: Sequence[bytes]) -> Node | None:
        return self._cluster.owners[hash_slots.slot_of(command[1])]

    def _moved(self, error: ResponseError, asked: Node) -> Node | None:
        """The node that `MOVED` or `ASK` names; None for any other error."""
        if error.code not in ("MOVED", "ASK"):
            return None
        # Of a slot on its way single keys are elsewhere; only of `MOVED` the map is wrong.
        self._cluster.stale = self._cluster.stale or error.code == "MOVED"
        return self._cluster.named(str(error).rpartition(" ")[2], asked)

    def _is_moved(self, reply: Reply) -> bool:
        if not (isinstance(reply, ResponseError) and reply.code == "MOVED"):
            return False
        self._cluster.stale = True
        return True

    def _follow(
        self,
        moved: Mapping[Node, list[tuple[int, bool]]],
        keys: Sequence[str],
        values: list[Reply],
        deadline: float,
    ) -> dict[Node, str]:
        """Ask the nodes that keys have moved to, in another round trip; the failures."""
        parts: dict[Node, _Part] = {}
        for node, places in moved.items():
            packed = b"".join(
                [_ASKING * asking + resp.pack("GET", keys[place]) for place, asking in places]
            )
            parts[node] = packed, len(places) + sum(asking for _, asking in places)
        answers, failures = self._exchange(parts, deadline)
        for node, places in moved.items():
            replies = iter(answers[node])
            for place, asking in places:
                if asking:
                    next(replies, None)
                reply = next(replies, UNANSWERED)
                if reply is None or type(reply) is bytes:
                    values[place] = reply
        return failures

    def _asked(self, command: Sequence[bytes], reply: Reply, asked: Node, deadline: float) -> Reply:
        """`reply`, or where it is `ASK` what the node that it names answers."""
        if not (isinstance(reply, ResponseError) and reply.code == "ASK"):
            return reply
        if (node := self._moved(reply, asked)) is None:
            self._cluster.stale = True
            return reply
        answers, _ = self._exchange({node: (_ASKING + resp.pack(*command), 2)}, deadline)
        return answers[node][1] if len(answers[node]) == 2 else UNANSWERED

    def _exchange(
        self, parts: Mapping[Node, _Part], deadline: float
    ) -> tuple[dict[Node, list[Reply]], dict[Node, str]]:
        """Send each node its commands, to all before any is waited for; what each has answered by
        the deadline, and the trouble of those that have not answered everything."""
        answers: dict[Node, list[Reply]] = {}
        failures: dict[Node, str] = {}
        waiting: dict[int, tuple[Node, Connection]] = {}
        poll = select.poll()
        for node, (packed, _) in parts.items():
            answers[node] = []
            connection = self._connections.get(node)
            if connection is None or not node.breaker.closed:
                failures[node] = "redis_failed" if node.breaker.closed else "redis_down"
                continue
            try:
                connection.send(packed, deadline)
            except OSError as error:
                failures[node] = self._gone(node, error)
                continue
            waiting[connection.fileno()] = node, connection
            poll.register(connection, select.POLLIN)
        while waiting:
            left = deadline - perf_counter()
            for descriptor, _ in (arrived := poll.poll(max(left * 1000.0, 0.0))):
                node, connection = waiting[descriptor]
                try:
                    if not connection.receive(answers[node], parts[node][1], deadline):
                        continue
                    node.breaker.succeed()
                except (OSError, ProtocolError) as error:
                    failures[node] = self._gone(node, error)
                # By its number: a connection that was closed has none any more.
                poll.unregister(descriptor)
                del waiting[descriptor]
            # What had arrived by the deadline was read all the same.
            if left <= 0.0 or not arrived:
                break
        for node, _ in waiting.values():
            self._lose(node)
            failures[node] = "redis_slow"
            # A slow network that delivers something is no outage: the rest comes next time.
            if not answers[node]:
                self._cluster.failed(node)
        return answers, failures

    def _gone(self, node: Node, error: Exception) -> str:
        """Part with the connection to a node on which `error` came; the trouble in one word."""
        self._lose(node)
        if isinstance(error, ConnectionError):
            # Most likely it was closed while it was idle; whether more is wrong is found out by
            # whoever opens the next one.
            return "redis_failed"
        self._cluster.failed(node)
        return "redis_slow" if isinstance(error, TimeoutError) else "redis_down"

    def _lose(self, node: Node) -> None:
        if (connection := self._connections.pop(node, None)) is not None:
            connection.close()
            self._cluster.stale = True
