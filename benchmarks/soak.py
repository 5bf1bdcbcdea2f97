"""Soak: `make soak ARGS="--minutes 60"`. A steady load while everything else is restarted.

A scheduler's process asks and reports; meanwhile Redis and MLflow are killed and started again,
the alias Production moves between two versions, and ingestion drains the stream. The report says
what memory, descriptors and latency did, and checks that every count adds up. With
`--campaigns`, the long campaigns of kills and hostile input run afterwards.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks import __main__ as benches
from benchmarks.figure import Figure, at_least, at_most, table
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.rejections import Rejections
from malearn.data.stream import Stream
from malearn.kernel import tool_types
from malearn.kernel.errors import MalearnError
from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis, MLflowServer

__all__ = ["Soak", "figures_of", "soak"]

ROOT = Path(__file__).parents[1]
#: A home with a version of each tool type, to have something to serve.
MODELS = ROOT / "tests" / "fixtures" / "home-0.1.0.tar.xz"
TYPES = tool_types.declared()
#: MiB that a predictor may hold once it has seen 2,048 functions, 65,536 tasks, and two versions of
#: four models: about 130 were seen, of which 40 are files of libraries that processes share.
PLATEAU = 160.0
#: MiB an hour by which memory may still grow once it should be on its plateau.
SLOPE = 20.0
CAMPAIGNS = ("kills", "hostile", "hostile_models", "ingest")


@dataclass(slots=True)
class Soak:
    """What was seen: a sample a second, how often each thing was done, what is in the datasets."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    redis_restarts: int = 0
    mlflow_restarts: int = 0
    alias_moves: int = 0
    ingested: int = 0
    rows: int = 0
    kept_out: int = 0


def soak(
    seconds: float, place: Path, *, rate: float = 60.0, models: bool = True, every: float = 30.0
) -> Soak:
    """Load for `seconds`, below `place`; something is restarted `every` so many."""
    seen = Soak()
    home = Home(place / "home")
    home.root.mkdir()
    if models:
        with tarfile.open(MODELS) as packed:
            packed.extractall(home.root, filter="data")
    store = Home(place / "datasets")  # without the rows that the models were trained on
    redis, mlflow = EmbeddedRedis(Home(place / "redis")), MLflowServer(home)
    try:
        redis.start()
        if models:
            mlflow.start()
            _second_versions(mlflow.url)
        _load(seen, seconds, place, store, redis, mlflow if models else None, rate, every)
    finally:
        redis.stop()
        mlflow.stop()
    seen.rows = sum(Dataset.open(store, t).rows for t in TYPES.values())
    seen.kept_out = sum(Rejections.open(store).counts().values())
    return seen


