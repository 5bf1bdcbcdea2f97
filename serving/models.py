"""The models in use, and how they follow the registry.

New before old is dropped: a version is downloaded, checked and probed first,
and takes over in one assignment. Whatever goes wrong on the way, the one in
use stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from malearn.kernel.errors import ArtifactRefused, MalearnError, Unreachable
from malearn.kernel.tool_types import ToolTypes
from malearn.serving.cache import ModelCache
from malearn.serving.model import Model, load
from malearn.serving.registry import Registry

__all__ = ["Models"]

_log = logging.getLogger("malearn.serving")


class Models:
    """One model per tool type that earned one. `current` is read without a lock."""

    def __init__(
        self,
        tool_types: Callable[[], ToolTypes],
        registry: Registry | None,
        cache: ModelCache | None,
        loaded: Callable[[Model], None] = lambda model: None,
    ) -> None:
        self.current: dict[str, Model] = {}
        self.refused: dict[str, str] = {}
        self.refreshed_at: float | None = None
        self.swaps = self.failures = 0
        self._tool_types, self._registry, self._cache = tool_types, registry, cache
        self._loaded = loaded
        self._refusals: dict[tuple[str, int], None] = {}
        self._lock = threading.Lock()

    def load_cached(self) -> None:
        """Take what the disk holds, for tool types that have no model yet. Never raises."""
        if self._cache is None:
            return
        for tool_type in self._tool_types().values():
            kept = self._cache.read(tool_type.registered_model)
            if kept is None or tool_type.name in self.current:
                continue
            try:
                self._use(load(kept[1], tool_type, kept[0]))
            except ArtifactRefused as refusal:
                _log.warning("%s (from the cache)", refusal)

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

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()

    def _follow(self, registry: Registry) -> None:
        tool_types = self._tool_types()
        named = registry.versions([t.registered_model for t in tool_types.values()])
        unreachable: Unreachable | None = None
        for tool_type in tool_types.values():
            version = named.get(tool_type.registered_model)
            in_use = self.current.get(tool_type.name)
            if version is None:
                self._drop(tool_type.name, tool_type.registered_model, registry.alias)
                continue
            key = (tool_type.registered_model, version)
            if (in_use is not None and in_use.version == version) or key in self._refusals:
                continue
            try:
                artifact = registry.download(*key)
                self._use(load(artifact, tool_type, version))
            except ArtifactRefused as refusal:
                self._refusals[key] = None
                self.refused = {**self.refused, tool_type.name: str(refusal)}
                _log.warning("%s", refusal)
            except Unreachable as error:
                unreachable = error  # the others may still be had
            else:
                if self._cache is not None:
                    self._cache.write(*key, artifact)
        if unreachable is not None:
            raise unreachable

    def _use(self, model: Model) -> None:
        replaced = self.current.get(model.tool_type)
        self.current = {**self.current, model.tool_type: model}
        self.refused = {name: why for name, why in self.refused.items() if name != model.tool_type}
        self.swaps += replaced is not None
        _log.info(
            "%s is served by version %d (%s)", model.tool_type, model.version, model.metadata.family
        )
        self._loaded(model)

    def _drop(self, name: str, registered: str, alias: str) -> None:
        """The alias names nothing any more, and it is the only truth."""
        if name in self.current:
            self.current = {key: model for key, model in self.current.items() if key != name}
            _log.warning(
                "%s has no alias %s any more and is served without a model", registered, alias
            )
        if self._cache is not None:
            self._cache.forget(registered)
