"""The connection to MLflow: where its server is, whether it answers, what its errors mean."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.client import responses
from urllib.parse import urlsplit

from malearn.kernel.errors import RegistryError, Unreachable, without_password
from malearn.kernel.hosts import is_loopback
from malearn.kernel.http_client import FIRST_ANSWER, HttpClient, TooLarge

__all__ = ["connect", "connected"]

_LARGEST_ANSWER = 65_536  # bytes

#: What MLflow's client reads in the environment, unless the user has set it.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # A server that went away is reported within half a minute, not after five.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    # Its bars would stand between our lines, or in the middle of one.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
#: What a notebook or `mlflow run` leaves behind. MLflow would go on with that run, or log into
#: that experiment, instead of beginning ours.
_LEFT_BEHIND = (
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_ACTIVE_MODEL_ID",
)


def connect(tracking_uri: str, patience: float = FIRST_ANSWER) -> None:
    """Make MLflow's client use `tracking_uri`.

    Raises `Unreachable` when nothing answers there within `patience` seconds.
    """
    # Before the import below, at which MLflow reads some of it.
    _settle_environment(tracking_uri)
    # Asked before MLflow is imported, which takes seconds: a wrong address is refused at once.
    if tracking_uri.startswith("http"):
        _check_answers(tracking_uri, patience)
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def connected(tracking_uri: str) -> Iterator[None]:
    """`connect`, and let no exception of MLflow's own out of the `with`.

    Raises `Unreachable` when the server goes away meanwhile, `RegistryError` with what it
    answered when it refuses; the cause is kept.
    """
    connect(tracking_uri)
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        said = " ".join(str(error).split()).rstrip(".")
        # MLflow has no exception of its own for a server that does not answer, only these words.
        if said.startswith("API request to") and "failed with exception" in said:
            raise Unreachable("MLflow", tracking_uri, "MLFLOW_TRACKING_URI") from error
        where = f"MLflow at {without_password(tracking_uri)}"
        raise RegistryError(where, f"it refuses ({said[:300]})") from error


def _check_answers(tracking_uri: str, patience: float) -> None:
    """Ask the server whether it is there; credentials and TLS are as for MLflow's client."""
    try:
        client = HttpClient(tracking_uri, patience)
        answer = client.get("/health", _LARGEST_ANSWER, time.monotonic() + patience)
    except (OSError, ValueError, TooLarge) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable("MLflow", tracking_uri, "MLFLOW_TRACKING_URI", reason) from error
    if answer.status != HTTPStatus.OK:
        reason = responses.get(answer.status, f"status {answer.status}")
        raise Unreachable("MLflow", tracking_uri, "MLFLOW_TRACKING_URI", reason)


def _settle_environment(tracking_uri: str) -> None:
    """Set what MLflow's client reads in the environment, where the user has not, and forget what
    would lead it astray.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in _LEFT_BEHIND:
        os.environ.pop(name, None)
    host = urlsplit(tracking_uri).hostname
    if host and is_loopback(host):  # no proxy leads back to this machine
        # Where both are set, which one counts differs from library to library.
        for name in [n for n in ("NO_PROXY", "no_proxy") if n in os.environ] or ["NO_PROXY"]:
            known = [one for one in os.environ.get(name, "").split(",") if one]
            if host not in known:
                os.environ[name] = ",".join([*known, host])
