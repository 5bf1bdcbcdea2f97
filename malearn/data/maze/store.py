"""The runs in a Maze store: directories of `run.json` and `events.jsonl`, found below DIR.

A store is `<workspace>/workflow_runs/` with `static_runs/<run id>/` and `dynamic/<run id>/`. DIR
may be the workspace, the store, one of the two, or the directory of a single run. Whatever else
lies there, such as Maze's lock file, is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from malearn.data import files
from malearn.kernel.errors import InputError

__all__ = ["EVENTS", "MAZE_SETTING", "RUN", "RunFolder", "find", "from_environment"]

#: The variable that names stores, separated as in PATH, which scheduled runs read.
MAZE_SETTING = "MALEARN_MAZE"

RUN, EVENTS = "run.json", "events.jsonl"
_BELOW_WORKSPACE = "workflow_runs"
_KINDS = ("static_runs", "dynamic", "dynamic_runs")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The directory of one run, and the store that it is in, as the user named it."""

    path: Path
    store: Path

    @property
    def fingerprint(self) -> tuple[int, ...]:
        """Sizes and times of its files, which change when the run goes on; () where it is gone."""
        found: list[int] = []
        for name in (EVENTS, RUN):
            try:
                state = (self.path / name).stat()
            except OSError:
                continue
            # Both: an append may fall within the clock's resolution, a rewrite keep the size.
            found += (state.st_size, state.st_mtime_ns)
        return tuple(found)


def find(stores: Sequence[Path], *, waiting: bool = False) -> list[RunFolder]:
    """The runs in `stores`, oldest name first, each once.

    Raises `InputError` for a directory that cannot be read or is no store. `waiting` is for
    those who look again later: a store that does not exist yet is empty.
    """
    found: dict[Path, RunFolder] = {}
    for store in stores:
        for path in _runs(store, waiting):
            # A workspace and a store within it may both be named.
            found.setdefault(path.resolve(), RunFolder(path, store))
    return list(found.values())


def from_environment() -> list[Path]:
    """The stores that `$MALEARN_MAZE` names."""
    return [Path(name) for name in os.environ.get(MAZE_SETTING, "").split(os.pathsep) if name]


def _runs(store: Path, waiting: bool) -> list[Path]:
    try:
        if waiting and not store.exists():
            return []
        if not store.is_dir():
            raise InputError(store, "is no directory" if store.exists() else "does not exist")
        if _is_run(store):
            return [store]
        if store.name in _KINDS:
            return sorted(_children(store))
        places = [base / kind for base in (store, store / _BELOW_WORKSPACE) for kind in _KINDS]
        there = [place for place in places if place.is_dir()]
        if there:
            return sorted(run for place in there for run in _children(place))
        # Anybody may have a run.json somewhere; beside events.jsonl it is Maze's.
        found = sorted(run for run in _children(store) if (run / EVENTS).is_file())
        if found or waiting or (store / _BELOW_WORKSPACE).is_dir():
            return found
    except OSError as error:
        raise InputError(
            store, f"cannot be read ({error.strerror or files.cause(error)})"
        ) from error
    raise InputError(
        store,
        "is no Maze run store: it has neither static_runs/ nor dynamic/ "
        "(name the workspace that MAZE_WORKSPACE_DIR is set to)",
    )


def _children(place: Path) -> Iterator[Path]:
    return (path for path in place.iterdir() if _is_run(path))


def _is_run(path: Path) -> bool:
    return (path / EVENTS).is_file() or (path / RUN).is_file()
