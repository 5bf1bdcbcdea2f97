"""Environment settings: no telemetry, and no output of other tools on our terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

__all__ = ["QUIET", "for_server", "reachable_directly", "unusable_proxies", "without"]

#: What names a proxy, in both spellings; libraries differ in which one they read first.
PROXIES = tuple(
    name
    for scheme in ("HTTP", "HTTPS", "ALL", "FTP", "WS", "WSS", "SOCKS")
    for name in (f"{scheme}_PROXY", f"{scheme.lower()}_proxy")
)

QUIET: dict[str, str] = {
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "GIT_PYTHON_REFRESH": "quiet",  # else MLflow warns where git is not installed
    # Its row in Prefect's database is also what leads to "database is locked" at the start.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # tracebacks at shutdown
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # Seconds. The default is 20; a start takes 12 to 28 s on two cores.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Nobody is there to answer a question of a server or worker.
    "PREFECT_CLI_PROMPT": "false",
}


def without(environment: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """`environment` less the variables that begin with one of `prefixes`.

    >>> without({"MLFLOW_HOST": "::", "HOME": "/"}, "MLFLOW_")
    {'HOME': '/'}
    """
    return {key: value for key, value in environment.items() if not key.startswith(prefixes)}


def for_server(*, proxies: bool = False) -> dict[str, str]:
    """The environment of this process as a server that runs in another directory must get it.

    Relative entries of PYTHONPATH name what they name here. Without `proxies`, none is set: an
    embedded server talks to nobody outside.
    """
    kept = dict(os.environ) if proxies else without(os.environ, *PROXIES)
    if path := kept.get("PYTHONPATH"):
        # An empty entry means the working directory, which is another one in the server.
        entries = [str(Path(entry or ".").absolute()) for entry in path.split(os.pathsep)]
        kept["PYTHONPATH"] = os.pathsep.join(entries)
    return kept


def reachable_directly(hosts: Iterable[str]) -> dict[str, str]:
    """NO_PROXY, in both spellings, extended by `hosts`.

    A `*` stays alone: in a list, Python's own client takes it for a name.
    """
    # A dict as an ordered set: the user's own entries come first, in their order.
    names: dict[str, None] = {}
    for variable in ("no_proxy", "NO_PROXY"):
        names |= dict.fromkeys(
            filter(None, map(str.strip, os.environ.get(variable, "").split(",")))
        )
    value = "*" if "*" in names else ",".join(dict.fromkeys([*names, *hosts]))
    return {"NO_PROXY": value, "no_proxy": value}


def unusable_proxies() -> list[str]:
    """The variables that name a SOCKS proxy where Prefect's client cannot speak SOCKS.

    httpx prepares every proxy that is named, whether or not it is to be asked for a host, and
    raises ImportError for these.
    """
    if find_spec("socksio"):
        return []
    named = {name: os.environ.get(name, "").lower() for name in PROXIES}
    return [name for name, url in named.items() if url.startswith("socks")]
