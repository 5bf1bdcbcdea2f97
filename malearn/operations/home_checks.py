"""Checks of what lies in a home, and the repairs of it that are safe.

Nothing is started; databases are opened read-only.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from malearn.kernel import home_format, text
from malearn.kernel.home import Home
from malearn.operations.finding import Finding
from malearn.operations.restore import STAGING
from malearn.platform.file_lock import FileLock

__all__ = ["examine", "repair"]

_DATABASES = {
    "MLflow's database": Path("mlruns", "mlflow.db"),
    "Prefect's database": Path(".malearn", "prefect", "prefect.db"),
    "database of searches": Path("tuning.db"),
}
_OPEN = stat.S_IRWXG | stat.S_IRWXO


def examine(home: Home) -> Iterator[Finding]:
    """The format of `home`, who may read it, its databases, and what was left behind in it."""
    if home.state.exists():
        yield _format(home)
    if home.state.exists() or home.data.exists():
        yield _rights(home)
    for subject, place in _DATABASES.items():
        if (home.root / place).exists():
            yield _database(subject, home.root / place)
    yield from _leftovers(home)


def repair(home: Home) -> Iterator[Finding]:
    """Take rights to `home` from others, and remove what an interrupted backup left."""
    exposed = list(_exposed(home))
    for path in exposed:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OPEN)
    if exposed:
        what = text.counted(len(exposed), "path")
        detail = f"what others could read is now its owner's alone: {what}"
        yield Finding("rights", "ok", detail)
    staging = home.state / "backup"
    # Only under the lock: another process may be making a backup now.
    if staging.exists() and (lock := FileLock.try_exclusive(home.state / "backup.lock")):
        shutil.rmtree(staging)
        lock.release()
        yield Finding("backup", "ok", f"removed {staging}, which an interrupted backup left")


def _format(home: Home) -> Finding:
    number = home_format.read(home.root)
    if number < home_format.FORMAT:
        detail = f"{number}, of an older malearn; the next command that starts servers migrates it"
        return Finding("home format", "ok", detail)
    return Finding("home format", "ok", str(number))


def _exposed(home: Home) -> Iterator[Path]:
    """What others may read or write, of files that are ours."""
    for place in (home.state, home.data, home.mlruns):
        for folder, _, names in os.walk(place):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                try:
                    found = path.lstat()
                except FileNotFoundError:
                    continue  # of a server that is running
                # Rights of another user's file cannot be changed; those of a link do not count.
                ours = found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode)
                # A checkout brings `.gitkeep`, with rights that git gave it.
                if ours and found.st_mode & _OPEN and path.name != ".gitkeep":
                    yield path


def _rights(home: Home) -> Finding:
    # A directory that is closed closes what is in it; only the secrets must be closed themselves.
    secrets = home.state / "secrets"
    unsafe = [path for path in _exposed(home) if secrets in (path, *path.parents)]
    if unsafe:
        detail = f"others can read {unsafe[0]}: run `malearn doctor --repair`"
        return Finding("rights", "problem", detail)
    tops = [home.state, home.data, home.mlruns]
    open_tops = [p for p in tops if p.exists() and stat.S_IMODE(p.stat().st_mode) & _OPEN]
    # Whoever made the home itself his own is safe whatever the rights within.
    if open_tops and stat.S_IMODE(home.root.stat().st_mode) & _OPEN:
        names = ", ".join(path.name for path in open_tops)
        detail = f"others can read {names}; `malearn doctor --repair` closes what is below the home"
        return Finding("rights", "warning", detail)
    return Finding("rights", "ok", "others can read nothing")


def _database(subject: str, path: Path) -> Finding:
    try:
        # 10 seconds to wait for a writer; (1): the first damage is enough to know.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        detail = f"{path} is damaged ({found}); stop what uses it and restore a backup"
        return Finding(subject, "problem", detail)
    return Finding(subject, "ok", f"{path.stat().st_size / 1e6:,.1f} MB")


def _leftovers(home: Home) -> Iterator[Finding]:
    staging, restoring = home.state / "backup", home.root / STAGING
    if staging.exists():
        detail = "a backup was interrupted, or is being made: give the same command again to "
        detail += f"continue it; `--repair` removes {staging}"
        yield Finding("backup", "warning", detail)
    if restoring.exists():
        detail = "a restoration was interrupted: give the same command again, or remove "
        yield Finding("restore", "problem", f"{detail}{restoring}")
