"""Which version an alias names, and its ONNX file: MLflow over plain REST.

The alias alone decides what is served, and only an answer of MLflow itself counts: a
proxy's page, a cut download or a 404 from elsewhere says nothing about either. Background
only: a call here may take seconds. Credentials come from the URL or from MLflow's own
variables and go nowhere else.
"""

from __future__ import annotations

import json
import os
import posixpath
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from malearn.kernel.errors import ArtifactRefused, Unreachable, without_password
from malearn.kernel.http_client import Answer, HttpClient, TooLarge
from malearn.kernel.names import Names
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_file import LARGEST

__all__ = ["DIGEST", "Registry"]

#: A version's tag: the SHA-256 of its ONNX file.
DIGEST = onnx_model.DIGEST_TAG
_API = "/api/2.0/mlflow"
_FILE = "model.onnx"
_LARGEST_ANSWER = 8 * 1024 * 1024  # bytes of JSON; a page of models takes a few KB
_MOST_PAGES = 100  # a server that repeats its page token must not hold the thread for ever
#: Statuses that say nothing of the registry itself, but of who may ask, or of an outage.
_NOT_ANSWERED = {401, 403, 407, 408, 429, 500, 502, 503, 504}


class Registry:
    """An MLflow server's registered models, as seen through one alias.

    `timeout` bounds each wait for the network, `patience` a whole call of a method here,
    both in seconds. Every method raises `Unreachable` when the server does not
    answer as MLflow does.
    """

    def __init__(
        self,
        tracking_uri: str,
        alias: str = "Production",
        *,
        timeout: float = 5.0,
        patience: float = 30.0,
        environment: Mapping[str, str] = os.environ,
        names: Names | None = None,
    ) -> None:
        self._names = Names.find() if names is None else names
        self.alias, self._patience = alias, patience
        self.shown = without_password(tracking_uri)
        self._client = HttpClient(tracking_uri, timeout, environment)

    def versions(self, models: Iterable[str]) -> dict[str, int]:
        """What the alias names now, of `models`; those it does not name are left out."""
        until = time.monotonic() + self._patience
        wanted = set(models)
        found = self._search(until)
        if found is None:  # a registry that cannot be searched
            named = {model: self._named(model, until) for model in wanted}
            return {model: version for model, version in named.items() if version is not None}
        # `_` in a prefix stands for any letter in LIKE, so models of others may be among them.
        return {name: version for name, version in found.items() if name in wanted}

    def version(self, model: str) -> int | None:
        """What the alias names of one model; None where MLflow itself says that it names nothing.

        To be asked before a model in use is dropped.
        """
        return self._named(model, time.monotonic() + self._patience)

    def digest(self, model: str, version: int) -> str | None:
        """The SHA-256 that was noted when the version was registered; None for an old one."""
        until = time.monotonic() + self._patience
        query = urlencode({"name": model, "version": version})
        answer = self._get(f"{_API}/model-versions/get?{query}", _LARGEST_ANSWER, until)
        if _is_missing(answer):
            raise ArtifactRefused(f"{model} version {version}", ["MLflow holds no such version"])
        try:
            tags = self._json(answer)["model_version"].get("tags", ())
            return {str(tag["key"]): str(tag["value"]) for tag in tags}.get(DIGEST)
        except (KeyError, TypeError, AttributeError) as error:
            raise self._unreachable("an answer that is not MLflow's") from error

    def download(self, model: str, version: int) -> bytes:
        """The ONNX file of one version.

        Raises `ArtifactRefused` when the version holds none, or one too large.
        """
        name, until = f"{model} version {version}", time.monotonic() + self._patience
        try:
            answer = self._get(self._address(model, version, until), LARGEST, until)
        except TooLarge:
            problem = f"its {_FILE} is larger than {LARGEST // 2**20} MiB"
            raise ArtifactRefused(name, [problem]) from None
        if answer.status == 404:
            raise ArtifactRefused(name, [f"it holds no {_FILE}"])
        if answer.status != 200:
            raise self._unreachable(f"HTTP status {answer.status}")
        return answer.body

    def _address(self, model: str, version: int, until: float) -> str:
        """Where the file is served: by MLflow's artifact proxy, else by its UI's route."""
        query = urlencode({"name": model, "version": version})
        address = f"{_API}/model-versions/get-download-uri?{query}"
        answer = self._get(address, _LARGEST_ANSWER, until)
        root = urlsplit("")
        if answer.status == 200:
            root = urlsplit(str(self._json(answer).get("artifact_uri", "")))
        if root.scheme == "mlflow-artifacts":
            path = posixpath.join(root.path.lstrip("/"), _FILE)
            return f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        # Other schemes (a directory, s3) may be out of a scheduler's reach; the server reads them.
        return f"/model-versions/get-artifact?{query}&path={_FILE}"

    def _search(self, until: float) -> dict[str, int] | None:
        """What the alias names of all models of ours; None where MLflow does not search."""
        versions: dict[str, int] = {}
        # One search instead of a request for each tool type; pages for registries with more.
        query = {"max_results": "1000", "filter": f"name LIKE '{self._names.models}%'"}
        seen: set[str] = set()
        while True:
            address = f"{_API}/registered-models/search?{urlencode(query)}"
            answer = self._get(address, _LARGEST_ANSWER, until)
            # MLflow's own refusal means that it does not search; any other page is an outage.
            if answer.status != 200 and _error_code(answer) is not None:
                return None
            page = self._json(answer)
            try:
                for model in page.get("registered_models", ()):
                    for alias in model.get("aliases", ()):
                        if alias.get("alias") == self.alias:
                            versions[str(model["name"])] = int(alias["version"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._unreachable("an answer that is not MLflow's") from error
            token = page.get("next_page_token")
            if not token:
                return versions
            if str(token) in seen or len(seen) == _MOST_PAGES:
                raise self._unreachable("pages without an end")
            seen.add(str(token))
            query["page_token"] = str(token)

    def _named(self, model: str, until: float) -> int | None:
        query = urlencode({"name": model, "alias": self.alias})
        address = f"{_API}/registered-models/alias?{query}"
        answer = self._get(address, _LARGEST_ANSWER, until)
        if _is_missing(answer):
            return None
        try:
            return int(self._json(answer)["model_version"]["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._unreachable("an answer that is not MLflow's") from error

    def _json(self, answer: Answer) -> dict[str, Any]:
        if answer.status != 200:
            raise self._unreachable(f"HTTP status {answer.status}")
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise self._unreachable("an answer that is not MLflow's") from error
        if not isinstance(found, dict):
            raise self._unreachable("an answer that is not MLflow's")
        return found

    def _get(self, path: str, largest: int, until: float) -> Answer:
        """The answer at `path`. Raises `TooLarge`, or `Unreachable` where there is none."""
        if not self._client.usable:
            raise self._unreachable("a predictor needs the http address of an MLflow server")
        try:
            answer = self._client.get(path, largest, until)
        except TooLarge:
            # Of a model's file the size is its own fault, of anything else the server's.
            if largest == LARGEST:
                raise
            raise self._unreachable("an answer that is not MLflow's") from None
        except (OSError, ValueError) as error:
            # urllib wraps what really happened.
            cause = getattr(error, "reason", None) or error
            raise self._unreachable(f"{type(cause).__name__}: {cause}") from error
        if answer.status in _NOT_ANSWERED:
            raise self._unreachable(f"HTTP status {answer.status}")
        return answer

    def _unreachable(self, cause: object) -> Unreachable:
        return Unreachable("MLflow", self.shown, "MLFLOW_TRACKING_URI", cause)


def _error_code(answer: Answer) -> str | None:
    """MLflow's own code of an error; None for an answer that is none of MLflow's errors."""
    try:
        code = json.loads(answer.body)["error_code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return code if isinstance(code, str) else None


def _is_missing(answer: Answer) -> bool:
    """Whether MLflow itself says that there is no such model, version or alias."""
    if answer.status not in {400, 404}:
        return False
    code = _error_code(answer)
    # Of a missing alias MLflow says that the parameter is invalid, as of a malformed one.
    alias = code == "INVALID_PARAMETER_VALUE" and b"alias" in answer.body
    return code == "RESOURCE_DOES_NOT_EXIST" or (alias and b"not found" in answer.body)
