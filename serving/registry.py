"""Which version an alias names, and its ONNX file: MLflow over plain REST.

The alias is the only truth about what to serve. Background only: a call here
may take seconds. Credentials come from the URL or from MLflow's own variables
(`MLFLOW_TRACKING_TOKEN`, or `_USERNAME` and `_PASSWORD`) and go nowhere else.
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from malearn.kernel.errors import ArtifactRefused, Unreachable, without_password
from malearn.kernel.onnx_file import LARGEST

__all__ = ["Registry"]

_API = "/api/2.0/mlflow"
_FILE = "model.onnx"
_PREFIX = "malearn-"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Registry:
    """An MLflow server's registered models, as seen through one alias.

    `timeout` bounds each wait for the network, `patience` a whole download,
    both in seconds. Every method raises `Unreachable` when the server does not
    answer as it should.
    """

    def __init__(
        self,
        tracking_uri: str,
        alias: str = "Production",
        *,
        timeout: float = 5.0,
        patience: float = 60.0,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.alias, self._timeout, self._patience = alias, timeout, patience
        self.shown = without_password(tracking_uri)
        try:
            parts = urlsplit(tracking_uri)
        except ValueError:
            parts = urlsplit("")  # no address: every question says so
        host = parts.netloc.rpartition("@")[2]
        self._base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._speaks_http = parts.scheme in {"http", "https"}
        self._loopback = parts.hostname in _LOOPBACK
        self._authorization = _authorization(parts.username, parts.password, environment)
        self._environment = environment
        self._opener: Any = None

    def versions(self, models: Iterable[str]) -> dict[str, int]:
        """What the alias names now, of `models`; those it does not name are left out."""
        try:
            found = self._search()
        except _Status as status:
            if status.code in {401, 403, 500, 502, 503, 504}:
                raise self._unreachable(status) from status
            return self._one_by_one(models)  # a registry that cannot be searched
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unreachable("an answer that is not MLflow's") from error
        wanted = set(models)
        return {name: version for name, version in found.items() if name in wanted}

    def download(self, model: str, version: int) -> bytes:
        """The ONNX file of one version.

        Raises `ArtifactRefused` when the version holds none, or one too large.
        """
        name = f"{model} version {version}"
        try:
            return self._get(self._address(model, version), LARGEST)
        except _TooLarge:
            problem = f"its {_FILE} is larger than {LARGEST // 2**20} MiB"
            raise ArtifactRefused(name, [problem]) from None
        except _Status as status:
            if status.code == 404:
                raise ArtifactRefused(name, [f"it holds no {_FILE}"]) from status
            raise self._unreachable(status) from status

    def _address(self, model: str, version: int) -> str:
        """Where the file is served: by MLflow's artifact proxy, else by its UI's route."""
        query = urlencode({"name": model, "version": version})
        try:
            answer = self._json(f"{_API}/model-versions/get-download-uri?{query}")
            root = urlsplit(str(answer.get("artifact_uri", "")))
        except _Status:
            root = urlsplit("")
        if root.scheme == "mlflow-artifacts":
            path = posixpath.join(root.path.lstrip("/"), _FILE)
            return f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        return f"/model-versions/get-artifact?{query}&path={_FILE}"

    def _search(self) -> dict[str, int]:
        versions: dict[str, int] = {}
        query = {"max_results": "1000", "filter": f"name LIKE '{_PREFIX}%'"}
        while True:
            page = self._json(f"{_API}/registered-models/search?{urlencode(query)}")
            for model in page.get("registered_models", ()):
                for alias in model.get("aliases", ()):
                    if alias.get("alias") == self.alias:
                        versions[str(model["name"])] = int(alias["version"])
            token = page.get("next_page_token")
            if not token:
                return versions
            query["page_token"] = str(token)

    def _one_by_one(self, models: Iterable[str]) -> dict[str, int]:
        versions = {}
        for model in models:
            query = urlencode({"name": model, "alias": self.alias})
            try:
                answer = self._json(f"{_API}/registered-models/alias?{query}")
            except _Status as status:
                if status.code in {400, 404}:
                    continue
                raise self._unreachable(status) from status
            try:
                versions[model] = int(answer["model_version"]["version"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._unreachable("an answer that is not MLflow's") from error
        return versions

    def _json(self, path: str) -> dict[str, Any]:
        try:
            answer = json.loads(self._get(path, 16 * 1024 * 1024))
        except (ValueError, _TooLarge) as error:
            raise self._unreachable("an answer that is not MLflow's") from error
        if not isinstance(answer, dict):
            raise self._unreachable("an answer that is not MLflow's")
        return answer

    def _get(self, path: str, largest: int) -> bytes:
        """The body at `path`. Raises `_Status`, `_TooLarge` or `Unreachable`."""
        if not self._speaks_http:
            raise self._unreachable("a predictor needs the http address of an MLflow server")
        import http.client
        from urllib.error import HTTPError
        from urllib.request import Request

        headers = {"Authorization": self._authorization} if self._authorization else {}
        request = Request(self._base + path, headers=headers)
        until = time.monotonic() + self._patience
        try:
            self._opener = self._opener or self._build_opener()
            with self._opener.open(request, timeout=self._timeout) as response:
                return _body(response, largest, until)
        except HTTPError as error:
            code = error.code
            error.close()
            raise _Status(code) from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            raise self._unreachable(f"{type(cause).__name__}: {cause}") from error

    def _build_opener(self) -> Any:
        import urllib.request as web

        class Unmoved(web.HTTPRedirectHandler):
            """A redirect would carry the credentials elsewhere: it is an answer, not a path."""

            def redirect_request(self, *_: Any) -> None:
                return None

        handlers: list[Any] = [Unmoved()]
        if self._loopback:
            handlers.append(web.ProxyHandler({}))
        if self._base.startswith("https"):
            handlers.append(web.HTTPSHandler(context=_tls(self._environment)))
        return web.build_opener(*handlers)

    def _unreachable(self, cause: object) -> Unreachable:
        return Unreachable("MLflow", self.shown, "MLFLOW_TRACKING_URI", cause)


class _Status(Exception):
    """MLflow answered with an HTTP status that is no success."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"HTTP status {code}")


class _TooLarge(Exception):
    """A body beyond what was asked for."""


def _body(response: Any, largest: int, until: float) -> bytes:
    parts, size = [], 0
    while part := response.read(1024 * 1024):
        size += len(part)
        if size > largest:
            raise _TooLarge
        if time.monotonic() > until:
            raise TimeoutError("the download takes too long")
        parts.append(part)
    return b"".join(parts)


def _authorization(
    user: str | None, password: str | None, environment: Mapping[str, str]
) -> str | None:
    """The header's value: the URL's credentials, else the environment's, as MLflow's client."""
    if user is None:
        user = environment.get("MLFLOW_TRACKING_USERNAME")
        password = environment.get("MLFLOW_TRACKING_PASSWORD")
    else:
        user, password = unquote(user), unquote(password or "")
    if user:
        return "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


def _tls(environment: Mapping[str, str]) -> Any:
    import ssl

    context = ssl.create_default_context(
        cafile=environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None
    )
    if client := environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        context.load_cert_chain(client)
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
