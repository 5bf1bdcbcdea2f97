"""`malearn predict`: one prediction, as a scheduler would get it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from malearn.flows.commands import nearest, output, servers
from malearn.flows.commands.options import HomeOption, JsonOption
from malearn.kernel.home import Home
from malearn.kernel.tool_types import DEFAULT_SECONDS, resource_name

if TYPE_CHECKING:
    from malearn import DAGTaskPredictor
    from malearn.kernel.tool_types import ToolType, ToolTypes
    from malearn.platform import Platform

__all__ = [
    "FeatureOption",
    "PredecessorOption",
    "ResourceOption",
    "Task",
    "predict",
    "ready",
]


FeatureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        "-f",
        metavar="NAME=VALUE",
        help="A feature or context value of the task; repeat the option for several.",
    ),
]
PredecessorOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK_ID",
        help="A finished predecessor, whose features for this task are read from Redis; "
        "repeat the option for several.",
    ),
]
ResourceOption = Annotated[
    str, typer.Option(metavar="RESOURCE", help="What the task runs on: gpu, cpu or io.")
]


@dataclass(frozen=True, slots=True)
class Task:
    """A task to be predicted, as it was given on the command line; `tool_type` claims it, if any.

    Where no tool type claims it, a note on stderr says so.
    """

    function: str
    features: Mapping[str, float | str]
    predecessors: Sequence[str]
    resource: str
    tool_type: ToolType | None

    @classmethod
    def parse(
        cls, home: Home, function: str, features: list[str], predecessors: list[str], resource: str
    ) -> Task:
        """Raises `typer.BadParameter` for what cannot be meant."""
        from malearn.kernel import generic

        types, resource = generic.declared(home), _resource(resource)
        given = {name: value for name, _, value in (pair.partition("=") for pair in features)}
        tool_type = types.for_task(function, resource, given.get("model"), given.get("backend"))
        values = _features(features, tool_type)
        if tool_type is None:
            near = nearest.tool_type_of(function, types)
            meant = f" (the pattern '{near[1]}' of {near[0].name} is near)" if near else ""
            output.note(
                f"no tool type claims the function '{function}'{meant}: the answer uses neither a "
                "model nor features. Tool types are declared in malearn.toml."
            )
        return cls(function, values, predecessors, resource, tool_type)


@contextmanager
def ready(
    platform: Platform, home: Home, tool_types: ToolTypes | None = None
) -> Iterator[DAGTaskPredictor]:
    """A scheduler's predictor on the servers of `platform`, with its models loaded.

    It writes nothing there. `tool_types` are those declared in `home` unless given.
    """
    from malearn import DAGTaskPredictor
    from malearn.kernel import generic

    with DAGTaskPredictor(
        redis_url=platform.redis_url,
        tracking_uri=platform.tracking_uri,
        cache_dir=home.cache,
        tool_types=tool_types or generic.declared(home),
        shares=False,
    ) as predictor:
        # A scheduler would answer at once, from history; a person wants the model's answer.
        predictor.wait_until_ready(30.0)
        yield predictor


def remember(predictor: DAGTaskPredictor, home: Home, task: Task) -> None:
    """Let `predictor` know what the datasets hold of the task's tool type, where Redis holds
    nothing of its function: it was not up, or was emptied, since that was ingested."""
    from malearn.data import execution_window
    from malearn.data.dataset import Dataset
    from malearn.learning import matrix

    if task.tool_type is not None and not predictor.observed(task.function):
        newest = execution_window.of_functions(Dataset.open(home, task.tool_type))
        predictor.remember(map(matrix.observation, newest))


def note_missing(redis_url: str, task: Task) -> None:
    """Say which predecessors' records are not in Redis, so that nothing is known of them."""
    from malearn.data import redis_client

    if not task.predecessors:
        return
    keys = [f"result:{task_id}".encode() for task_id in task.predecessors]
    with redis_client.connected(redis_url) as client:
        found = redis_client.get_many(client, keys)
    missing = [one for one, record in zip(task.predecessors, found, strict=True) if record is None]
    if missing:
        output.note(
            f"Redis holds no record of {', '.join(missing)}: the answer is one without what "
            "these tasks would have reported. Records are kept under result:TASK_ID."
        )


def predict(
    function: Annotated[
        str,
        typer.Argument(metavar="FUNCTION", help="The task's function, such as task1_llm_process."),
    ],
    feature: FeatureOption = None,
    predecessor: PredecessorOption = None,
    resource: ResourceOption = "gpu",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict how long a task will take, as a scheduler would."""
    from msgspec.structs import asdict

    place = Home.find(home)
    task = Task.parse(place, function, feature or [], predecessor or [], resource)
    with (
        servers.running(place, redis=True, prefect=False) as platform,
        ready(platform, place) as predictor,
    ):
        remember(predictor, place, task)
        note_missing(platform.redis_url, task)
        answer = predictor.estimate(
            task.function, task.resource, task.predecessors, features=task.features
        )
    version = f", version {answer.model_version}" if answer.model_version else ""
    output.result(
        asdict(answer),
        as_json,
        lambda: typer.echo(
            f"{answer.seconds:.3g} s ({answer.low:.3g} to {answer.high:.3g} s), "
            f"from {answer.source}{version}"
        ),
    )


def _resource(name: str) -> str:
    resource = resource_name(name)
    if resource not in DEFAULT_SECONDS:
        known = ", ".join(DEFAULT_SECONDS)
        meant = nearest.hint(name, DEFAULT_SECONDS)
        raise typer.BadParameter(f"'{name}' is not a resource ({known}){meant}")
    return resource


def _features(pairs: list[str], tool_type: ToolType | None) -> dict[str, float | str]:
    """The values of `NAME=VALUE` pairs: numbers, and texts for what is declared as context.

    A scheduler's call would ignore what it cannot use; a person gets an error instead.
    """
    features: dict[str, float | str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise typer.BadParameter(f"'{pair}' is not NAME=VALUE")
        if name in features:
            raise typer.BadParameter(f"'{name}' is given twice")
        # Context values are words, such as a model's name, even where they look like numbers.
        if tool_type is not None and name in tool_type.context:
            features[name] = value
        else:
            features[name] = _number(name, value, tool_type)
    return features


def _number(name: str, text: str, tool_type: ToolType | None) -> float:
    """A feature's value, within the bounds that its declaration sets."""
    if tool_type is not None and name not in tool_type.feature_names:
        known = (*tool_type.feature_names, *tool_type.context)
        meant = nearest.hint(name, known) or f"; it has {', '.join(known)}"
        raise typer.BadParameter(f"{tool_type.name} has no feature '{name}'{meant}")
    try:
        value = float(text)
    except ValueError:
        # Refused below with the same sentence as an infinite one.
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{name} must be a finite number, not '{text}'")
    if tool_type is not None:
        declared = tool_type.features[tool_type.feature_names.index(name)]
        if not declared.minimum <= value <= declared.maximum:
            raise typer.BadParameter(f"{name} must be {declared.bounds}, not {text}")
    return value
