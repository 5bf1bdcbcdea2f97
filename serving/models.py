"""The models in use, and how they follow the registry.

New before old is dropped: a version is downloaded, compared with the digest that it was
registered with, tried in a process of its own and loaded first, and takes over in one
assignment. Whatever goes wrong on the way, the one in use stays, the other tool types go
on, and the version is asked for again after a pause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from malearn.kernel.errors import ArtifactRefused, MalearnError, Unreachable
from malearn.kernel.names import Names
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.onnx.onnx_trial import Trial
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.serving import model as models
from malearn.serving.cache import ModelCache
from malearn.serving.model import Model
from malearn.serving.registry import Registry

__all__ = ["Models"]

_log = logging.getLogger("malearn.serving")

#: Seconds until a refused version is asked for again; twice as long each time, up to an hour.
_FIRST_PAUSE, _LONGEST_PAUSE = 30.0, 3600.0

#: A registered model and a version of it.
_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a version is not served, and when, by the monotonic clock, it is tried again."""

    reason: str
    pause: float
    until: float


class Models:
    """One model per tool type that earned one. `current` is read without a lock.

    `refused` holds by tool type why the version that the alias names now is not served.
    `loaded` is called with each model before it is used. `first_pause`: see `_FIRST_PAUSE`.
    """

    def __init__(
        self,
        tool_types: Callable[[], ToolTypes],
        registry: Registry | None,
        cache: ModelCache | None,
        loaded: Callable[[Model], None] = lambda model: None,
        first_pause: float = _FIRST_PAUSE,
        names: Names | None = None,
    ) -> None:
        self._names = Names.find() if names is None else names
        self.current: dict[str, Model] = {}
        self.refused: dict[str, str] = {}
        self.refreshed_at: float | None = None
        self.swaps = self.failures = 0
        self._tool_types, self._registry, self._cache = tool_types, registry, cache
        self._loaded, self._first_pause = loaded, first_pause
        self._refusals: dict[_Key, _Refusal] = {}
        #: Models in use whose bytes are known to be those that were registered.
        self._verified: set[_Key] = set()
        #: One refresh at a time; readers of `current` never wait for it.
        self._lock = threading.Lock()

    def _registered(self, tool_type: ToolType) -> str:
        return self._names.registered_model(tool_type.name)

    def load_cached(self) -> None:
        """Take what the disk holds, for tool types that have no model yet. Never raises."""
        if self._cache is None:
            return
        with Trial() as trial:
            for tool_type in self._tool_types().values():
                kept = self._cache.read(self._registered(tool_type))
                if kept is None or tool_type.name in self.current:
                    continue
                check = None if kept.tried else trial.check
                try:
                    self._use(models.load(kept.artifact, tool_type, kept.version, check))
                except ArtifactRefused as refusal:
                    _log.warning("%s (from the cache)", refusal)
                except Exception as error:  # noqa: BLE001 - a start must not fail for a file
                    _log.warning("%s from the cache cannot be used: %s", tool_type.name, error)

    def refresh(self) -> bool:
        """Follow the alias once; False when the registry gave no answer. Never raises.

        May take as long as the network does; one refresh at a time.
        """
        if self._registry is None:
            return False
        with self._lock:
            try:
                self._follow(self._registry)
            except MalearnError as error:
                self.failures += 1
                # The first time an operator should see it; an outage fills no log.
                _log.log(logging.WARNING if self.failures == 1 else logging.DEBUG, "%s", error)
                return False
            self.failures = 0
            self.refreshed_at = time.time()
            return True

    def use(self, loaded: OnnxModel, version: int) -> None:
        """Serve a model that was fitted and verified in this process."""
        with self._lock:
            self._use(models.of_version(loaded, version))

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()

    def _follow(self, registry: Registry) -> None:
        tool_types = self._tool_types()
        named = registry.versions([self._registered(t) for t in tool_types.values()])
        unreachable: Unreachable | None = None
        with Trial() as trial:
            for tool_type in tool_types.values():
                registered = self._registered(tool_type)
                try:
                    # A model is dropped only where MLflow itself answers that the alias is gone.
                    asked = registered not in named and self._is_kept(tool_type)
                    if asked and (version := registry.version(registered)) is not None:
                        named[registered] = version
                    if registered in named:
                        self._follow_one(registry, tool_type, named[registered], trial)
                    else:
                        self._drop(tool_type.name, registered, registry.alias)
                except Unreachable as error:
                    unreachable = error  # the others may still be had
        self._forget_healed(tool_types, named)
        if unreachable is not None:
            raise unreachable

    def _follow_one(
        self, registry: Registry, tool_type: ToolType, version: int, trial: Trial
    ) -> None:
        """Serve `version`, or note why not. Raises `Unreachable` where that cannot be known."""
        key = (self._registered(tool_type), version)
        in_use = self.current.get(tool_type.name)
        # Nearly always: the alias has not moved, and MLflow need not be asked anything else.
        if in_use is not None and in_use.version == version and key in self._verified:
            self._refusals.pop(key, None)
            return
        if (refusal := self._refusals.get(key)) and time.monotonic() < refusal.until:
            return
        try:
            self._take(registry, tool_type, version, trial)
        except Unreachable:
            raise
        except ArtifactRefused as error:
            self._refuse(key, str(error))
        except Exception as error:  # noqa: BLE001 - one version must not stop the others
            name = f"{key[0]} version {version}"
            self._refuse(key, str(ArtifactRefused(name, [f"it cannot be used ({error!r})"])))
        else:
            self._refusals.pop(key, None)
            self._verified.add(key)

    def _take(self, registry: Registry, tool_type: ToolType, version: int, trial: Trial) -> None:
        """Load `version` unless it is in use with the bytes that were registered."""
        registered, in_use = self._registered(tool_type), self.current.get(tool_type.name)
        digest = registry.digest(registered, version)
        if in_use is not None and in_use.version == version:
            # It came from the cache, before MLflow was asked what bytes were registered.
            if digest in (None, in_use.digest):
                return
            why = f"version {version} was changed in the cache"
            self._drop(tool_type.name, registered, registry.alias, why)
        artifact = registry.download(registered, version)
        # 0.1.0 registered no digest: then what was downloaded first counts (trust on first use).
        known = digest or (self._cache.digest(registered, version) if self._cache else None)
        if known is not None and onnx_model.digest(artifact) != known:
            reason = "its bytes are not those that were registered (SHA-256 differs)"
            raise ArtifactRefused(f"{registered} version {version}", [reason])
        # In use before it is cached: only what was loaded counts as tried in the cache.
        self._use(models.load(artifact, tool_type, version, trial.check))
        if self._cache is not None:
            self._cache.write(registered, version, artifact)

    def declare(self, tool_types: ToolTypes) -> None:
        """Let the models in use read features in the order of another declaration."""
        # Without the lock, under which `_use` may call what declares.
        self.current = {
            name: model.reordered(tool_types[name]) if name in tool_types else model
            for name, model in self.current.items()
        }

    def _use(self, model: Model) -> None:
        # Before it is used, since it may warm the history and add features of a generic tool type.
        self._loaded(model)
        model = model.reordered(self._tool_types()[model.tool_type])  # it may have grown
        replaced = self.current.get(model.tool_type)
        # A new dictionary each time: readers take no lock and must never meet a changing one.
        self.current = {**self.current, model.tool_type: model}
        self.swaps += replaced is not None
        _log.info(
            "%s is served by version %d (%s)", model.tool_type, model.version, model.metadata.family
        )

    def _refuse(self, key: _Key, reason: str) -> None:
        """Note a refusal, and say it where it is news."""
        before = self._refusals.get(key)
        pause = self._first_pause if before is None else min(2 * before.pause, _LONGEST_PAUSE)
        self._refusals[key] = _Refusal(reason, pause, time.monotonic() + pause)
        if before is None or before.reason != reason:
            _log.warning("%s", reason)

    def _forget_healed(self, tool_types: ToolTypes, named: dict[str, int]) -> None:
        """Keep of all refusals those of versions that the alias names still."""
        keys = set(named.items())
        self._refusals = {key: why for key, why in self._refusals.items() if key in keys}
        # Of a version that comes back later the bytes are compared anew.
        self._verified &= keys
        self.refused = {
            tool_type.name: self._refusals[key].reason
            for tool_type in tool_types.values()
            if (key := (self._registered(tool_type), named.get(self._registered(tool_type), 0)))
            in self._refusals
        }

    def _is_kept(self, tool_type: ToolType) -> bool:
        cached = self._cache and self._cache.holds(self._registered(tool_type))
        return tool_type.name in self.current or bool(cached)

    def _drop(self, name: str, registered: str, alias: str, why: str = "") -> None:
        """Stop serving a model: the alias names none any more, or the file was changed."""
        if name in self.current:
            self.current = {key: model for key, model in self.current.items() if key != name}
            why = why or f"has no alias {alias} any more"
            _log.warning("%s %s and is served without a model", registered, why)
        if self._cache is not None:
            self._cache.forget(registered)
