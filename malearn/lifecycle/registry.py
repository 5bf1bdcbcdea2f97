"""Versions and aliases in MLflow's registry. The alias is the only truth about what serves.

`Production` serves, `Previous` served before it, `Candidate` is the newest that
was not promoted. A tag on the registered model holds the version that was promoted
last, so that a move of the alias by a person in MLflow is noticed, and can be undone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from malearn.kernel.errors import RegistryError
from malearn.kernel.onnx import onnx_model
from malearn.kernel.tool_types import ToolType
from malearn.learning.gate import Decision
from malearn.lifecycle import logged_models

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "ALIASES",
    "CANDIDATE",
    "MONITOR_STATE",
    "PREVIOUS",
    "PRODUCTION",
    "Version",
    "by_alias",
    "dataset_versions",
    "decide",
    "last_promoted",
    "model_file",
    "monitor_state",
    "move",
    "numbered",
    "register",
    "restore",
    "rollback",
    "tag",
    "unpublish",
    "version",
    "versions",
]

ALIASES = PRODUCTION, PREVIOUS, CANDIDATE = "Production", "Previous", "Candidate"

#: The registered model's tag that names the version which was verified and promoted last, and
#: the name it had in registries made by 0.1.0.
_LAST_PROMOTED, _LAST_PROMOTED_0_1 = "malearn.last_promoted", "malearn.let_serve"
#: A version's tag: what the monitor found while it served; cleared when it is promoted again.
#: And the name it had in 0.1.0.
MONITOR_STATE, _MONITOR_STATE_0_1 = "malearn.monitor_state", "malearn.monitor"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version; `created` in seconds since the epoch."""

    tool_type: str
    number: int
    family: str
    run_id: str
    created: float
    aliases: tuple[str, ...]
    decision: Decision | None
    tags: Mapping[str, str]


def register(tool_type: ToolType, model_uri: str, run_id: str, tags: Mapping[str, str]) -> int:
    """Register a logged model as the next version; returns its number."""
    import mlflow

    client = mlflow.MlflowClient()
    name = tool_type.registered_model
    if not client.search_registered_models(filter_string=f"name='{name}'"):
        _create(client, tool_type)
    source = logged_models.model_info(model_uri)
    created = client.create_model_version(
        name, source.model_uri, run_id=run_id, tags=dict(tags), model_id=source.model_id
    )
    return int(created.version)


def decide(tool_type: ToolType, number: int, decision: Decision, summary: str = "") -> None:
    """Keep `decision`, with each of its reasons, on the version.

    Its description becomes `summary`, or what it was, and the reasons as they stand now.
    """
    client = _client()
    name, text = tool_type.registered_model, str(number)
    # Beside the JSON below, as MLflow can search by the value of a tag, not by what is in JSON.
    client.set_model_version_tag(name, text, "malearn.promote", str(decision.promote).lower())
    client.set_model_version_tag(name, text, "malearn.decision", decision.to_json())
    summary = summary or (client.get_model_version(name, text).description or "").split("\n\n")[0]
    marks = [f"- {'✓' if r.passed else '✗'} {r.detail}" for r in decision.reasons]
    verdict = "**It may serve:**" if decision.promote else "**It may not serve:**"
    client.update_model_version(name, text, "\n\n".join([summary, verdict, "\n".join(marks)]))


def move(tool_type: ToolType, alias: str, number: int) -> None:
    """Let `alias` name version `number`. Moving `Production` keeps the last one as `Previous`."""
    client, name = _client(), tool_type.registered_model
    # Raises where there is none, before any alias has moved.
    version(tool_type, number)
    if alias == PRODUCTION:
        last = last_promoted(tool_type)
        if last is not None and last.number != number:
            # First, so that a crash in between leaves something to go back to.
            client.set_registered_model_alias(name, PREVIOUS, str(last.number))
        candidate = by_alias(tool_type, CANDIDATE)
        if candidate is not None and candidate.number == number:
            client.delete_registered_model_alias(name, CANDIDATE)
        restore(tool_type, number)
    else:
        client.set_registered_model_alias(name, alias, str(number))


