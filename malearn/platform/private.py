"""What only the owner of a home may use: its directories, and the secrets of its servers."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

__all__ = ["UMASK", "make_directory", "secret"]

UMASK = 0o077  # of every process that writes into a home: nothing for group and others
LENGTH = 32  # random bytes of a secret; nobody guesses them


def make_directory(path: Path) -> None:
    """Create `path` and its missing parents with mode 0700.

    `Path.mkdir(mode, parents=True)` gives the mode to the last directory alone.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        # Another process of this home may create it at the same moment.
        place.mkdir(0o700, exist_ok=True)


def secret(path: Path, prefix: str = "") -> str:
    """The secret kept in `path` (mode 0600), `prefix` and random characters when there is none yet.

    Any number of processes may ask at once: all of them get the same.
    """
    make_directory(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        os.fchmod(file.fileno(), 0o600)  # whatever a backup or a copy made of it
        kept = file.read().strip()
        # A shorter one was cut by a kill or a full disk, before any server used it.
        if len(kept) < len(prefix) + LENGTH:
            kept = prefix + secrets.token_urlsafe(LENGTH)
            file.seek(0)
            file.truncate()
            file.write(kept + "\n")
            file.flush()
            os.fsync(file.fileno())
    return kept
