"""The servers a command needs, started together, and the environment that names them."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType, MappingProxyType, TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from malearn.kernel.errors import InputError, Unreachable
from malearn.kernel.home import Home
from malearn.kernel.hosts import LOOPBACK, is_loopback
from malearn.kernel.http_client import FIRST_ANSWER
from malearn.platform.environment import QUIET, reachable_directly, unusable_proxies
from malearn.platform.mlflow import MLflowServer
from malearn.platform.prefect import PrefectServer
from malearn.platform.redis import EmbeddedRedis
from malearn.platform.server import POLL_INTERVAL, START_TIMEOUT, Server

__all__ = ["Event", "OnEvent", "Platform"]


Event = Literal["starting", "slow", "ready", "attached", "stopped"]
OnEvent = Callable[[str, Event, float], None]  # service, what happened, seconds it took


class Platform:
    """Redis, MLflow and Prefect for as long as the `with` lasts: any of them, all at once.

    A service whose environment variable is set is not started: its address is used once it
    has answered. Inside, the process environment names every service asked for, and switches
    telemetry off; outside, it is as it was. SIGTERM leaves the `with` like `sys.exit(143)`.

    `on_event` is called with ("Redis", "starting", 0.0), then "ready" with the seconds since, or
    "attached" where it was there already, and "stopped" with the seconds that took. A given
    service is only "ready"; one that another
    process still uses is not "stopped". A server that has not answered after `START_TIMEOUT` is
    an error or, without `give_up`, "slow", and waited for as long as its process runs. `host`,
    and `ports` by service, are where embedded servers listen; see `Server`.

    Raises:
        PlatformError: a server does not start. Whatever did start is stopped again.
        Unreachable: a given address does not answer.
        InputError: a given address is none, or one of a server that cannot be used.
    """

    def __init__(
        self,
        home: Home,
        *,
        redis: bool = False,
        mlflow: bool = False,
        prefect: bool = False,
        host: str = LOOPBACK,
        ports: Mapping[str, int] = MappingProxyType({}),
        give_up: bool = True,
        on_event: OnEvent | None = None,
    ) -> None:
        kinds = (EmbeddedRedis, MLflowServer, PrefectServer)
        every = [kind(home, ports.get(kind.name), host) for kind in kinds]
        wanted = zip(every, (redis, mlflow, prefect), strict=True)
        self.home, self._give_up = home, give_up
        self.servers: tuple[Server, ...] = tuple(server for server, want in wanted if want)
        self._given_urls: dict[str, str] = {}
        self._on_event: OnEvent = on_event or (lambda service, event, seconds: None)
        self._exits = ExitStack()

    @property
    def redis_url(self) -> str:
        return self._address(EmbeddedRedis)

    @property
    def tracking_uri(self) -> str:
        return self._address(MLflowServer)

    @property
    def embedded(self) -> tuple[Server, ...]:
        """The servers that were not given: started, or attached to."""
        return tuple(server for server in self.servers if not self._given_urls[server.name])

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(_exit_on_sigterm())
            self._given_urls = {server.name: _given_url(server) for server in self.servers}
            started = list(self.embedded)
            # Given ones first: a wrong address shows at once, ours take half a minute to start.
            for server in self.servers:
                if server not in started:
                    self._check_given(server)
            # Registered before the start: one that fails or is interrupted leaves nothing running.
            stack.callback(self._stop, started)
            self._start(started)
            stack.enter_context(_environment(self._settings(), unusable_proxies()))
            # Only now: until here, leaving the block undoes every step.
            self._exits = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    def _check_given(self, server: Server) -> None:
        url, began = self._given_urls[server.name], time.monotonic()
        try:
            server.ping(url, FIRST_ANSWER)
        # Its own sentence says what is wrong with the address: not that nothing answers.
        except InputError:
            raise
        except Exception as error:  # each client has its own tree of them
            raise Unreachable(server.name, url, server.setting, _cause(error)) from error
        self._on_event(server.name, "ready", time.monotonic() - began)

    def _start(self, servers: list[Server]) -> None:
        """Start all of them in turns in this one thread, so that Ctrl-C reaches every start."""
        began, slow = time.monotonic(), False
        starting = {server: server.starting() for server in servers}
        for server in servers:
            server.start_timeout = START_TIMEOUT if self._give_up else math.inf
            self._on_event(server.name, "starting", 0.0)
        while starting:
            if not slow and time.monotonic() - began > START_TIMEOUT:
                slow = True
                for server in starting:
                    self._on_event(server.name, "slow", time.monotonic() - began)
            for server, steps in list(starting.items()):
                # `starting` yields None: the default means that it has ended and the server is up.
                if next(steps, server) is server:
                    del starting[server]
                    event: Event = "attached" if server.attached else "ready"
                    self._on_event(server.name, event, time.monotonic() - began)
            time.sleep(POLL_INTERVAL if starting else 0.0)

    def _stop(self, servers: list[Server]) -> None:
        began = time.monotonic()
        # All are released before one is waited for, so that they end side by side.
        ending = [server for server in servers if server.release()]
        for server in ending:
            server.wait_closed()
            self._on_event(server.name, "stopped", time.monotonic() - began)

    def address(self, server: Server) -> str:
        """The URL of `server`, one of `servers`, with its credentials: given, or our own."""
        return self._given_urls[server.name] or server.url

    def _address(self, kind: type[Server]) -> str:
        for server in self.servers:
            if isinstance(server, kind):
                return self.address(server)
        raise AttributeError(f"this platform was not asked for {kind.name}")

    def _settings(self) -> dict[str, str]:
        """The environment inside: what the user set stays, except for proxies to this machine."""
        quiet = {key: value for key, value in QUIET.items() if key not in os.environ}
        addresses = {server.setting: self._address(type(server)) for server in self.servers}
        clients = [server.client() for server in self.servers if not self._given_urls[server.name]]
        hosts = {urlsplit(url).hostname or "" for url in addresses.values()}
        here = dict.fromkeys([LOOPBACK, "localhost", "::1", *filter(is_loopback, sorted(hosts))])
        # The first map wins where two have a key.
        return dict(ChainMap(addresses, reachable_directly(here), *clients, quiet))


def _given_url(server: Server) -> str:
    return os.environ.get(server.setting, "").strip()


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason).rstrip(".") or type(error).__name__


@contextmanager
def _environment(settings: dict[str, str], unset: Sequence[str]) -> Iterator[None]:
    """The process environment with `settings` and without `unset`, until the `with` is left."""
    before = {key: os.environ.get(key) for key in (*settings, *unset)}
    os.environ.update(settings)
    for key in unset:
        os.environ.pop(key, None)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack, unless it has a handler already."""
    # Python lets only the main thread set signal handlers.
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
