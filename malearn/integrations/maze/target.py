"""What malearn needs of Maze, looked for by name and signature; nothing else is relied on."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from malearn.kernel.errors import IntegrationError

__all__ = ["MAZE", "SIGNATURES", "Target", "find"]

MAZE = "Maze"

_ESTIMATOR = "maze.core.scheduler.runtime_estimator"
#: Where the class that dispatches tasks is today; elsewhere below the package it is searched for.
_PATH, _PACKAGE = "maze.core.path.path", "maze.core"

#: The parameters that each method is called with, `self` left out; `*` begins keywords.
SIGNATURES = {
    "RuntimeEstimator.predict": ("task",),
    "MaPath._static_scheduling_context": ("workflow", "task_id", "submit_id"),
    "MaPath._dynamic_scheduling_context": ("dynamic_run", "task"),
    "MaPath._observe_task_runtime": ("task", "message_data", "*", "success"),
}
#: The fields of a prediction.
FIELDS = (
    "predicted_duration",
    "prediction_source",
    "confidence",
    "sample_count",
    "task_kind",
    "code_hash",
)
_ADVICE = "start Maze without malearn, or use a malearn that knows this version of Maze"


@dataclass(frozen=True, slots=True)
class Target:
    """Maze's own classes."""

    estimator: type[Any]
    prediction: type[Any]
    path: type[Any]


def find() -> Target:
    """Maze's classes. Raises `IntegrationError` where Maze is absent, or not as expected."""
    module = _import(_ESTIMATOR)
    classes = {
        "RuntimeEstimator": _class(module, "RuntimeEstimator"),
        "RuntimePrediction": _class(module, "RuntimePrediction"),
        "MaPath": _class(_path_module(), "MaPath"),
    }
    for name, wanted in SIGNATURES.items():
        owner, _, method = name.partition(".")
        _check(classes[owner], name, method, wanted)
    found = inspect.signature(classes["RuntimePrediction"]).parameters
    if missing := [field for field in FIELDS if field not in found]:
        raise _unfit(f"RuntimePrediction has no field {', '.join(missing)}")
    return Target(classes["RuntimeEstimator"], classes["RuntimePrediction"], classes["MaPath"])


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == "maze":
            problem = "is not installed in this environment (there is no module 'maze')"
            raise IntegrationError(MAZE, problem) from None
        # Maze's own module is missing; any other name is a library that Maze needs.
        if error.name is not None and name.startswith(error.name):
            raise _unfit(f"there is no module {error.name}") from None
        raise IntegrationError(MAZE, f"cannot be imported ({error})") from error
    except Exception as error:
        raise IntegrationError(MAZE, f"cannot be imported ({error})") from error


def _path_module() -> ModuleType:
    """The module that defines `MaPath`: the known one, or whichever has the class in its text."""
    try:
        known = importlib.util.find_spec(_PATH)
    # find_spec imports the packages above, which may be missing.
    except ModuleNotFoundError:
        known = None
    if known is not None and hasattr(module := _import(_PATH), "MaPath"):
        return module
    package = _import(_PACKAGE)
    for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{_PACKAGE}."):
        if found.name == f"{_PACKAGE}.server":  # makes one as soon as it is imported
            continue
        # Its text is searched first: importing module after module would run all of Maze.
        spec = importlib.util.find_spec(found.name)
        if spec is not None and spec.origin is not None and _defines(Path(spec.origin)):
            return _import(found.name)
    raise _unfit("there is no class MaPath below maze.core")


def _defines(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return "class MaPath" in text


def _class(module: ModuleType, name: str) -> type[Any]:
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise _unfit(f"{module.__name__} has no class {name}")
    return found


def _check(owner: type[Any], name: str, method: str, wanted: tuple[str, ...]) -> None:
    """Raise unless `method` can be called with the parameters `wanted`."""
    function = getattr(owner, method, None)
    if not callable(function):
        raise _unfit(f"there is no {name}")
    # A coroutine could be suspended within `Adapter.asking`, while another task is predicted.
    if inspect.iscoroutinefunction(function):
        raise _unfit(f"{name} is a coroutine")
    star = wanted.index("*") if "*" in wanted else len(wanted)
    signature = inspect.signature(function)
    try:
        signature.bind(None, *wanted[:star], **dict.fromkeys(wanted[star + 1 :]))
    except TypeError:
        fits = False
    else:
        given = [p for p in signature.parameters if p in wanted]
        fits = given == [p for p in wanted if p != "*"] or _takes_anything(signature)
    if not fits:
        raise _unfit(f"{name} takes {signature}, not (self, {', '.join(wanted)})")


def _takes_anything(signature: inspect.Signature) -> bool:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds


def _unfit(problem: str) -> IntegrationError:
    return IntegrationError(MAZE, f"{problem}; {_ADVICE}")