def rollback(tool_type: ToolType) -> tuple[int, int]:
    """Go back to what served before `Production`; returns what served and what serves now.

    A second time swaps them back. Raises `RegistryError` when there is nothing to go back to.
    """
    current, before = by_alias(tool_type, PRODUCTION), last_promoted(tool_type)
    # After a person moved the alias, what malearn promoted last is restored, else `Previous`.
    if current is not None and (before is None or before.number == current.number):
        before = by_alias(tool_type, PREVIOUS)
    if current is None or before is None or current.number == before.number:
        raise RegistryError(
            tool_type.registered_model, "there is no previous version to roll back to"
        )
    client, name = _client(), tool_type.registered_model
    client.set_registered_model_alias(name, PREVIOUS, str(current.number))
    restore(tool_type, before.number)
    return current.number, before.number


def last_promoted(tool_type: ToolType) -> Version | None:
    """The version that malearn promoted last, whatever the alias names now.

    Where that was never noted, or is deleted, the one that `Production` names.
    """
    client, name = _client(), tool_type.registered_model
    model = _or_none(lambda: client.get_registered_model(name))
    tags = {} if model is None else model.tags
    noted = tags.get(_LAST_PROMOTED) or tags.get(_LAST_PROMOTED_0_1)
    found = None if noted is None else _or_none(lambda: client.get_model_version(name, noted))
    return by_alias(tool_type, PRODUCTION) if found is None else _version(tool_type, found)


def restore(tool_type: ToolType, number: int) -> None:
    """Point `Production` at version `number`, which is verified; the other aliases stay."""
    client, name = _client(), tool_type.registered_model
    if (last := last_promoted(tool_type)) is None or last.number != number:
        # What the monitor found when it served before does not count towards a second finding.
        client.set_model_version_tag(name, str(number), MONITOR_STATE, "")
    # The alias first: after a crash in between it looks moved by hand, and is verified again.
    client.set_registered_model_alias(name, PRODUCTION, str(number))
    client.set_registered_model_tag(name, _LAST_PROMOTED, str(number))


def unpublish(tool_type: ToolType) -> None:
    """Take the alias `Production` away: schedulers fall back to recent durations."""
    client, name = _client(), tool_type.registered_model
    client.delete_registered_model_alias(name, PRODUCTION)
    # The note too: what is taken out of service must not become `Previous` at the next promotion.
    for tag_name in (_LAST_PROMOTED, _LAST_PROMOTED_0_1):
        client.delete_registered_model_tag(name, tag_name)


def tag(tool_type: ToolType, number: int, key: str, value: str) -> None:
    """Note something on version `number`."""
    _client().set_model_version_tag(tool_type.registered_model, str(number), key, value)


def monitor_state(version: Version) -> str | None:
    """What the monitor noted on `version`, as JSON; None or empty where it noted nothing."""
    return version.tags.get(MONITOR_STATE, version.tags.get(_MONITOR_STATE_0_1))


def by_alias(tool_type: ToolType, alias: str) -> Version | None:
    """The version that `alias` names, or None."""
    found = _or_none(
        lambda: _client().get_model_version_by_alias(tool_type.registered_model, alias)
    )
    return None if found is None else _version(tool_type, found)


def numbered(tool_type: ToolType, given: str) -> int:
    """The number of the version that is `given` by its number or by an alias.

    Raises `RegistryError` where no version has that alias.
    """
    if given.isdecimal():
        return int(given)
    found = by_alias(tool_type, given)
    if found is None:
        raise RegistryError(tool_type.registered_model, f"no version has the alias {given}")
    return found.number


