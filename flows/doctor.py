"""Checks of an installation: what it runs on, what it can reach, and whether its data is whole.

Nothing is started, and nothing is changed but by `repair`. Each check is one line: what was
checked, what was found, and, where something is wrong, what to do.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

import redis

from malearn.data import redis_client, storage, stream
from malearn.data import repair as tables
from malearn.data.dataset import Dataset
from malearn.data.quarantine import QuarantineFilter
from malearn.data.rejections import Rejections
from malearn.flows.quarantine import revalidate
from malearn.kernel import generic, text
from malearn.kernel.errors import InputError, MalearnError, without_password
from malearn.kernel.home import Home
from malearn.kernel.onnx import onnx_model
from malearn.kernel.records import RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import families
from malearn.lifecycle import mlflow_connection, registry
from malearn.operations import home_checks
from malearn.operations.finding import Finding
from malearn.platform import EmbeddedRedis, MLflowServer, PrefectServer
from malearn.serving.cache import default_directory

__all__ = ["Finding", "examine", "repair"]

#: What decides whether two installations behave alike.
_LIBRARIES = ("mlflow", "prefect", "great-expectations", "deltalake", "xgboost", "onnxruntime")
#: Bytes free below which commits may soon fail. Embedded servers refuse to start at far less:
#: see `MIN_FREE_BYTES`.
_LEAST_FREE = 500_000_000
#: Seconds between two clocks from which durations and retention are off.
_CLOCKS = 5.0


def examine(home: Home) -> Iterator[Finding]:
    """Check the installation and `home`, one finding after another."""
    yield _versions()
    types, finding = _declaration(home)
    yield finding
    if types is not None:
        yield _families(types)
    yield _directory(home)
    yield from home_checks.examine(home)
    yield from _external_servers()
    yield _cache()
    yield from _production(types or {})
    for name, tool_type in (types or {}).items():
        yield _table(name, lambda: Dataset.open(home, tool_type))  # noqa: B023  called at once
    yield _table("_rejected", lambda: Rejections.open(home))


def repair(home: Home) -> Iterator[Finding]:
    """Do what is safe: a finding for each table that was damaged, for rows that waited for it,
    and for whatever else was put right.
    """
    types = generic.declared(home)
    yield from home_checks.repair(home)
    for report in tables.repair(home, types):
        subject = f"repair of {report.table}"
        if report.failure:
            yield Finding(subject, "problem", report.failure)
        elif report.damage:
            outcome = f"{text.counted(report.rows, 'row')} can be read, {report.lost:,} lost"
            if report.recovered:
                outcome += f", {report.recovered:,} found in files of earlier versions"
            what = "; ".join(report.damage)
            aside = storage.root(home) / tables.DAMAGED
            detail = f"{what}: {outcome}; what cannot be read is kept in {aside}"
            yield Finding(subject, "warning" if report.lost else "ok", detail)
    which = QuarantineFilter(types, reason=RejectReason.DATASET_DAMAGED)
    done = revalidate(home, which, lambda _: None)
    if done.retried:
        accepted = sum(done.accepted.values())
        retried = text.counted(done.retried, "row")
        detail = f"accepted {accepted:,} of {retried} that waited for the repair"
        yield Finding("quarantine", "ok", detail)


def _versions() -> Finding:
    python = ".".join(map(str, sys.version_info[:3]))
    found = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    return Finding("versions", "ok", f"Python {python}, {', '.join(found)}")


def _declaration(home: Home) -> tuple[ToolTypes | None, Finding]:
    try:
        types = generic.declared(home)
    except MalearnError as error:
        return None, Finding("tool types", "problem", str(error))
    return types, Finding("tool types", "ok", ", ".join(types))


def _families(types: ToolTypes) -> Finding:
    """Whether each declared family can be loaded and takes its declared hyper-parameters."""
    subject, tried = "model families", dict[str, None]()
    try:
        for tool_type in types.values():
            families.check(tool_type)
            tried |= dict.fromkeys(families.tried(tool_type))
    except MalearnError as error:
        return Finding(subject, "problem", str(error))
    return Finding(subject, "ok", ", ".join(tried))


def _directory(home: Home) -> Finding:
    """Whether the home can be written, and has room."""
    place = home.root
    while not place.exists() and place != place.parent:
        place = place.parent  # a home is made when it is first written to
    subject = f"home {home.root}"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding(subject, "problem", f"{place} cannot be written; name another with --home")
    free = shutil.disk_usage(place).free
    room = f"{free / 1e9:,.1f} GB free"
    if free < _LEAST_FREE:
        return Finding(subject, "problem", f"{room}; free at least {_LEAST_FREE / 1e9:.1f} GB")
    return Finding(subject, "ok", room)


def _external_servers() -> Iterator[Finding]:
    """The servers that variables name; embedded ones are started by the commands themselves."""
    for kind in (EmbeddedRedis, MLflowServer, PrefectServer):
        url = os.environ.get(kind.setting, "").strip()
        if not url:
            yield Finding(kind.name, "ok", f"{kind.setting} is not set: commands start one")
            continue
        shown = without_password(url)
        try:
            kind.ping(url)
        # An address that cannot be right needs another sentence than a server that is away.
        except InputError as error:
            yield Finding(kind.name, "problem", str(error))
            continue
        except Exception as error:  # noqa: BLE001  each client raises its own
            cause = " ".join(str(error).split()) or type(error).__name__
            detail = f"{shown} does not answer ({cause}); start it or correct {kind.setting}"
            yield Finding(kind.name, "problem", detail)
            continue
        yield _redis(url, shown) if kind is EmbeddedRedis else Finding(kind.name, "ok", shown)


def _redis(url: str, shown: str) -> Finding:
    """Whether the clock of each Redis server is this machine's, and streams have room."""
    try:
        with redis_client.connected(url) as client:
            off = max(map(_ahead, redis_client.primaries(client).values()), key=abs)
        warnings = stream.warnings(url)
    except MalearnError as error:
        return Finding("Redis", "warning", f"{shown} answers, but not every command: {error}")
    if abs(off) > _CLOCKS:
        detail = f"the clock of {shown} is {off:+.0f} s off this one; synchronise both (NTP)"
        return Finding("Redis", "warning", detail)
    if "writes" in warnings:
        return Finding("Redis", "problem", warnings["writes"])
    if warnings:
        return Finding("Redis", "warning", " ".join(warnings.values()))
    return Finding("Redis", "ok", shown)


