"""Families of a user's own: `package.module:NAME` in `malearn.toml`, found beside that file.

Only the modules that a declaration names are looked for there, and after all others: a module of
the user's never takes the place of one that is installed, nor the other way round unnoticed.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from malearn.kernel.errors import DeclarationError
from malearn.learning.families.family import Family

__all__ = ["load"]

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load(reference: str, file: str) -> Family:
    """The family that `reference` names in the declaration `file`.

    Raises `DeclarationError`, in one sentence, for whatever is wrong with it.
    """

    def refuse(problem: str) -> DeclarationError:
        return DeclarationError(file, f"family '{reference}' {problem}")

    if not _REFERENCE.fullmatch(reference):
        raise refuse(
            "is neither shipped nor of the form package.module:NAME, such as own_models:RIDGE"
        )
    name, _, attribute = reference.partition(":")
    _prepare(name.partition(".")[0], Path(file).resolve().parent, refuse)
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises
        problem = f"cannot be loaded: module {name} raises {_in_short(error)}"
        raise refuse(problem) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise refuse(f"is not there: module {name} has no {attribute}")
    if not isinstance(found, Family):
        raise refuse(f"is of type {type(found).__name__}, not a malearn.learning.families.Family")
    return found


def _prepare(name: str, folder: Path, refuse: Any) -> None:
    """Make the user's package importable as `name`, unless it is installed."""
    # In that folder alone: on `sys.path`, every module beside the file could shadow others.
    beside = PathFinder.find_spec(name, [str(folder)])
    loaded = sys.modules.get(name)
    installed = loaded.__spec__ if loaded is not None else importlib.util.find_spec(name)
    if beside is None:
        if installed is None:
            raise refuse(f"is not there: no module {name} is installed or in {folder}")
        return
    if installed is not None:
        # Which of two modules of one name is meant cannot be known, and a guess would run code.
        if _origin(installed, loaded) != _origin(beside):
            raise refuse(
                f"is ambiguous: there is a module {name} in {folder} and another at "
                f"{_origin(installed, loaded) or 'Python itself'}; rename yours"
            )
        return
    module = importlib.util.module_from_spec(beside)
    # Before it runs, as importlib does: its modules may import each other.
    sys.modules[name] = module
    try:
        if beside.loader is not None:
            beside.loader.exec_module(module)
    # Also on Ctrl-C: a module that is half initialised must not stay importable.
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        problem = f"cannot be loaded: module {name} raises {_in_short(error)}"
        raise refuse(problem) from error


def _origin(spec: ModuleSpec | None, module: ModuleType | None = None) -> str | None:
    """Where a module's code is; None for one that is built into Python."""
    if spec is None:
        return getattr(module, "__file__", None)
    if spec.origin is not None and spec.has_location:
        return str(Path(spec.origin).resolve())
    places = list(spec.submodule_search_locations or ())
    return str(Path(places[0]).resolve()) if places else None


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__} ({' '.join(str(error).split())[:200]})"
