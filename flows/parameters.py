"""Parameters of flows as Prefect's page shows them: described, with choices, internal ones hidden.

A type here is what a flow's signature says; `form` makes of a flow's parameters what a deployment
shows in the form that starts a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

__all__ = [
    "DataVersion",
    "Families",
    "Files",
    "Home",
    "Maze",
    "NewestRows",
    "Since",
    "Tables",
    "ToolTypeName",
    "ToolTypeNames",
    "Trials",
    "Trigger",
    "TuningSeconds",
    "VersionNumber",
    "described",
    "form",
]

#: Marks in a schema: what nobody sets by hand, and what the choices of a parameter are.
_INTERNAL, _CHOICES = "internal", "choices"


def described(description: str, **marks: Any) -> Any:
    """A parameter's description. Prefect overwrites that of pydantic's own, with nothing."""
    return Field(json_schema_extra={"description": description, **marks})


Home = Annotated[str | None, described("The home directory.", internal=True)]
Trigger = Annotated[str, described("What started the run, for its tags.", internal=True)]
ToolTypeName = Annotated[str, described("A declared tool type.", choices="tool types")]
ToolTypeNames = Annotated[
    Sequence[str], described("Tool types; all without any.", choices="tool types")
]
Families = Annotated[
    Sequence[str] | None,
    described(
        "Model families to try; without any, those that the declaration names.", choices="families"
    ),
]
Files = Annotated[
    Sequence[str],
    described(
        "Run logs (task_exec_result.jsonl, plain or gzipped), as paths on the worker's machine; "
        "without any, what is new in Redis and in the watched Maze stores is read."
    ),
]
Tables = Annotated[
    Mapping[str, str] | None,
    described("The original's CSV datasets: the path of each, with its tool type."),
]
Maze = Annotated[Sequence[str], described("Run stores of Maze, as paths on the worker's machine.")]
DataVersion = Annotated[
    int | None,
    described("Train on this version of the dataset, not the newest. Never passes the gate."),
]
NewestRows = Annotated[
    int | None, described("Train on the newest so many rows alone. Never passes the gate.")
]
Since = Annotated[
    str | float | None,
    described(
        "Train on tasks that started since then alone, such as 2026-03-01, in UTC. Never passes "
        "the gate."
    ),
]
Trials = Annotated[
    int,
    described(
        "Search for better hyper-parameters first, with so many trials for each family; 0: no "
        "search."
    ),
]
TuningSeconds = Annotated[float | None, described("Search for at most so many seconds.")]
VersionNumber = Annotated[int, described("The number of a registered version in MLflow.")]


def form(schema: Mapping[str, Any], choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The parameters of `schema`, as JSON Schema, without the internal ones.

    `choices` are the values of each kind of choice. What may be left out has one type, where
    a person would have to choose between that and nothing.
    """
    shown: dict[str, Any] = {}
    for name, found in schema.items():
        one = dict(found)
        kind = one.pop(_CHOICES, None)
        if one.pop(_INTERNAL, False):
            continue
        # pydantic writes `X | None` as anyOf [X, null]; a person fills in an X.
        one |= next(iter(one.pop("anyOf", [])), {})
        if kind is not None and one["type"] == "array":
            one["items"] = {"type": "string", "enum": list(choices[kind])}
        elif kind is not None:
            one["enum"] = list(choices[kind])
        shown[name] = one
    return shown
