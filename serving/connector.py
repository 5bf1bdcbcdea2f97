"""How connections to Redis are opened, to one server or to all nodes of a cluster."""

from __future__ import annotations

from time import perf_counter

from malearn.kernel import redis_address
from malearn.kernel.names import Names
from malearn.kernel.redis_address import Address
from malearn.serving import resp
from malearn.serving.cluster import Cluster
from malearn.serving.cluster_connection import ClusterConnection
from malearn.serving.connection import Connection, RedisConnection
from malearn.serving.resp import Reply, ResponseError

__all__ = ["Connector"]


class Connector:
    """Opens connections to `url`; each step of opening one waits `timeout` seconds at most.

    The address is resolved anew each time. Where there is no connection to be had a call raises
    OSError, `ProtocolError`, `ResponseError` or `InputError`.
    """

    def __init__(self, url: str, timeout: float, names: Names | None = None) -> None:
        self._url, self._timeout = url, timeout
        self._question = resp.pack("EXISTS", *(names or Names.find()).in_several_slots)
        self._cluster: Cluster | None = None

    def __call__(self) -> RedisConnection:
        if self._cluster is not None:
            return ClusterConnection.open(self._cluster)
        # Here rather than once: an address that is wrong must not keep a scheduler from starting.
        address = Address.parse(self._url)
        # A cluster refuses SELECT; that it is one has to be known to say so.
        return self._open(address, asked=bool(address.database))

    def found_cluster(self, error: ResponseError) -> bool:
        """Whether a server that answers `error` is a node of a cluster; from then on connections
        are to all of its nodes. Raises what a call raises."""
        if self._cluster is not None or not redis_address.of_cluster(error.code):
            return False
        self._cluster = Cluster(Address.parse(self._url), self._open_node, self._timeout)
        return True

    def _open_node(self, address: Address) -> Connection:
        # Asked something: one that is stopped still takes connections.
        return self._open(address, asked=True)

    def _open(self, address: Address, *, asked: bool) -> Connection:
        connection = Connection(address.connect(self._timeout))
        try:
            greeting = [resp.pack(*command) for command in address.greeting()]
            if asked:
                greeting.append(self._question)
            if greeting:
                deadline = perf_counter() + self._timeout
                replies = connection.call(b"".join(greeting), len(greeting), deadline)
                if asked:
                    # Whatever else it answers is for the first real command to find out.
                    self._check_database(address, replies.pop())
                for reply in replies:
                    if isinstance(reply, ResponseError):
                        raise reply
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_database(self, address: Address, answer: Reply) -> None:
        """Raises `InputError` for a database that a cluster does not have."""
        refused = isinstance(answer, ResponseError) and redis_address.of_cluster(answer.code)
        if refused and address.database:
            raise redis_address.one_database(self._url, address.database)
