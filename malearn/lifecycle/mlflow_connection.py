"""The connection to MLflow: where its server is, whether it answers, what its refusals mean."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException

from malearn.kernel.errors import RegistryError, Unreachable, without_password

__all__ = ["connect", "connected"]

#: How long a server may take to say that it is there, in seconds.
_PATIENCE = 5.0


def connect(tracking_uri: str) -> None:
    """Make MLflow's client use `tracking_uri`. Raises `Unreachable` when nothing answers there."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # A server that went away is away: say so within half a minute, not after five.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    # Its bars would stand between our lines, or in the middle of one.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if tracking_uri.startswith("http"):
        try:
            with urllib.request.urlopen(_health(tracking_uri), timeout=_PATIENCE):
                pass
        except (OSError, ValueError, HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            reason = getattr(error, "reason", error)
            raise Unreachable("MLflow", tracking_uri, "MLFLOW_TRACKING_URI", reason) from error
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


@contextlib.contextmanager
def connected(tracking_uri: str) -> Iterator[None]:
    """`connect`, and let no exception of MLflow's own out of the `with`.

    Raises `Unreachable` when the server goes away meanwhile, `RegistryError` with what it
    said when it refuses; the cause is kept.
    """
    connect(tracking_uri)
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        said = " ".join(str(error).split()).rstrip(".")
        if said.startswith("API request to") and "failed with exception" in said:
            raise Unreachable("MLflow", tracking_uri, "MLFLOW_TRACKING_URI") from error
        where = f"MLflow at {without_password(tracking_uri)}"
        raise RegistryError(where, f"it refuses ({said[:300]})") from error


def _health(tracking_uri: str) -> urllib.request.Request:
    """The question whether a server is there; a user and password in its address go along."""
    scheme, _, rest = tracking_uri.rstrip("/").partition("://")
    credentials, at, address = rest.rpartition("@")
    request = urllib.request.Request(f"{scheme}://{address}/health")
    if at:
        token = base64.b64encode(urllib.parse.unquote(credentials).encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    return request
