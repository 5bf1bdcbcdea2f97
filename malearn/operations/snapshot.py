"""A consistent snapshot of a home, taken while its servers and flows run.

It is a directory of the same form beside them. Databases are copied by SQLite's own online
backup, Redis writes its data itself, and everything else is files that are written once: links
to them cost no room, and keep what retention deletes meanwhile. Databases come first: what they
name was there before.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import redis

from malearn.data import locks
from malearn.kernel.errors import BackupError
from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis, private

__all__ = ["left_out", "take"]

#: SQLite databases below a home.
_DATABASES = (
    Path("mlruns", "mlflow.db"),
    Path(".malearn", "prefect", "prefect.db"),
    Path("tuning.db"),
)
#: Directories of files that are written once, and single files.
_PLACES = (
    Path("data"),
    Path("mlruns", "artifacts"),
    Path(".malearn", "prefect", "storage"),
    Path(".malearn", "secrets"),
    Path(".malearn", "http"),
    Path(".malearn", "metrics"),
    Path(".malearn", "format.json"),
    Path("malearn.toml"),
)
_AOF = Path(".malearn", "redis", "appendonlydir")
#: Data as Redis reads them at its start: one file of all data, and no writes after it.
_AOF_FILE = "appendonly.aof.1.base.rdb"
_AOF_MANIFEST = f"file {_AOF_FILE} seq 1 type b\n"
_PAUSE = 0.05  # seconds between two questions to Redis whether it is done
_BUSY = 60.0  # seconds to wait for a database that is being written


def take(home: Home, place: Path, notify: Callable[[str], None] = lambda _: None) -> None:
    """Fill the directory `place`, on the file system of `home`, with a snapshot of it.

    `notify` is called with a sentence where it has to wait for a flow.

    Raises:
        BackupError: a database is damaged, or Redis cannot write its data.
        PlatformError: the home's Redis does not start.
    """
    for database in _DATABASES:
        if (home.root / database).exists():
            # A copy of the bytes could hold half of a transaction that is being written.
            _copy_database(home.root / database, place / database)
    if (home.root / _AOF).exists():
        _copy_redis(home, place / _AOF)
    waiting = "Waiting for the flow that writes the datasets"
    with locks.dataset_lock(home, lambda: notify(waiting)):  # no table is being written
        for top in _PLACES:
            for file in _files(home.root / top):
                _link(file, place / file.relative_to(home.root))


def left_out(home: Home) -> list[str]:
    """What `home` uses and a snapshot of it cannot hold, a sentence each: what lies elsewhere."""
    outside = {
        "MALEARN_REDIS_URL": "Redis",
        "MLFLOW_TRACKING_URI": "MLflow",
        "PREFECT_API_URL": "Prefect",
        "MALEARN_DATA": "Data",
    }
    return [
        f"{name} outside the home ({setting}) must be backed up where it is"
        for setting, name in outside.items()
        if os.environ.get(setting, "").strip()
    ]


def _copy_database(source: Path, target: Path) -> None:
    private.make_directory(target.parent)
    target.touch(0o600)
    try:
        with (
            closing(sqlite3.connect(source.as_uri() + "?mode=ro", uri=True, timeout=_BUSY)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            (found,) = new.execute("PRAGMA quick_check(1)").fetchone()
            new.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise BackupError(source, f"cannot be copied ({error})") from error
    if found != "ok":
        raise BackupError(source, f"is damaged ({found}); restore an earlier backup")


def _copy_redis(home: Home, target: Path) -> None:
    private.make_directory(target)
    try:
        # Attaches to the home's Redis where it runs, and else starts it: its files alone may end in
        # the middle of a write.
        with EmbeddedRedis(home) as server, redis.Redis.from_url(server.url) as client:
            _save(client)
            if client.info("persistence")["rdb_last_bgsave_status"] != "ok":
                problem = f"Redis could not write its data; see {server.log}"
                raise BackupError(server.directory(), problem)
            # Moved, not copied: the running Redis has its own log and needs no dump.
            shutil.move(server.directory() / "dump.rdb", target / _AOF_FILE)
    except redis.RedisError as error:
        raise BackupError(home.state / "redis", f"Redis cannot be copied ({error})") from error
    (target / f"{_AOF_FILE.partition('.aof')[0]}.aof.manifest").write_text(_AOF_MANIFEST)


def _save(client: redis.Redis) -> None:
    """Have Redis write its data to a file, once it does not rewrite its log, and wait for it."""
    while True:
        try:
            client.bgsave()
            break
        except redis.ResponseError as error:
            # Redis refuses BGSAVE while it rewrites its log or another BGSAVE runs.
            if "in progress" not in str(error):
                raise
        time.sleep(_PAUSE)
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        time.sleep(_PAUSE)


def _files(place: Path) -> Iterator[Path]:
    """The files of `place` or below it, without locks and links."""
    if place.is_file() and not place.is_symlink():
        yield place
    for folder, folders, names in os.walk(place):
        # In place, for os.walk: an interrupted archive is continued in the same order.
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            # A lock means processes of this machine; a link may lead out of the home.
            if not name.endswith(".lock") and not file.is_symlink():
                yield file


def _link(source: Path, target: Path) -> None:
    private.make_directory(target.parent)
    try:
        os.link(source, target)
    except FileNotFoundError:
        return  # an artifact that somebody has just deleted
    except OSError:  # a file system without links
        shutil.copy2(source, target)
