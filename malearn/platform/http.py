"""Whether an HTTP server answers."""

from __future__ import annotations

import time
from http import HTTPStatus
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from malearn.kernel.hosts import is_loopback
from malearn.kernel.http_client import HttpClient, TooLarge

__all__ = ["check_answers", "check_mlflow"]

_LARGEST = 65_536  # bytes of a reply to a health check
_LOGIN = (
    "put a login into the URL, or into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
    "or MLFLOW_TRACKING_TOKEN"
)


def check_answers(url: str, seconds: float) -> None:
    """Return when `url` answers. A client error (401, 404) of a given server is an answer too.

    Raises:
        OSError: nothing answers, or only with a server error.
    """
    here = is_loopback(urlsplit(url).hostname or "")
    # A proxy of the environment runs elsewhere and cannot reach this machine's loopback.
    opener = build_opener(ProxyHandler({})) if here else build_opener()
    try:
        opener.open(url, timeout=seconds).close()
    except HTTPError as error:
        error.close()
        if error.code >= 500:
            raise


def check_mlflow(tracking_uri: str, seconds: float) -> None:
    """Return when the MLflow server at `tracking_uri` answers within `seconds`. The login is the
    URL's or that of MLflow's variables.

    Raises:
        PermissionError: it asks for a login, or rejects the one it was given.
        OSError: nothing answers, or not as MLflow does.
    """
    # The client of the predictors: what it cannot use is found here, before they are started.
    client = HttpClient(tracking_uri, seconds)
    try:
        answer = client.get("/health", _LARGEST, time.monotonic() + seconds)
    except (ValueError, TooLarge) as error:
        raise ConnectionError("an answer that is not MLflow's") from error
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise PermissionError(f"it wants a login, HTTP status {answer.status}: {_LOGIN}")
    if answer.status != HTTPStatus.OK:
        raise ConnectionError(f"HTTP status {answer.status}")