def with_aliases(tool_types: Iterable[ToolType]) -> dict[str, dict[str, Version]]:
    """By tool type, the versions that have an alias, by alias. Costs a page a thousand models,
    and a question for each version that has one.
    """
    by_model = {t.registered_model: t for t in tool_types}
    client, token = _client(), None
    found: dict[str, dict[str, Version]] = {t.name: {} for t in by_model.values()}
    while True:
        # 1,000 is the most registered models that MLflow gives at once.
        page = client.search_registered_models(max_results=1_000, page_token=token)
        for model in page:
            if (tool_type := by_model.get(model.name)) is None:
                continue
            numbers = {int(number) for number in model.aliases.values()}
            known = {number: version(tool_type, number) for number in numbers}
            for alias, number in model.aliases.items():
                found[tool_type.name][alias] = known[int(number)]
        if not (token := page.token):
            return found


def version(tool_type: ToolType, number: int) -> Version:
    """Version `number`. Raises `RegistryError` when it is not there."""
    found = _or_none(lambda: _client().get_model_version(tool_type.registered_model, str(number)))
    if found is None:
        raise RegistryError(tool_type.registered_model, f"there is no version {number}")
    return _version(tool_type, found)


def versions(tool_type: ToolType) -> list[Version]:
    """All versions, newest first."""
    found = _client().search_model_versions(f"name='{tool_type.registered_model}'")
    return sorted((_version(tool_type, v) for v in found), key=lambda v: -v.number)


def dataset_versions(tool_type: ToolType) -> set[int]:
    """The versions of its dataset that any registered model, of whatever age, was trained on."""
    client, token = _client(), None
    found: set[int] = set()
    while True:
        page = client.search_model_versions(
            f"name='{tool_type.registered_model}'", max_results=1_000, page_token=token
        )
        texts = (version.tags.get("malearn.dataset_version", "") for version in page)
        found.update(int(text) for text in texts if text.isdigit())
        if not (token := page.token):
            return found


def model_file(tool_type: ToolType, number: int) -> bytes:
    """The ONNX file of version `number`.

    Raises `RegistryError` when it has none, or other bytes than were registered.
    """
    import mlflow

    registered = version(tool_type, number).tags.get(onnx_model.DIGEST_TAG)
    uri = f"models:/{tool_type.registered_model}/{number}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
            file = (Path(path) / "model.onnx").read_bytes()
        except (mlflow.exceptions.MlflowException, OSError) as error:
            raise RegistryError(
                tool_type.registered_model, f"version {number} holds no model.onnx ({error})"
            ) from error
    # Whoever can write artifacts, but not tags, cannot exchange what schedulers run.
    if registered is not None and onnx_model.digest(file) != registered:
        raise RegistryError(
            tool_type.registered_model,
            f"the model.onnx of version {number} was changed since it was registered",
        )
    return file


def _client() -> MlflowClient:
    import mlflow

    return mlflow.MlflowClient()


def _create(client: MlflowClient, tool_type: ToolType) -> None:
    import mlflow

    features = ", ".join(tool_type.feature_names)
    try:
        client.create_registered_model(
            tool_type.registered_model,
            tags={"malearn.tool_type": tool_type.name},
            description=f"How many seconds a {tool_type.name} task will take, from {features} and "
            "what its function took lately. `Production` is what schedulers use.",
        )
    except mlflow.exceptions.MlflowException as error:
        # Another training of the same tool type was faster.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(tool_type: ToolType, found: ModelVersion) -> Version:
    tags = dict(found.tags)
    decision = tags.get("malearn.decision")
    return Version(
        tool_type.name,
        int(found.version),
        tags.get("malearn.family", "?"),
        found.run_id or "",
        found.creation_timestamp / 1000.0,
        tuple(found.aliases),
        Decision.from_json(decision) if decision else None,
        tags,
    )


def _or_none(ask: Callable[[], _T]) -> _T | None:
    """What `ask` finds, None for what is not there; other errors are raised."""
    import mlflow

    try:
        return ask()
    except mlflow.exceptions.MlflowException as error:
        # A missing alias is an invalid parameter to MLflow, with status 400.
        missing = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
        if error.error_code in missing:
            return None
        raise
