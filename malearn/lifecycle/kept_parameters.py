"""Hyper-parameters written into the user's declaration, which keeps its comments and its order."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from malearn.kernel import tool_types
from malearn.kernel.errors import DeclarationError
from malearn.learning.families import Parameters

__all__ = ["keep", "table"]


def keep(tool_type: str, family: str, parameters: Parameters) -> Path:
    """Declare `parameters` for `family` of `tool_type`; returns the file.

    Raises `DeclarationError` where the declaration holds them in a form that cannot be changed
    here, and leaves it as it was.
    """
    file = tool_types.declaration_file()
    try:
        before = file.read_text("utf-8") if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(file, f"cannot be read ({error})") from error
    # Edited as text: the standard library reads TOML but writes none, and would lose the comments.
    after = _replaced(before, tool_type, family, parameters)
    # Beside the file, so that it can be renamed into its place.
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        scratch.write_text(after, "utf-8")
        try:
            # Read back before anything is replaced: TOML has forms that the pattern does not know,
            # such as dotted keys and inline tables.
            read = tool_types.declared(scratch)[tool_type].hyperparameters.get(family)
        except DeclarationError:
            read = None
        if read != dict(parameters):
            raise DeclarationError(
                file,
                f"declares hyperparameters of {tool_type} in a form that cannot be changed here; "
                f"write [{tool_type}.hyperparameters.{family}] with "
                f"{', '.join(_lines(parameters)) or 'nothing in it'}",
            )
        scratch.replace(file)
    except OSError as error:
        raise DeclarationError(file, f"cannot be written ({error.strerror})") from error
    finally:
        scratch.unlink(missing_ok=True)
    return file


def table(tool_type: str, family: str, parameters: Parameters) -> str:
    """The table of a declaration, as TOML."""
    return "\n".join([f"[{tool_type}.hyperparameters.{family}]", *_lines(parameters)]) + "\n"


def _replaced(text: str, tool_type: str, family: str, parameters: Parameters) -> str:
    head = rf"^\[\s*{re.escape(tool_type)}\s*\.\s*hyperparameters\s*\.\s*{re.escape(family)}\s*\]"
    # A table reaches to the next header; nothing else of TOML has to be understood.
    found = re.search(rf"{head}[^\n]*\n(?:(?!\s*\[)[^\n]*(?:\n|\Z))*", text, re.MULTILINE)
    new = table(tool_type, family, parameters)
    if found is None:
        return f"{text.rstrip()}\n\n{new}" if text.strip() else new
    rest = text[found.end() :]
    return text[: found.start()] + new + ("\n" if rest.strip() else "") + rest


def _lines(parameters: Parameters) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in parameters.items()]


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)  # true, false, whole numbers and texts
