"""How connections to Redis are opened, to one server or to all nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from malearn.kernel import redis_address
from malearn.kernel.errors import InputError, without_password
from malearn.kernel.names import Names
from malearn.kernel.redis_address import Address
from malearn.serving import resp
from malearn.serving.cluster import Cluster
from malearn.serving.cluster_connection import ClusterConnection
from malearn.serving.connection import Connection, RedisConnection
from malearn.serving.resp import Reply, ResponseError

__all__ = ["connector"]


def connector(
    url: str, timeout: float, names: Names | None = None
) -> Callable[[], RedisConnection]:
    """Opens connections to `url`; each step of opening one waits `timeout` seconds at most.

    The address is resolved anew each time. Where there is no connection to be had it raises
    OSError, `ProtocolError`, `ResponseError` or `InputError`. A cluster is recognised as such;
    from then on connections are to all its nodes.
    """
    question = resp.pack("EXISTS", *(names or Names.find()).in_several_slots)
    cluster: Cluster | None = None

    def open_node(address: Address) -> Connection:
        return _open(address, timeout, question)[0]

    def connect() -> RedisConnection:
        nonlocal cluster
        if cluster is not None:
            return ClusterConnection.open(cluster)
        # Here rather than once: an address that is wrong must not keep a scheduler from starting.
        address = Address.parse(url)
        connection, answer = _open(address, timeout, question)
        if not _of_cluster(answer):
            return connection
        connection.close()
        if address.database:
            raise InputError(
                without_password(url),
                f"is a Redis Cluster, which has no database {address.database}; "
                "leave it out of the URL",
            )
        found = Cluster(address, open_node, timeout)
        opened = ClusterConnection.open(found)
        cluster = found
        return opened

    return connect


def _open(address: Address, timeout: float, question: bytes) -> tuple[Connection, Reply]:
    """A connection that was greeted, and what the server answered to `question`.

    Only a node of a cluster has to be asked something before it can be told: it is sent with
    the greeting, needs no right that is not needed anyway, and whatever else is answered is
    for the first real command to find out.
    """
    connection = Connection(address.connect(timeout))
    try:
        greeting = address.greeting()
        packed = b"".join([*(resp.pack(*command) for command in greeting), question])
        *replies, answer = connection.call(packed, len(greeting) + 1, perf_counter() + timeout)
        if not (address.database and _of_cluster(answer)):  # which refuses SELECT as well
            for reply in replies:
                if isinstance(reply, ResponseError):
                    raise reply
    except BaseException:
        connection.close()
        raise
    return connection, answer


def _of_cluster(answer: Reply) -> bool:
    return isinstance(answer, ResponseError) and redis_address.of_cluster(answer.code)