def _load(
    seen: Soak,
    seconds: float,
    place: Path,
    store: Home,
    redis: EmbeddedRedis,
    mlflow: MLflowServer | None,
    rate: float,
    every: float,
) -> None:
    """Run the scheduler's process, and trouble it until the time is up."""
    words = [redis.url, mlflow.url if mlflow else "", str(place / "cache"), str(rate)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak_load", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = process.stdout
    reader = Thread(target=lambda: seen.samples.extend(map(json.loads, lines)))
    reader.start()
    while not seen.samples and process.poll() is None:
        time.sleep(0.05)  # it imports, and loads its models
    until, steps = time.monotonic() + seconds, _trouble(seen, store, redis, mlflow)
    while process.poll() is None and (time.monotonic() < until or not seen.redis_restarts):
        next(steps)
        time.sleep(min(every / 4, max(until - time.monotonic(), 0.0)))
    process.stdin.close()
    process.wait(120)
    reader.join()
    lines.close()
    _ingest(seen, store, redis.url)


def _trouble(
    seen: Soak, store: Home, redis: EmbeddedRedis, mlflow: MLflowServer | None
) -> Iterator[None]:
    """One disturbance after another, for ever."""
    while True:
        yield
        _ingest(seen, store, redis.url)
        yield
        _restart(redis)
        seen.redis_restarts += 1
        yield
        if mlflow:
            seen.alias_moves += _move_aliases(mlflow.url, 1 + seen.alias_moves % 2)
        yield
        if mlflow and seen.redis_restarts % 4 == 0:  # the slowest of all
            _restart(mlflow)
            seen.mlflow_restarts += 1


def _restart(server: EmbeddedRedis | MLflowServer) -> None:
    """Kill a server, and start it again at its address."""
    server.port = int(server.address.rpartition(":")[2].partition("/")[0])
    server.kill()
    while not server.ended():
        time.sleep(0.02)
    server.start()


def _ingest(seen: Soak, store: Home, url: str) -> None:
    with Stream(url, TYPES) as stream:
        seen.ingested += sum(part.records for part in Ingest(store, TYPES).drain(stream))


def _second_versions(url: str) -> None:
    """Give every model a second version, of the same file, to move the alias to."""
    from mlflow import MlflowClient

    client = MlflowClient(url, url)
    for tool_type in TYPES.values():
        name = tool_type.registered_model
        first = client.get_model_version(name, "1")
        source = first.source or ""
        client.create_model_version(
            name, source, first.run_id, first.tags, model_id=source.rpartition("/")[2]
        )


def _move_aliases(url: str, version: int) -> int:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(url, url)
    try:
        for tool_type in TYPES.values():
            alias = (tool_type.registered_model, "Production", str(version))
            client.set_registered_model_alias(*alias)
    except MlflowException:  # it is being restarted
        return 0
    return 1


def figures_of(seen: Soak) -> list[Figure]:
    """What must hold, each beside its target."""
    last = seen.samples[-1]  # after `close()`
    half = len(seen.samples) // 2
    rest = seen.samples[half:-1] or [last]
    lost = last["collected"] - last["dropped"] - seen.rows - seen.kept_out
    medians = [s["median"] for s in seen.samples if s["median"] is not None]
    third = max(len(medians) // 3, 1)
    slower = (sum(medians[-third:]) / third) / (sum(medians[:third]) / third)
    outage = max(s["slowest"] or 0.0 for s in seen.samples)
    of = f"of {last['calls']:,} answers in {len(seen.samples):,} s"
    return [
        at_most(f"answers that are no time, {of}", last["wrong"], "", 0),
        at_most("failures of malearn's own", last["errors"], "", 0),
        at_most(
            f"reports neither sent nor counted, of {last['collected']:,}",
            abs(last["collected"] - last["sent"] - last["dropped"]),
            "",
            0,
        ),
        at_most("reports neither in a dataset nor kept out with a reason", abs(lost), "", 0),
        at_most("memory at the end", last["rss"], "MiB", PLATEAU),
        at_most("growth of memory in the second half", _slope(rest), "MiB/h", SLOPE),
        at_most(
            # At the most: while Redis is away, its connections are closed.
            "descriptors, most of the second half against most of the first",
            max(s["descriptors"] for s in rest)
            - max(s["descriptors"] for s in seen.samples[:half] or [last]),
            "",
            8,
        ),
        at_most("median latency, last third against first", slower, "ratio", 1.5),
        at_most("the slowest answer", outage, "s", 0.25),
        at_least("restarts of Redis that the predictor outlived", seen.redis_restarts, "", 1),
    ]


def _slope(samples: Sequence[dict[str, Any]]) -> float:
    """MiB an hour: the last fifth against the first, of samples a second apart."""
    fifth = max(len(samples) // 5, 1)
    first = sum(s["rss"] for s in samples[:fifth]) / fifth
    last = sum(s["rss"] for s in samples[-fifth:]) / fifth
    return float(last - first) / max(len(samples) - fifth, 1) * 3600.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make soak", description="Load, restarts, counts.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--rate", type=float, default=60.0, help="tasks a second (60)")
    parser.add_argument("--samples", type=Path, help="keep a line of JSON a second in this file")
    parser.add_argument("--campaigns", action="store_true", help=f"then {', '.join(CAMPAIGNS)}")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            seen = soak(chosen.minutes * 60.0, Path(folder), rate=chosen.rate)
        except MalearnError as error:
            raise SystemExit(str(error)) from None
    if chosen.samples:
        lines = (json.dumps(sample) + "\n" for sample in seen.samples)
        chosen.samples.write_text("".join(lines), "utf-8")
    found = figures_of(seen)
    print(table(found))
    marks = [seen.samples[int(n * (len(seen.samples) - 1) / 10)]["rss"] for n in range(11)]
    print("memory in tenths of the time, MiB:", *(f"{mark:.0f}" for mark in marks))
    print(
        f"{seen.redis_restarts} restarts of Redis, {seen.mlflow_restarts} of MLflow, "
        f"{seen.alias_moves} moves of the alias, {seen.samples[-1]['swaps']} models replaced, "
        f"{seen.ingested:,} records ingested, answers by source {seen.samples[-1]['sources']}"
    )
    if chosen.campaigns:
        benches.main(CAMPAIGNS)
    if not all(figure.met for figure in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
