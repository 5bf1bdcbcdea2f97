"""How far the runs of Maze stores were read, so that whoever looks again reads only what changed.

It saves work and decides nothing: what is read twice is a duplicate. It is kept in
`data/maze_runs.json` below the home and written once a batch is in the datasets.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from malearn.data.maze.store import RunFolder
from malearn.kernel.home import Home

__all__ = ["Cursor"]

_FILE = "maze_runs.json"

#: The fingerprint of a run's files when they were read, and the last line of its events.
_Read = tuple[tuple[int, ...], int]


class Cursor:
    """What was read of each run, by the path of its directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, _Read] = {}
        try:
            found = json.loads(path.read_bytes())
            self._read = {
                str(run): (tuple(map(int, fingerprint)), int(line))
                for run, (fingerprint, line) in found.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # the runs are read once more

    @classmethod
    def open(cls, home: Home) -> Cursor:
        """The cursor of `home`."""
        return cls(home.data / _FILE)

    def changed(self, folder: RunFolder) -> bool:
        """Whether there may be something in `folder` that was not read."""
        return self._read.get(_key(folder), ((), 0))[0] != folder.fingerprint

    def line(self, folder: RunFolder) -> int:
        """The last line of its events that was read; 0 where none was."""
        return self._read.get(_key(folder), ((), 0))[1]

    def note(self, folder: RunFolder, fingerprint: tuple[int, ...], line: int) -> None:
        """Remember that `folder` was read up to `line` when it had this fingerprint."""
        self._read[_key(folder)] = fingerprint, line

    def save(self) -> None:
        """Write it down, all at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place, and named for the process: a reader never sees half of it, nor do two
        # writers share a file.
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(self._read), encoding="utf-8")
        scratch.replace(self.path)


def _key(folder: RunFolder) -> str:
    # The same run by whatever path, relative or through a link, it is named.
    return str(folder.path.resolve())
