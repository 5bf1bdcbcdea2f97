"""The last good models, on disk: a scheduler starts without MLflow.

One file a model, named after what it holds and its digest, so that there is no index to
fall out of step. Only a model that was tried and loaded is written, so what has its whole
digest in its name need not be tried again. A cache never hurts: what cannot be written is
not cached, what cannot be read, or is not what its name says, is not there, and a
directory in which others can write is not used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from malearn.kernel.errors import without_password
from malearn.kernel.onnx import onnx_model

__all__ = ["Cached", "ModelCache", "default_directory", "open_cache"]

_log = logging.getLogger("malearn.serving")
#: 0.1.0 wrote a quarter of the digest, of models that it had not tried.
_FILE = re.compile(
    r"(?P<model>.+)-v(?P<version>\d{1,18})-(?P<digest>[0-9a-f]{64}|[0-9a-f]{16})\.onnx"
)
_WHOLE = 64  # hexadecimal digits of a SHA-256
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def default_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """`$MALEARN_CACHE`, else `malearn` in the user's cache directory; None without a home.

    Never a directory that everybody shares: what lies there may be anybody's.
    """
    if chosen := environment.get("MALEARN_CACHE"):
        return Path(chosen)
    if base := environment.get("XDG_CACHE_HOME"):
        return Path(base) / "malearn"
    home = environment.get("HOME")
    return Path(home) / ".cache" / "malearn" if home else None


def open_cache(
    directory: str | os.PathLike[str] | None, tracking_uri: str | None, alias: str
) -> ModelCache | None:
    """The cache of one registry's models, in `directory` or the default one; None without any."""
    if not tracking_uri:
        return None
    place = default_directory() if directory is None else Path(directory)
    if place is None:
        _log.warning("Models are not cached: set MALEARN_CACHE, as there is no HOME")
        return None
    return ModelCache(place, tracking_uri, alias)


class Cached(NamedTuple):
    """One model from the cache; `tried` when it was loaded here before."""

    version: int
    artifact: bytes
    tried: bool


class ModelCache:
    """Models of one registry and one alias, below `directory`."""

    def __init__(self, directory: Path, tracking_uri: str, alias: str) -> None:
        # Version 3 of one server or alias is not that of another; a new password changes neither.
        origin = f"{without_password(tracking_uri)}\n{alias}"
        self.directory = directory / sha256(origin.encode()).hexdigest()[:16]
        self.failures = 0
        self._warned = False

    def read(self, model: str) -> Cached | None:
        """The model last written under that name, if its file is whole."""
        # Newest first: an older one stands in where the newest is damaged.
        for path in self._files(model):
            try:
                artifact = path.read_bytes()
            except OSError:
                continue
            found = _FILE.fullmatch(path.name)
            if found and onnx_model.digest(artifact).startswith(found["digest"]):
                return Cached(int(found["version"]), artifact, len(found["digest"]) == _WHOLE)
            _log.warning("Ignoring corrupted cache file %s (checksum mismatch)", path)
        return None

    def digest(self, model: str, version: int) -> str | None:
        """The SHA-256 that the file of that version had when it was downloaded, if it is known."""
        for path in self._files(model):
            found = _FILE.fullmatch(path.name)
            if found and int(found["version"]) == version and len(found["digest"]) == _WHOLE:
                return found["digest"]
        return None

    def holds(self, model: str) -> bool:
        """Whether there is a file of `model`."""
        return bool(self._files(model))

    def write(self, model: str, version: int, artifact: bytes) -> None:
        """Keep a model that was tried and loaded; never raises.

        Earlier versions are removed after it is safe.
        """
        target = self.directory / f"{model}-v{version}-{onnx_model.digest(artifact)}.onnx"
        # By process, since several schedulers may share a cache and load a version at once.
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory.mkdir(exist_ok=True, mode=0o700)
            # After the directory was made, since one that was there before may be anybody's.
            if not self._is_ours():
                self.failures += 1
                return
            with temporary.open("wb") as file:
                file.write(artifact)
                file.flush()
                # The name says what the bytes are, so they must be on the disk before it is.
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
        if not self._is_ours():
            return []
        try:
            found = [
                (path.stat().st_mtime_ns, path)
                for path in self.directory.iterdir()
                if (match := _FILE.fullmatch(path.name)) and match["model"] == model
            ]
        except OSError:
            return []
        # By time rather than by version, since a rollback serves a lower one.
        return [path for _, path in sorted(found, reverse=True)]

    def _remove(self, paths: Iterable[Path]) -> None:
        # Another scheduler may be removing the same files.
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Whether nobody else can put files there; says once, and why, that it is not used."""
        for place in (self.directory.parent, self.directory):
            if problem := _problem(place):
                if not self._warned:
                    self._warned = True
                    _log.warning("Models are not cached: %s %s", place, problem)
                return False
        return True


def _problem(place: Path) -> str | None:
    """Why files in `place` may be anybody's; None also where there is no such directory."""
    try:
        found = place.stat()
    except OSError:
        return None  # whoever wants to read or write there finds out
    if found.st_uid != os.geteuid():
        return "belongs to another user; point MALEARN_CACHE at a directory of your own"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & _OTHERS_MAY_WRITE:
        return "can be written by other users; run chmod go-w on it and remove what is in it"
    return None