def _ahead(client: redis.Redis) -> float:
    """How many seconds the clock of a Redis server is ahead of this machine's."""
    before = time.time()
    seconds, microseconds = client.time()
    # Compared with half-way between question and answer, as NTP does.
    ahead: float = seconds + microseconds / 1e6 - (before + time.time()) / 2
    return ahead


def _cache() -> Finding:
    """Whether the directory of a predictor on this machine can be used."""
    place = default_directory()
    if place is None:
        return Finding("cache", "warning", "there is no HOME: set MALEARN_CACHE for schedulers")
    if not place.exists():
        return Finding("cache", "ok", f"{place}: nothing yet")
    # The condition under which a predictor refuses to load models from there.
    found = place.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        detail = f"{place} is another user's, or others can write in it: predictors do not use it"
        return Finding("cache", "warning", f"{detail}; chmod go-w it, or set MALEARN_CACHE")
    files = [file for file in place.rglob("*.onnx") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return Finding(
        "cache", "ok", f"{place}: {text.counted(len(files), 'model')}, {size / 1e6:.1f} MB"
    )


def _production(types: Mapping[str, ToolType]) -> Iterator[Finding]:
    """Whether a scheduler could load each version in Production, of an MLflow that is given."""
    url = os.environ.get(MLflowServer.setting, "").strip()
    if not url:
        return
    try:
        with mlflow_connection.connected(url):
            for name, tool_type in types.items():
                yield _version(name, tool_type)
    except MalearnError as error:
        yield Finding("registry", "problem", str(error))


def _version(name: str, tool_type: ToolType) -> Finding:
    subject = f"model {name}"
    serving = registry.by_alias(tool_type, registry.PRODUCTION)
    if serving is None:
        return Finding(subject, "ok", "no version is in Production")
    try:
        # Fetched and loaded as a scheduler does: an artifact that is damaged shows only then.
        file = registry.model_file(tool_type, serving.number)
        onnx_model.load(file, tool_type, f"version {serving.number}")
    except MalearnError as error:
        detail = f"schedulers refuse it ({str(error).rstrip('.')}); train, or roll back"
        return Finding(subject, "problem", detail)
    return Finding(subject, "ok", f"version {serving.number} can be loaded")


def _table(name: str, open_table: Callable[[], Dataset | Rejections]) -> Finding:
    """Whether a table can be read to its last row."""
    subject = f"table {name}"
    try:
        table = open_table()
        rows = (
            # Every row is read: damage within a file shows only so.
            table.count_readable() if isinstance(table, Dataset) else sum(1 for _ in table.each())
        )
    except MalearnError as error:
        return Finding(subject, "problem", str(error))
    return Finding(subject, "ok", text.counted(rows, "row") if rows else "nothing yet")
