"""The migration of a home that an older malearn wrote, to the format of this one.

Each step leads from one format to the next, may be repeated, and is done before any server of the
home is started. What the libraries keep is migrated by themselves when they open it: MLflow's
database by `malearn.platform.database`, Prefect's by its server.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from malearn.kernel import home_format
from malearn.kernel.home import Home
from malearn.platform import private

__all__ = ["upgrade"]


def upgrade(home: Home, version: str, *, notify: Callable[[str], None] = lambda _: None) -> None:
    """Bring `home` to this malearn's format, if an older one wrote it; `version` is this one's.

    `notify` is called with a sentence when there is something to migrate. Any number of processes
    may call this at once.
    """
    home_format.check(home.root)
    if home_format.read(home.root) == home_format.FORMAT:
        return
    private.make_directory(home.state)
    with (home.state / "format.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Read again: another process may have migrated it while this one waited for the lock.
        found = home_format.read(home.root)
        if found == home_format.FORMAT:
            return
        if home.data.exists() or home.mlruns.exists():
            notify(f"Migrating {home.root} from format {found} to {home_format.FORMAT}")
        for step in _STEPS[found - 1 :]:
            step(home)
        # Last: a kill before it leaves the old number, and the steps are done again.
        home_format.write(home.root, version)


def _for_the_owner_alone(home: Home) -> None:
    """0.1.0 left what a home holds open to every user of the machine."""
    for place in (home.data, home.mlruns, home.state):
        for folder, _, files in os.walk(place):
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                if not path.is_symlink() and path.stat().st_uid == os.getuid():
                    path.chmod(path.stat().st_mode & 0o700)


#: Step n leads from format n + 1 to format n + 2.
_STEPS: tuple[Callable[[Home], None], ...] = (_for_the_owner_alone,)
