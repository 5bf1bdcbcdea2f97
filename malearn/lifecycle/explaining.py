"""Explanations by a registered version: of an answer given now, or of a task of the past.

A past task is answered again from what had ended before it started, by the version that
answered it then where that is known, else by the one in Production.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from malearn.kernel import causality
from malearn.kernel.errors import ArtifactRefused, InputError, RegistryError
from malearn.kernel.estimation import answer_explanation, intervals, replay
from malearn.kernel.estimation.answer_explanation import AnswerExplanation, ModelAnswer
from malearn.kernel.estimation.estimator import Basis, Estimator
from malearn.kernel.onnx import onnx_model
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType, default_seconds
from malearn.learning import explanation, matrix
from malearn.learning.explanation import Explanation
from malearn.learning.regressor import Regressor
from malearn.lifecycle import logged_models, registry
from malearn.lifecycle.registry import Version

__all__ = ["explain_answer", "explain_task"]

_log = logging.getLogger(__name__)

#: Executions before a past task that are replayed; and rows of a background.
_REPLAYED, _BACKGROUND = 20_000, 500


def explain_answer(
    answer: AnswerExplanation, tool_type: ToolType | None, executions: Sequence[Execution]
) -> Explanation:
    """`answer`, given now, with what its model adds.

    `executions` are those of its tool type. Needs `mlflow_connection.connect` first.
    """
    version = answer.prediction.model_version
    if tool_type is None or version is None:
        return Explanation(answer, answer.terms)
    native = _native(registry.version(tool_type, version))
    return explanation.explain(answer, native, lambda: _background(tool_type, executions))


def explain_task(
    task_id: str,
    executions: Mapping[str, Sequence[Execution]],
    tool_types: Mapping[str, ToolType],
) -> Explanation:
    """The prediction of a past task, from what was known when it started, against its outcome.

    `executions` are all that there are, by tool type. Raises `InputError` where none of them is
    of that task. Needs `mlflow_connection.connect` first.
    """
    task = next((e for some in executions.values() for e in some if e.task_id == task_id), None)
    if task is None:
        raise InputError(task_id, "no dataset holds an execution of this task")
    tool_type = tool_types[task.tool_type]
    before = sorted(
        (e for some in executions.values() for e in some if causality.was_known(e.end, task.start)),
        key=lambda e: e.end,
    )[-_REPLAYED:]
    known = _replayed(before)
    features, context = matrix.known_before(task), matrix.context_before(task)
    basis = known.look_up(task.function, task.tool_type, features, context)
    version = _version(tool_type, task.model_version)
    answer = answer_explanation.explain(
        known,
        basis,
        features,
        context,
        default_seconds(None, tool_type),
        _model_answer(tool_type, version, features, basis),
        [matrix.observation(e) for e in before if e.function == task.function],
    )
    native = None if version is None else _native(version)
    return explanation.explain(
        answer,
        native,
        lambda: _background(tool_type, [e for e in before if e.tool_type == tool_type.name]),
        task_id=task_id,
        actual=task.seconds,
        recorded=task.predicted,
    )


def _replayed(executions: Sequence[Execution]) -> Estimator:
    """What a scheduler knew once all of `executions` had ended, and what came of its answers."""
    known = Estimator()
    bases: dict[int, Basis] = {}

    def end(ended: Iterable[int]) -> None:
        for j in ended:
            task = executions[j]
            # With what the scheduler recorded, not today's answer: it learnt from that error.
            if j in bases and task.predicted is not None and task.predicted > 0.0:
                known.learn(bases.pop(j), task.predicted, task.seconds)
            known.observe(matrix.observation(task))

    waiting = set(range(len(executions)))
    for i, ended in replay.timeline(executions):
        end(ended)
        waiting.difference_update(ended)
        task = executions[i]
        if task.predicted is not None:
            bases[i] = known.look_up(
                task.function,
                task.tool_type,
                matrix.known_before(task),
                matrix.context_before(task),
            )
    # The timeline ends with the last start; all of them had ended when the task began.
    end(sorted(waiting, key=lambda i: executions[i].end))
    return known


def _version(tool_type: ToolType, number: int | None) -> Version | None:
    """The version of that number, or the one in Production where it is not known or gone."""
    if number is not None:
        try:
            return registry.version(tool_type, number)
        except RegistryError as error:
            _log.warning("%s; the version in Production answers instead", error)
    # Also for a task that no model answered: what the model of today adds is then shown.
    return registry.by_alias(tool_type, registry.PRODUCTION)


def _model_answer(
    tool_type: ToolType, version: Version | None, features: Sequence[float], basis: Basis
) -> ModelAnswer:
    if version is None:
        return ModelAnswer(why_not="no model of its tool type is in Production")
    name = f"{tool_type.registered_model} version {version.number}"
    try:
        file = registry.model_file(tool_type, version.number)
        model = onnx_model.load(file, tool_type, name)
    except (ArtifactRefused, RegistryError) as error:
        return ModelAnswer(why_not=str(error))
    metadata = model.metadata
    row = model.row(features, basis.snapshot)
    calibration = intervals.calibrated(metadata.calibration)
    return ModelAnswer(
        model.seconds(row), metadata.columns, row, version.number, calibration,
        metadata.seconds_range,
    )  # fmt: skip


def _native(version: Version) -> Regressor | None:
    """The trainer's model of `version`; None where it was not kept or cannot be loaded."""
    try:
        # Versions that a person registered have no tag; their run may hold the model all the same.
        uri = version.tags.get("malearn.native") or logged_models.native_beside(version.run_id)
        return None if uri is None else logged_models.load_native(uri)
    except RegistryError as error:
        _log.warning("What the model adds cannot be told by input: %s", error)
        return None


def _background(tool_type: ToolType, executions: Sequence[Execution]) -> NDArray[np.float32]:
    return matrix.build(tool_type, executions[-_BACKGROUND:]).inputs
