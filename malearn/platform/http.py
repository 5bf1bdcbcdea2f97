"""Whether an HTTP server answers, with nothing but the standard library."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from malearn.platform.port import LOOPBACK

__all__ = ["check_answers"]


def check_answers(url: str, seconds: float = 2.0) -> None:
    """Return when `url` answers. A client error (401, 404) of a given server is an answer too.

    Raises:
        OSError: nothing answers, or only with a server error.
    """
    ours = urlsplit(url).hostname == LOOPBACK
    opener = build_opener(ProxyHandler({})) if ours else build_opener()
    try:
        opener.open(url, timeout=seconds).close()
    except HTTPError as error:
        error.close()
        if error.code >= 500:
            raise
