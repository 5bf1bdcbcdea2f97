"""The subcommands of `malearn`. Each is a few lines over the library and the flows.

Results go to stdout, as JSON alone under `--json`; progress and errors to stderr. Exit
status 0: done; 1: refused or failed, with the reason in one sentence; 2: wrong usage.
"""

from __future__ import annotations

import enum
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from malearn.kernel.errors import InputError, MalearnError
from malearn.kernel.home import Home

if TYPE_CHECKING:
    from malearn.data.ingest import IngestReport
    from malearn.kernel.records import Reason
    from malearn.kernel.tool_types import ToolType
    from malearn.platform import Platform

__all__ = ["app"]


class _Command(TyperGroup):
    """The group of all commands: every refusal is one sentence on stderr, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MalearnError as error:
            _refuse(error)
        except KeyboardInterrupt:
            _say("stopped")
            raise SystemExit(130) from None
        except BrokenPipeError:  # whoever read our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except OSError as error:
            _refuse(InputError(error.filename or "The system", error.strerror or str(error)))


app = typer.Typer(
    cls=_Command,
    help="Learns, from a scheduler's own logs, how many seconds a task will take.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(
    help="The datasets: bring in, take out, look back, maintain.", no_args_is_help=True
)
app.add_typer(data, name="data")


class Format(enum.StrEnum):
    """What a dataset can be written as."""

    CSV = "csv"
    PARQUET = "parquet"


HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Directory of data, models and servers.",
        show_default="$MALEARN_HOME, else here",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]
PortOption = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Listen on this port.", show_default="a free one"),
]
ToolArgument = Annotated[str, typer.Argument(metavar="TOOL", help="A tool type.")]
ToolsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[TOOL…]", help="Tool types; without any, all.")
]


def _refuse(error: Exception) -> NoReturn:
    """Say why in one sentence on stderr, whatever lines it had, and exit with 1."""
    _say(" ".join(str(error).split()))
    raise SystemExit(1) from error


def _say(sentence: str) -> None:
    typer.echo(f"malearn: {sentence}", err=True)


@app.command()
def run(
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE…", help="Run logs (task_exec_result.jsonl)."),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The main job, end to end: logs, lifecycle, predictor, report.

    Without --from it first executes a small real workload on this machine.
    """
    if more and not source:
        raise typer.BadParameter("name run logs with --from FILE…")
    from malearn.flows import console, report
    from malearn.flows.run import run as main_job
    from malearn.kernel import tool_types

    tool_types.declared()
    files = _run_logs([*(source or []), *(more or [])])
    with console.progress() as shown:
        done = main_job(Home.find(home), files, shown)
    _answer(done.as_json(), as_json, lambda: report.show_run(done))


