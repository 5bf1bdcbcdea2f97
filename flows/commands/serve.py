"""`malearn serve`: predictions over HTTP, for schedulers that are not Python."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from malearn.flows.commands import output, servers
from malearn.flows.commands.options import HomeOption
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home

__all__ = ["serve"]

_DEFAULT_PORT = 8470
_VARIABLE = "MALEARN_HTTP_TOKEN"


def _port(value: Any) -> Any:
    if not 0 <= value <= 65535:
        raise typer.BadParameter(f"a port is a number from 0 to 65535, not {value}")
    return value


def serve(
    home: HomeOption = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen on; any but loopback is open."),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT", help="Port to listen on; 0: any that is free.", callback=_port
        ),
    ] = _DEFAULT_PORT,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name under which clients reach the service; repeat the option for several.",
        ),
    ] = None,
    no_token: Annotated[
        bool,
        typer.Option(
            "--no-token", help="Answer without a token whoever is on this machine; loopback only."
        ),
    ] = False,
) -> None:
    """Answer predictions over HTTP until Ctrl-C.

    Every request but /health needs the token in $MALEARN_HTTP_TOKEN, else that in the file
    .malearn/http/token of the home, which is made when it is not there.
    """
    from malearn import DAGTaskPredictor, __version__
    from malearn.integrations.http import app, server
    from malearn.kernel import tool_types
    from malearn.kernel.hosts import is_loopback
    from malearn.platform import private

    if no_token and not is_loopback(host):
        raise typer.BadParameter(f"--no-token needs a loopback address, not {host}")
    place, types = Home.find(home), tool_types.declared()
    file = place.state / "http" / "token"
    token = None if no_token else _given_token() or private.secret(file)
    with (
        # First: a port that is taken must show before servers are started. Clients that connect
        # meanwhile wait in its queue.
        server.listen(host, port) as listener,
        servers.running(place, redis=True, prefect=False) as platform,
        DAGTaskPredictor(
            platform.redis_url, platform.tracking_uri, cache_dir=place.cache, tool_types=types
        ) as predictor,
    ):
        address, actual = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address

        def ready() -> None:
            output.note(f"answers at http://{shown}:{actual}; stop with Ctrl-C")
            # The file, not the token: what is printed here may end up in a log that others read.
            if token is not None and not os.environ.get(_VARIABLE):
                output.note(f"its token is in {file}")

        # The address it listens on is a name that clients use.
        names = [host, *(allow_host or ())]
        server.run(app.create(predictor, types, token, names, __version__), listener, ready)


def _given_token() -> str | None:
    """The token of the environment. Raises `InputError` for one that could be guessed."""
    token = os.environ.get(_VARIABLE)
    # ASCII, since HTTP headers can hold nothing else reliably.
    if token is not None and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        raise InputError(_VARIABLE, "must be at least 16 characters of ASCII")
    return token
