"""A request: one task to be estimated, with all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from malearn.kernel.features import FeatureVector
from malearn.kernel.reading import run_ids
from malearn.kernel.tool_types import ToolType
from malearn.serving.predecessor_cache import PredecessorCache, SuccessorFeatures

__all__ = ["Request", "build", "predecessor_ids"]

_NO_FEATURES = FeatureVector((), (), (), ())


class Request(msgspec.Struct, frozen=True, gc=False):
    """One task to be estimated.

    `tool_type` is None where nobody claims the function. `missing_inputs`: none of its features
    is known, and not every predecessor could be read. `task_id` is empty where it has none.
    `predecessors` are those that were named. The answer is that of the tasks `siblings`, too, which
    differ in nothing but their ids.
    """

    function: str
    resource: str | None
    tool_type: ToolType | None
    features: FeatureVector
    task_id: str
    missing_inputs: bool
    predecessors: tuple[str, ...] = ()
    siblings: Sequence[str] = ()


def build(
    cache: PredecessorCache,
    function: str,
    resource: str | None,
    tool_type: ToolType | None,
    predecessors: Sequence[str],
    found: Sequence[SuccessorFeatures | None],
    features: Mapping[str, object] | None = None,
    task_id: str | None = None,
) -> Request:
    """The request for a task after `predecessors`, of which `cache` gave `found`.

    `features` are what the caller knows beyond it, and count for more.
    """
    if not task_id:
        # As Maze forms it, so that the report of this task finds the answer that it was given.
        task_id = f"{run_ids.run_of(predecessors[0])}-{function}" if predecessors else ""
    if tool_type is None:
        return Request(function, resource, None, _NO_FEATURES, task_id, False, tuple(predecessors))
    schema = cache.schemas[tool_type.name]
    vector = cache.features_for(function, schema, found)
    if features:
        vector = schema.merge((vector, schema.vectorize(features)))
    # By identity: numbers that are all missing may also have been given so, and NaN ≠ NaN.
    nothing = vector.values is schema.nothing.values and not vector.context
    missing = nothing and None in found
    return Request(function, resource, tool_type, vector, task_id, missing, tuple(predecessors))


def build_known(
    cache: PredecessorCache,
    function: str,
    resource: str,
    tool_type: ToolType,
    predecessors: tuple[str, ...],
    found: Sequence[SuccessorFeatures | None],
    features: Mapping[str, object],
    task_ids: Sequence[str],
) -> Request | None:
    """As `build`, for tasks that differ in their ids alone; None where nothing of them is known."""
    schema = cache.schemas[tool_type.name]
    vector = cache.features_for(function, schema, found)
    if features:
        vector = schema.merge((vector, schema.vectorize(features)))
    if vector.values is schema.nothing.values:
        return None
    siblings = task_ids[1:] if len(task_ids) > 1 else ()
    return Request(
        function, resource, tool_type, vector, task_ids[0], False, predecessors, siblings
    )


def predecessor_ids(predecessors: Sequence[str] | None) -> Sequence[str]:
    """Predecessors as a sequence, however they were given."""
    if isinstance(predecessors, list | tuple):
        return predecessors
    # A text is a sequence of its letters: one id was meant.
    if isinstance(predecessors, str):
        return (predecessors,)
    return list(predecessors or ())
