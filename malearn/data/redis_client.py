"""Client of the Redis that holds records; whatever it answers becomes an error of ours.

Only for ingestion: serving has a connection of its own, whose calls keep a deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from malearn.data import files
from malearn.kernel import redis_address
from malearn.kernel.errors import InputError, Unreachable, without_password
from malearn.kernel.names import Names
from malearn.kernel.redis_address import Address, of_cluster, unsuitable

__all__ = [
    "REDIS_SETTING",
    "affordable",
    "answering",
    "check_writable",
    "connect",
    "connected",
    "get_many",
    "key_count",
    "primaries",
]


#: Bytes that one answer of Redis may bring, about; bounds memory where values are huge.
_ANSWER_BYTES = 32 * 2**20
#: Seconds for which one answer is waited for.
#: Generous: ingestion may wait, a scheduler may not, and has limits of its own.
_TIMEOUT = 60.0
#: How often a node of a cluster is asked again, and the longest pause before, in seconds.
_ATTEMPTS, _LONGEST_PAUSE = 5, 1.0
#: The variable that names the Redis server.
REDIS_SETTING = "MALEARN_REDIS_URL"


@contextmanager
def connected(url: str, timeout: float = _TIMEOUT) -> Iterator[redis.Redis]:
    """A client of the Redis at `url`. Raises `Unreachable` when that is or goes away."""
    with answering(url), connect(url, timeout) as client:
        yield client


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn what a client of the Redis at `url` raises into `Unreachable` or `InputError`."""
    try:
        yield
    except redis.AuthenticationError as error:  # a ConnectionError to redis-py
        raise InputError(
            f"Redis at {without_password(url)}",
            f"wants a user or password that {REDIS_SETTING} does not give ({files.cause(error)})",
        ) from error
    except (
        redis.ConnectionError,
        redis.TimeoutError,
        redis.exceptions.RedisClusterException,  # no node answers, or none has the slot
        OSError,
    ) as error:
        raise Unreachable("Redis", url, REDIS_SETTING, files.cause(error)) from error
    except redis.ResponseError as error:
        raise InputError(f"Redis at {without_password(url)}", _refusal(error)) from error


def connect(url: str, timeout: float = _TIMEOUT) -> redis.Redis:
    """A client that waits `timeout` seconds for each answer, of a server or of a whole cluster.

    One of a cluster is a `RedisCluster`, which offers the same commands; only those on several
    keys need `get_many` and `primaries`. Raises `InputError` for what is no Redis URL and what a
    client raises that reaches nobody.
    """
    address = Address.parse(url)  # stricter than redis-py, which passes over unknown options
    options: dict[str, Any] = {
        "decode_responses": False,
        # A server that is there accepts at once; one that is not should not cost a minute.
        "socket_connect_timeout": min(5.0, timeout),
        "socket_timeout": timeout,
    }
    if not _of_cluster(url, address, options):
        return redis.Redis.from_url(url, **options)
    if address.path:
        raise InputError(
            f"Redis at {without_password(url)}",
            "is a node of a Redis Cluster; give its host and port, as the others have no socket",
        )
    pause = ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE, base=0.05)
    cluster = _RedisCluster.from_url(url, retry=Retry(pause, _ATTEMPTS), **options)
    return cast("redis.Redis", cluster)


def get_many(client: redis.Redis, keys: Sequence[bytes]) -> list[bytes | None]:
    """The values of `keys`, None where there is none or it is no string."""
    cluster = _cluster(client)
    found = client.mget(keys) if cluster is None else cluster.mget_nonatomic(keys)
    return cast("list[bytes | None]", found)


def primaries(client: redis.Redis) -> dict[str, redis.Redis]:
    """A client of each server that holds keys, by its name; of one server `client` itself."""
    cluster: Any = _cluster(client)
    if cluster is None:
        return {"": client}
    return {
        node.name: cluster.get_redis_connection(node)
        for node in sorted(cluster.get_primaries(), key=lambda node: str(node.name))
    }


def check_writable(client: redis.Redis, key: str) -> None:
    """Raise what a write to `key` would raise. Nothing is written: `key` must not exist.

    A replica, a server that cannot save to its disk or whose memory is full, and one whose user
    may only read answer everything else as a healthy one does.
    """
    # XX writes only to a key that exists, yet Redis checks all that it checks before a write.
    client.set(key, 1, xx=True)


def affordable(mean: float, most: int) -> int:
    """How many values of `mean` bytes may be asked for at once, at most `most`."""
    # Sizes of values are known only from earlier answers, hence a mean.
    return max(1, min(most, int(_ANSWER_BYTES / (mean + 1))))


def key_count(client: redis.Redis) -> int:
    """How many keys there are; 0 where the user may not ask."""
    try:
        return int(client.dbsize())
    except redis.exceptions.NoPermissionError:
        return 0


def _refusal(error: redis.ResponseError) -> str:
    """What Redis refused, and what to do about it."""
    said = files.cause(error)
    code = error.status_code or said.split(" ", 1)[0]  # which redis-py cuts off where it knows it
    if code == "CLUSTERDOWN":
        return f"is a cluster some of whose slots have no node ({said}); see CLUSTER INFO"
    if problem := unsuitable(said):
        return problem
    if isinstance(error, redis.ReadOnlyError):
        return f"is a read-only replica; point {REDIS_SETTING} at the primary"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"does not let its user do what ingestion needs ({said}); see docs/operating.md"
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return "is out of memory (maxmemory); give it more, or ingest more often"
    if code == "MISCONF":
        return "cannot save to its disk and so takes no writes; see its log, free some space"
    if code == "WRONGTYPE":
        return f"holds something else under a key of malearn ({said}); delete or rename that key"
    return f"refuses: {said}"


class _RedisCluster(redis.RedisCluster):
    """One whose `close` closes its connections: redis-py leaves those of a URL to the collector."""

    def close(self) -> None:
        manager: Any = self.nodes_manager
        for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values()):
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect()
        super().close()


def _of_cluster(url: str, address: Address, options: dict[str, Any]) -> bool:
    """Whether the server is a node of a cluster. Raises `InputError` for a database of one."""
    # A client of its own: each pooled connection goes back to the database it was made for.
    with redis.Redis.from_url(url, **options) as asking:
        # A cluster would refuse any other, before it could be told from a server that has fewer.
        asking.connection_pool.connection_kwargs["db"] = 0
        try:
            asking.exists(*Names.find().in_several_slots)
        except redis.ResponseError as error:
            if not of_cluster(error.status_code or str(error).split(" ", 1)[0]):
                return False  # whatever it refuses is for the first real command to find out
        else:
            return False
    if address.database:
        raise redis_address.one_database(url, address.database)
    return True


def _cluster(client: redis.Redis) -> redis.RedisCluster | None:
    """`client` where it is a cluster's."""
    untyped: Any = client
    return untyped if isinstance(untyped, redis.RedisCluster) else None
