"""Writes docs/reference.md from the code: `make docs`. A test fails where it is out of date."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from malearn.expectations.reasons import REASONS
from malearn.flows.commands import app
from malearn.kernel.tool_types import parse
from malearn.learning import gate
from malearn.learning.baselines import BASELINES
from malearn.learning.families import SHIPPED

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"

#: Every environment variable that is read, what it means, and what holds without it.
VARIABLES = {
    "MALEARN_HOME": (
        "directory of data, models and embedded servers; `--home` overrides it",
        "the working directory",
    ),
    "MALEARN_TOOL_TYPES": (
        "a file that declares tool types",
        "`malearn.toml` in the working directory, where there is one",
    ),
    "MALEARN_REDIS_URL": (
        "an external Redis: `redis://`, `rediss://` or `unix://`",
        "commands start one; a predictor takes `redis://127.0.0.1:6379/0`",
    ),
    "MALEARN_CACHE": (
        "where a predictor keeps the last good models",
        "`malearn` in `$XDG_CACHE_HOME`, else in `~/.cache`",
    ),
    "MALEARN_STREAM_LENGTH": (
        "how many entries a scheduler keeps in the stream until they are ingested",
        "100,000",
    ),
    "MALEARN_STREAMS": (
        "over how many Redis streams a scheduler spreads executions, at most 64; see [scale.md]"
        "(scale.md)",
        "1",
    ),
    "MALEARN_FUNCTIONS": ("how many functions a predictor remembers", "2,048"),
    "MALEARN_PREFIX": (
        "what all names on shared servers begin with: Redis keys, models, experiments, deployments",
        "`malearn`",
    ),
    "MALEARN_DATA": (
        "where datasets are: a directory, or object storage such as `s3://bucket/folder`",
        "`data` in the home",
    ),
    "MALEARN_TASK_RUNNER": (
        "how the lifecycle retrains several tool types at once: `thread`, `process` (or "
        "`process:4`), `ray`, `ray://host:port`, `dask` or `dask://host:port`; see [scale.md]"
        "(scale.md#many-tool-types-at-once)",
        "one after the other",
    ),
    "MALEARN_KEEP_DAYS": (
        "how long rows are kept, in days: a number, or `NAME=NUMBER` several times",
        "rows are kept for ever",
    ),
    "MALEARN_HTTP_TOKEN": (
        "what clients of `malearn serve` must send; at least 16 characters",
        "the file `.malearn/http/token` of the home, made when it is not there",
    ),
    "MALEARN_KEEP_ROWS": ("how many rows are kept, in the same form", "all of them"),
    "MALEARN_MAZE": (
        "run stores of Maze that scheduled ingestion reads, separated like those in `PATH`",
        "none",
    ),
    "MAZE_WORKSPACE_DIR": (
        "Maze's own; a head with malearn inside begins with the latest runs there",
        "it begins with what Redis has, or with nothing",
    ),
    "MLFLOW_TRACKING_URI": (
        "an external MLflow server",
        "commands start one; a predictor predicts without a model",
    ),
    "MLFLOW_TRACKING_USERNAME": ("a user of it", "none is sent"),
    "MLFLOW_TRACKING_PASSWORD": ("that user's password", "none is sent"),
    "MLFLOW_TRACKING_TOKEN": ("a bearer token, instead of both", "none is sent"),
    "MLFLOW_TRACKING_SERVER_CERT_PATH": (
        "the authority that signed its certificate",
        "the system's",
    ),
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": ("a certificate to show it", "none is shown"),
    "MLFLOW_TRACKING_INSECURE_TLS": ("`true`: its certificate is not checked", "it is checked"),
    "PREFECT_API_URL": ("an external Prefect server, with its path `/api`", "commands start one"),
    "MALEARN_NOTIFY": (
        "where notifications go: `https://…` (a webhook), or an address of Apprise, `mailtos://…`",
        "none are sent",
    ),
    "XDG_CACHE_HOME": ("where caches are kept", "`~/.cache`"),
}

FAMILY_HEADS = ("Family", "Fewest rows", "Hyper-parameters", "Searched by `--tune`")


def text() -> str:
    """The whole page."""
    parts = (
        ["# Reference", "Written by `make docs` from the code; do not edit it by hand."],
        ["## The commands", *_commands()],
        ["## Environment", _table(("Variable", "Meaning", "Without it"), _variables())],
        ["## Tool types", *_tool_types()],
        ["## Families", _table(FAMILY_HEADS, _families())],
        ["## The gate", *_gate()],
        ["## Deployments", _table(("Deployment", "What it does", "When"), _deployments())],
        ["## Reasons for a rejection", _table(("Code", "Meaning"), _reasons())],
    )
    return "\n\n".join(paragraph for part in parts for paragraph in part) + "\n"


def _commands() -> Iterator[str]:
    yield (
        "Exit status 0: done; 1: refused or failed, with the reason in one sentence on stderr, as "
        "for a tool type, a version or a file that is not there; 2: wrong usage, as for a value "
        "that an option does not take. Under `--json` nothing but the result goes to stdout."
    )
    for name, command in _below(typer.main.get_command(app), ()):
        arguments = [p for p in command.params if p.param_type_name == "argument" and not p.hidden]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        usage = " ".join(["malearn", name, *map(_argument, arguments)])
        yield f"### `{usage}`"
        yield from (" ".join(part.split()) for part in (command.help or "").split("\n\n"))
        rows = [(f"`{_argument(p)}`", p.help or "", "") for p in arguments if p.help]
        rows += [(f"`{_option(p)}`", p.help or "", _default(p)) for p in options]
        if rows:
            yield _table(("", "Meaning", "Default"), rows)


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, sub in command.commands.items():
        if hasattr(sub, "commands"):
            yield from _below(sub, (*words, name))
        else:
            yield " ".join((*words, name)), sub


def _argument(parameter: Any) -> str:
    shown: str = parameter.metavar or parameter.name.upper()
    return shown if parameter.required or shown.startswith("[") else f"[{shown}]"


def _option(parameter: Any) -> str:
    names = ", ".join(parameter.opts)
    if parameter.is_flag:
        return names
    return f"{names} {parameter.metavar or parameter.name.upper()}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.is_flag or parameter.default is None:
        return ""
    if isinstance(parameter.default, list):
        return ", ".join(f"`{value}`" for value in parameter.default)
    return f"`{parameter.default}`"


def _variables() -> list[Sequence[str]]:
    return [(f"`{name}`", *texts) for name, texts in VARIABLES.items()]


def _tool_types() -> Iterator[str]:
    yield "As shipped; [adding-a-tool-type.md](adding-a-tool-type.md) explains how to declare more."
    shipped = (ROOT / "malearn" / "tool_types.toml").read_text("utf-8")
    for tool_type in parse(shipped, "tool_types.toml"):
        functions = ", ".join(f"`{pattern}`" for pattern in tool_type.functions)
        yield f"### {tool_type.name}"
        yield f"Functions: {functions}. Runs on: {tool_type.resource}."
        yield _table(
            ("Feature", "Unit", "From", "To"),
            [
                (f"`{f.name}`", f.unit or "", f"{f.minimum:,.15g}", f"{f.maximum:,.15g}")
                for f in tool_type.features
            ],
        )


def _families() -> list[Sequence[str]]:
    return [
        (
            f"`{name}`",
            str(family.fewest_rows),
            ", ".join(f"{key} {value}" for key, value in family.defaults.items()),
            ", ".join(f"{key} {space}" for key, space in family.search.items()),
        )
        for name, family in SHIPPED.items()
    ]


def _gate() -> Iterator[str]:
    names = ", ".join(f"`{name}`" for name in BASELINES)
    yield (
        f"A candidate is promoted if there are at least {gate.FEWEST_ROWS} test rows, its MAE is "
        f"at least {gate.MARGIN:.0%} lower than that of the model in Production and of each of "
        f"{names}, at most {gate.PEER_SLACK:.0%} above that of `stack` (XGBoost on the features "
        f"and these averages) on {gate.FEWEST_PEER_ROWS} test rows or more, and its pairwise "
        f"ranking accuracy is at most {gate.RANKING_SLACK:.0%} below the best of theirs."
    )


def _deployments() -> Iterator[Sequence[str]]:
    declaration = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
    for one in declaration["deployments"]:
        flow = one["entrypoint"].rpartition(".")[2]
        when = [_when(schedule) for schedule in one.get("schedules", [])]
        yield f"`{flow}/{one['name']}`", one["description"], ", ".join(when) or "when started"


def _when(schedule: dict[str, Any]) -> str:
    if "interval" in schedule:
        return f"every {schedule['interval']:,} s"
    return f"cron `{schedule['cron']}`, {schedule.get('timezone', 'UTC')}"


def _reasons() -> list[Sequence[str]]:
    return [(f"`{code}`", words) for code, words in REASONS.items()]


def _table(heads: Sequence[str], rows: Any) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = (
        [re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in line] for line in lines
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    PAGE.write_text(text(), "utf-8")