@app.command()
def ingest(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE…]", help="Run logs; without any, Redis.")
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Stay, and catch results in Redis as they are set."),
    ] = False,
    set_notifications: Annotated[
        bool,
        typer.Option("--set-notifications", help="Let a Redis that is not ours tell what is set."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring execution logs into the datasets, every record accounted for."""
    from malearn.flows import report
    from malearn.kernel import tool_types

    tool_types.declared()
    if watch:
        if files:
            raise typer.BadParameter("--watch reads Redis, not files")
        _watch(Home.find(home), set_notifications, as_json)
        return
    place, chosen = Home.find(home), _run_logs(files or [])
    with _platform(place, redis=not chosen, mlflow=False):
        from malearn.flows.ingest import ingest as flow

        done = flow([str(file) for file in chosen], str(place.root))
    _answer(report.ingested(done), as_json, lambda: report.show_ingested(done))
    _told(done)


@app.command()
def train(
    tools: ToolsArgument = None,
    family: Annotated[
        list[str] | None, typer.Option(help="xgboost, mlp or linear; repeat for several.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train candidates and register the best, with the gate's decision. Promotes nothing."""
    from malearn.flows import report
    from malearn.kernel import tool_types
    from malearn.learning import families

    place, types = Home.find(home), tool_types.declared()
    names = [types[name].name for name in tools or types]
    chosen = family or list(families.FAMILIES)
    if unknown := set(chosen) - set(families.FAMILIES):
        raise InputError(
            ", ".join(sorted(unknown)), f"is no family; there are {', '.join(families.FAMILIES)}"
        )
    with _platform(place):
        from malearn.flows.train import train as flow

        done = [flow(name, str(place.root), chosen) for name in names]
    _answer(report.trained(done), as_json, lambda: report.show_trained(done))


@app.command()
def promote(
    tool: ToolArgument,
    version: Annotated[int, typer.Argument(help="A registered version.", min=1)],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a version serve: its ONNX file is made if need be, and proven; the gate is overruled."""
    from malearn.flows import report

    place, name = Home.find(home), _tool_type(tool).name
    with _platform(place):
        from malearn.flows.promote import promote as flow

        done = flow(name, version, str(place.root), by_hand=True)
    _answer(report.promoted(done), as_json, lambda: report.show_promoted(done))
    if not done.promoted:
        raise typer.Exit(1)


@app.command()
def rollback(tool: ToolArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Let the version serve again that served before."""
    from malearn.lifecycle import registry, tracking

    tool_type = _tool_type(tool)
    with (
        _platform(Home.find(home), prefect=False) as platform,
        tracking.connected(platform.tracking_uri),
    ):
        before, now = registry.rollback(tool_type)
    result = {"tool_type": tool_type.name, "before": before, "production": now}
    _answer(result, as_json, lambda: typer.echo(f"{tool_type.name}: version {now} serves again."))


@app.command()
def monitor(
    tools: ToolsArgument = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare predictions with outcomes; retrain or roll back where they call for it."""
    from malearn.flows import report
    from malearn.kernel import tool_types

    place, types = Home.find(home), tool_types.declared()
    names = [types[name].name for name in tools or types]
    with _platform(place):
        from malearn.flows.monitor import monitor as flow

        done = flow(names, str(place.root))
    _answer(report.monitored(done), as_json, lambda: report.show_monitored(done))


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Per tool type: what serves, how old it is, how it does, and what has come in since."""
    from malearn.flows import report
    from malearn.kernel import tool_types
    from malearn.lifecycle import tracking

    place = Home.find(home)
    tool_types.declared()
    with (
        _platform(place, prefect=False) as platform,
        tracking.connected(platform.tracking_uri),
    ):
        rows = report.status(place)
    _answer(rows, as_json, lambda: report.show_status(rows))


@app.command()
def predict(
    function: Annotated[str, typer.Argument(help="The task's function, e.g. task1_llm_process.")],
    feature: Annotated[
        list[str] | None,
        typer.Option("--feature", "-f", metavar="NAME=VALUE", help="What is known of it."),
    ] = None,
    predecessor: Annotated[
        list[str] | None, typer.Option(metavar="TASK_ID", help="Tasks before it, read from Redis.")
    ] = None,
    resource: Annotated[str, typer.Option(help="gpu, cpu or io.")] = "gpu",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How long a task will take, as a scheduler would be told."""
    from msgspec.structs import asdict

    from malearn import DAGTaskPredictor
    from malearn.kernel import tool_types

    place, features = Home.find(home), _features(feature or [], tool_types.declared().of(function))
    with (
        _platform(place, redis=True, prefect=False) as platform,
        DAGTaskPredictor(
            redis_url=platform.redis_url, tracking_uri=platform.tracking_uri, cache_dir=place.cache
        ) as predictor,
    ):
        predictor.wait_until_ready(30.0)
        answer = predictor.estimate(function, resource, predecessor or [], features=features)
    version = f", version {answer.model_version}" if answer.model_version else ""
    _answer(
        asdict(answer),
        as_json,
        lambda: typer.echo(
            f"{answer.seconds:.3g} s ({answer.low:.3g} to {answer.high:.3g} s), "
            f"from {answer.source}{version}"
        ),
    )


@app.command()
def evaluate(
    source: Annotated[
        list[Path], typer.Option("--from", metavar="FILE…", help="Run logs, one file a run.")
    ],
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    score_from: Annotated[
        int,
        typer.Option(help="Leave out the first so many tasks, in order of their start.", min=0),
    ] = 0,
    cadence: Annotated[
        int | None, typer.Option(help="Retrain after so many finished tasks.", min=1)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay logs in time and see how well everyone would have predicted them.

    Each task is predicted from what had finished before it started. Pairs are put
    in order within a file. Tables here; the plots are a run in MLflow.
    """
    from datetime import UTC, datetime

    from malearn.flows import console, report
    from malearn.flows.evaluate import evaluate as replay
    from malearn.learning import evaluation
    from malearn.lifecycle import tracking

    files = _run_logs([*source, *(more or [])])
    with console.progress() as shown:
        done = replay(
            files,
            score_from=score_from,
            cadence=cadence or evaluation.CADENCE,
            progress=lambda at, total: shown.step(f"Replaying: {at // 200 * 200} of {total} tasks"),
        )
        shown.done(f"Replayed {len(done.executions)} tasks")
    with (
        _platform(Home.find(home), prefect=False) as platform,
        tracking.connected(platform.tracking_uri),
    ):
        tracking.log_evaluation(done, f"replay {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    _answer(done.as_json(), as_json, lambda: report.show_evaluation(done))


@data.command("export")
def export_dataset(
    tool: ToolArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to.")] = None,
    form: Annotated[Format, typer.Option("--format", help="csv or parquet.")] = Format.CSV,
    version: Annotated[
        int | None, typer.Option(help="A version of the dataset, else the newest.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset, in the original's CSV form or as Parquet."""
    from malearn.data.dataset import Dataset

    tool_type = _tool_type(tool)
    file = output or Path(f"{tool_type.name}.{form}")
    dataset = Dataset.of(Home.find(home), tool_type)
    write = dataset.export_csv if form is Format.CSV else dataset.export_parquet
    rows = write(file, version)
    result = {"tool_type": tool_type.name, "rows": rows, "file": str(file)}
    _answer(result, as_json, lambda: typer.echo(f"{rows} rows of {tool_type.name} in {file}"))


@data.command("import")
def import_dataset(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Run logs, or CSV files.")],
    tool: Annotated[
        str | None, typer.Option("--tool", help="Whose CSV it is, unless the file's name says so.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in run logs, or the original's per-tool CSV files."""
    from malearn.flows import report

    place = Home.find(home)
    tables = {file: _tool_type(tool or file.stem) for file in files if file.suffix == ".csv"}
    logs = _run_logs([file for file in files if file not in tables])
    for file, tool_type in tables.items():
        _look(file, tool_type)
    with _platform(place, mlflow=False):
        from malearn.flows.ingest import ingest as flow

        named = {str(file): tool_type.name for file, tool_type in tables.items()}
        done = flow([str(file) for file in logs], str(place.root), named)
    _answer(report.ingested(done), as_json, lambda: report.show_ingested(done))
    _told(done)


@data.command("history")
def dataset_history(
    tool: ToolArgument, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """The versions of a dataset: when, what, how many rows."""
    from dataclasses import asdict

    from malearn.data.dataset import Dataset
    from malearn.flows import report

    commits = Dataset.of(Home.find(home), _tool_type(tool)).history()
    _answer([asdict(c) for c in commits], as_json, lambda: report.show_history(commits))


@data.command("quarantine")
def quarantine_of(
    tool: Annotated[
        str | None, typer.Argument(metavar="[TOOL]", help="A tool type; without one, all.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Only what was kept out for this: outlier, …")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many of the newest to show.", min=0)] = 5,
    readmit: Annotated[
        bool, typer.Option("--readmit", help="Judge it anew; what is accepted joins its dataset.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was kept out of the datasets, and why; after a fix, let it in."""
    from dataclasses import asdict

    from malearn.data import quarantine
    from malearn.data.dataset import Rejections
    from malearn.flows import console, report
    from malearn.kernel import tool_types

    name = _tool_type(tool).name if tool else None
    which = quarantine.Which(tool_types.declared(), name, _reason(reason) if reason else None)
    place = Home.find(home)
    if not readmit:
        found = quarantine.overview(Rejections.of(place), which, limit)
        _answer(report.quarantined(found), as_json, lambda: report.show_quarantined(found))
        return
    with console.progress() as shown:
        from malearn.flows.quarantine import readmit as judge_anew

        done = judge_anew(place, which, shown.step)
    _answer(asdict(done), as_json, lambda: report.show_readmitted(done))


@data.command("maintain")
def maintain_data(
    keep_days: Annotated[
        str | None,
        typer.Option(
            metavar="DAYS",
            help="Let go of what is older: '365', or '365 llm_process=90 _reports=30'.",
            show_default="$MALEARN_KEEP_DAYS, else all is kept",
        ),
    ] = None,
    keep_rows: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS",
            help="Keep the newest so many of each, in the same form.",
            show_default="$MALEARN_KEEP_ROWS, else all are kept",
        ),
    ] = None,
    unused_hours: Annotated[
        float,
        typer.Option(help="Remove files once only old versions needed them for so long.", min=0.0),
    ] = 168.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge small files, let go of old rows, remove unused files. No model loses its data."""
    from dataclasses import asdict

    from malearn.data import maintenance
    from malearn.flows import report
    from malearn.kernel import tool_types

    place, names = Home.find(home), maintenance.places(tool_types.declared())
    for text, option in ((keep_days, "--keep-days"), (keep_rows, "--keep-rows")):
        maintenance.Limits.parse(text or "", option, names)
    with _platform(place):
        from malearn.flows.maintain import maintain as flow

        done = flow(str(place.root), keep_days, keep_rows, unused_hours)
    _answer([asdict(m) for m in done], as_json, lambda: report.show_maintained(done))


@app.command()
def up(
    home: HomeOption = None,
    host: Annotated[
        str,
        typer.Option(help="Listen there; 0.0.0.0 lets other machines in, without a password."),
    ] = "127.0.0.1",
    redis_port: PortOption = None,
    mlflow_port: PortOption = None,
    prefect_port: PortOption = None,
) -> None:
    """Redis, MLflow, Prefect and a worker for the scheduled flows, kept up until Ctrl-C."""
    from malearn.flows.up import up as stay
    from malearn.kernel import tool_types

    try:
        IPv4Address(host)
    except ValueError:
        raise typer.BadParameter(f"'{host}' is no IPv4 address") from None
    tool_types.declared()
    ports = {"Redis": redis_port, "MLflow": mlflow_port, "Prefect": prefect_port}
    chosen = {name: port for name, port in ports.items() if port is not None}
    stay(Home.find(home), host=host, ports=chosen)


def _watch(home: Home, set_notifications: bool, as_json: bool) -> None:
    from malearn.data import sources
    from malearn.flows import console, report
    from malearn.platform import Platform

    ours = sources.REDIS_SETTING not in os.environ
    with (
        console.progress() as shown,
        Platform(home, redis=True, on_event=shown.server) as platform,
    ):
        from malearn.flows.watch import watch

        done = watch(home, platform.redis_url, shown, enable=ours or set_notifications)
    _answer(report.ingested(done), as_json, lambda: report.show_ingested(done))
    _told(done)


@contextmanager
def _platform(
    home: Home, *, redis: bool = False, mlflow: bool = True, prefect: bool = True
) -> Iterator[Platform]:
    """The servers a command needs, attached to or started, with progress shown."""
    from malearn.flows import console
    from malearn.platform import Platform

    with (
        console.progress() as shown,
        Platform(
            home, redis=redis, mlflow=mlflow, prefect=prefect, on_event=shown.server
        ) as platform,
        console.following(shown) if prefect else nullcontext(),
    ):
        yield platform


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


def _answer(result: object, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        typer.echo(json.dumps(_finite(result), ensure_ascii=False, allow_nan=False))
    else:
        show()


def _finite(value: Any) -> Any:
    """`value` with null for numbers that JSON cannot hold: the R² of one row, say."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run_logs(files: list[Path]) -> list[Path]:
    """`files`, once each has shown that it can be one; before any server is started."""
    from malearn.data import sources

    sources.examine(files)
    return files


def _look(file: Path, tool_type: ToolType) -> None:
    """Refuse a table whose header is not that of `tool_type`."""
    from malearn.data import sources

    next(iter(sources.table(file, tool_type, size=1)), None)


def _told(report: IngestReport) -> None:
    """A batch that was refused whole is a failure, though everything else went in."""
    refused = [why for counts in report.tool_types.values() for why in counts.refused]
    if refused:
        _say(" ".join(refused))
        raise typer.Exit(1)


def _reason(name: str) -> Reason:
    from malearn.kernel.records import Reason

    try:
        return Reason(name)
    except ValueError:
        raise typer.BadParameter(f"'{name}' is none of {', '.join(Reason)}") from None


def _tool_type(name: str) -> ToolType:
    from malearn.kernel import tool_types

    return tool_types.declared()[name]
