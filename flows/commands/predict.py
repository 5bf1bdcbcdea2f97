"""`malearn predict`: one prediction, as a scheduler would get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from malearn.flows.commands import output, servers
from malearn.flows.commands.options import HomeOption, JsonOption
from malearn.kernel.home import Home

if TYPE_CHECKING:
    from malearn.kernel.tool_types import ToolType

__all__ = ["predict"]


def predict(
    function: Annotated[
        str,
        typer.Argument(metavar="FUNCTION", help="The task's function, such as task1_llm_process."),
    ],
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            "-f",
            metavar="NAME=VALUE",
            help="A feature or context value of the task; repeat the option for several.",
        ),
    ] = None,
    predecessor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK_ID",
            help="A finished predecessor, whose features for this task are read from Redis; "
            "repeat the option for several.",
        ),
    ] = None,
    resource: Annotated[
        str, typer.Option(metavar="RESOURCE", help="What the task runs on: gpu, cpu or io.")
    ] = "gpu",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict how long a task will take, as a scheduler would."""
    from msgspec.structs import asdict

    from malearn import DAGTaskPredictor
    from malearn.kernel import tool_types

    place, features = (
        Home.find(home),
        _features(feature or [], tool_types.declared().for_function(function)),
    )
    with (
        servers.running(place, redis=True, prefect=False) as platform,
        DAGTaskPredictor(
            redis_url=platform.redis_url, tracking_uri=platform.tracking_uri, cache_dir=place.cache
        ) as predictor,
    ):
        predictor.wait_until_ready(30.0)
        answer = predictor.estimate(function, resource, predecessor or [], features=features)
    version = f", version {answer.model_version}" if answer.model_version else ""
    output.result(
        asdict(answer),
        as_json,
        lambda: typer.echo(
            f"{answer.seconds:.3g} s ({answer.low:.3g} to {answer.high:.3g} s), "
            f"from {answer.source}{version}"
        ),
    )


def _features(pairs: list[str], tool_type: ToolType | None) -> dict[str, float | str]:
    """Numbers by name, and the words of a context."""
    features: dict[str, float | str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            features[name] = float(value)
        except ValueError:
            if tool_type is None or name not in tool_type.context or not value:
                raise typer.BadParameter(f"'{pair}' is not NAME=NUMBER") from None
            features[name] = value
    return features
