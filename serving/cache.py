"""The last good models, on disk: a scheduler starts without MLflow.

One file a model, named after what it holds, so that there is no index to fall
out of step. A cache never hurts: what cannot be written is not cached, what
cannot be read, or is not what its name says, is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from malearn.kernel.errors import without_password

__all__ = ["ModelCache", "default_directory"]

_log = logging.getLogger("malearn.serving")
_FILE = re.compile(r"(?P<model>.+)-v(?P<version>\d+)-(?P<digest>[0-9a-f]{16})\.onnx")


def default_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """`$MALEARN_CACHE`, else `malearn` in the user's cache directory."""
    if chosen := environment.get("MALEARN_CACHE"):
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME")
    if not base:
        base = str(Path(environment.get("HOME") or tempfile.gettempdir()) / ".cache")
    return Path(base) / "malearn"


class ModelCache:
    """Models of one registry and one alias, below `directory`."""

    def __init__(self, directory: Path, tracking_uri: str, alias: str) -> None:
        origin = f"{without_password(tracking_uri)}\n{alias}"
        self.directory = directory / hashlib.sha256(origin.encode()).hexdigest()[:16]
        self.failures = 0

    def read(self, model: str) -> tuple[int, bytes] | None:
        """Version and bytes of the model last written under that name, if they are whole."""
        for path in self._files(model):
            try:
                artifact = path.read_bytes()
            except OSError:
                continue
            found = _FILE.fullmatch(path.name)
            if found and found["digest"] == _digest(artifact):
                return int(found["version"]), artifact
            _log.warning("%s is not what it was when written and is ignored", path)
        return None

    def write(self, model: str, version: int, artifact: bytes) -> None:
        """Keep one model; never raises. Earlier versions are removed after it is safe."""
        target = self.directory / f"{model}-v{version}-{_digest(artifact)}.onnx"
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(artifact)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            self.failures += 1
            _log.warning("%s cannot be cached (%s); serving goes on without", model, error)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            return
        self._remove(path for path in self._files(model) if path != target)

    def forget(self, model: str) -> None:
        """Remove what is kept of `model`; never raises."""
        self._remove(self._files(model))

    def _files(self, model: str) -> list[Path]:
        """Of one model, newest first."""
        try:
            found = [
                (path.stat().st_mtime_ns, path)
                for path in self.directory.iterdir()
                if (match := _FILE.fullmatch(path.name)) and match["model"] == model
            ]
        except OSError:
            return []
        return [path for _, path in sorted(found, reverse=True)]

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _digest(artifact: bytes) -> str:
    return hashlib.sha256(artifact).hexdigest()[:16]
