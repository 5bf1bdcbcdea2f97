"""A real Redis Cluster of three primaries on this machine, formed without any other tool."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from malearn.data import redis_client
from malearn.serving import hash_slots
from tests.own_redis import OwnRedis, free_port

__all__ = ["Cluster"]

_FIRST = (0, 5461, 10922, hash_slots.COUNT)
#: Nobody but a test takes a node for dead, however busy the machine is; and what the others hold
#: is served without it.
_OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "120000"),
    *("--cluster-require-full-coverage", "no", "--appendonly", "yes", "--save", ""),
    *("--repl-diskless-sync-delay", "0"),
)


class Cluster:
    """Three nodes, each with a third of the slots; `url` is the first one's."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[OwnRedis] = []
        self._folder, self._others = folder, list[OwnRedis]()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def close(self) -> None:
        for node in (*self.nodes, *self._others):
            node.kill()

    def client(self) -> Any:
        # Ours, whose end closes its connections.
        return redis_client.connect(self.url)

    def node_of(self, key: str) -> OwnRedis:
        """The node that holds `key`, as long as no slot was moved."""
        slot = hash_slots.slot_of(key)
        return next(n for n, end in zip(self.nodes, _FIRST[1:], strict=True) if slot < end)

    def keys_on_each(self, form: str) -> list[str]:
        """A key on each node, of those that `form` gives with a number in place of `{}`."""
        keys = (form.format(number) for number in range(1_000))
        found: dict[int, str] = {}
        for key in keys:
            found.setdefault(self.node_of(key).port, key)
        return [found[node.port] for node in self.nodes]

    def move(self, slot: int, node: OwnRedis) -> None:
        """Give `slot`, without its keys, to `node`; all of them hear of it."""
        for other in (node, *self.nodes):
            _ask(other, "CLUSTER", "SETSLOT", str(slot), "NODE", _name(node))

    def begin_moving(self, slot: int, old: OwnRedis, new: OwnRedis) -> None:
        """Put `slot` on its way from `old` to `new`; `move` ends that."""
        _ask(new, "CLUSTER", "SETSLOT", str(slot), "IMPORTING", _name(old))
        _ask(old, "CLUSTER", "SETSLOT", str(slot), "MIGRATING", _name(new))

    def add_replica(self, primary: OwnRedis) -> OwnRedis:
        """A replica of `primary` that has all of its data."""
        bus = str(free_port())
        folder = self._folder / bus
        folder.mkdir()
        replica = OwnRedis(folder, *_OPTIONS, "--cluster-port", bus)
        self._others.append(replica)
        _ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", str(replica.port), bus)
        name = _name(primary)
        _until(lambda: name in str(_ask(replica, "CLUSTER", "NODES")))
        _ask(replica, "CLUSTER", "REPLICATE", name)
        _until(lambda: b"master_link_status:up" in _ask(replica, "INFO", "replication"))
        return replica

    def fail_over(self, primary: OwnRedis, replica: OwnRedis) -> None:
        """Kill `primary`, in whose place `replica` is from now on."""
        primary.kill()
        # By hand: that the others agree on its death takes as long as the nodes' timeout.
        _ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        _until(lambda: b"role:master" in _ask(replica, "INFO", "replication"))

    def flush(self) -> None:
        for node in self.nodes:
            _ask(node, "FLUSHALL")

    def settle(self) -> None:
        """Wait until every node finds the cluster to be in order."""
        _until(lambda: all(b"cluster_state:ok" in _ask(n, "CLUSTER", "INFO") for n in self.nodes))

    def _start(self) -> None:
        buses = [str(free_port()) for _ in _FIRST[1:]]
        for number, bus in enumerate(buses):
            own = self._folder / str(number)
            own.mkdir()
            self.nodes.append(OwnRedis(own, *_OPTIONS, "--cluster-port", bus))
            first, last = _FIRST[number], _FIRST[number + 1] - 1
            _ask(self.nodes[-1], "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            _ask(self.nodes[-1], "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node, bus in zip(self.nodes[1:], buses[1:], strict=True):
            _ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        known = f"cluster_known_nodes:{len(buses)}".encode()
        _until(lambda: all(known in _ask(node, "CLUSTER", "INFO") for node in self.nodes))
        self.settle()


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "the nodes do not agree"
        time.sleep(0.02)


def _name(node: OwnRedis) -> str:
    """What a node calls itself."""
    name: bytes = _ask(node, "CLUSTER", "MYID")
    return name.decode()


def _ask(node: OwnRedis, *words: str) -> Any:
    with node.client() as client:
        # Without redis-py's own reading of what a cluster says of itself.
        for name in ("CLUSTER INFO", "CLUSTER NODES", "INFO"):
            client.set_response_callback(name, _as_it_is)
        return client.execute_command(*words)


def _as_it_is(answer: bytes, **_: Any) -> bytes:
    return answer
