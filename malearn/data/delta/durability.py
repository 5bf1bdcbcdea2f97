"""Durability: commits that survive a power failure, because their files are on the disk.

delta-rs writes a commit's files and leaves it to the operating system when they reach the disk.
A commit must be there before the stream that it was read from is trimmed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import unquote

__all__ = ["added_files", "commit_file", "sync_commits"]


def commit_file(table: Path, version: int) -> Path:
    """The file of the log that holds `version`."""
    return table / "_delta_log" / f"{version:020}.json"


def added_files(commit: bytes) -> Iterator[str]:
    """The data files that the JSON lines of `commit` add, relative to the table.

    Raises `ValueError` for what is no commit.
    """
    for line in commit.splitlines():
        action = json.loads(line)
        if "add" in action:
            yield unquote(action["add"]["path"])


def sync_commits(table: Path, versions: Collection[int]) -> None:
    """Wait until `versions` of `table`, and the data files they added, are on the disk."""
    for version in versions:
        file = commit_file(table, version)
        try:
            added = list(added_files(file.read_bytes()))
        except (OSError, ValueError):
            continue  # another process is at it; its own commits are its own to sync
        # Data before the commit that names it: a commit on the disk never points to a lost file.
        for path in (*(table / name for name in added), file):
            _sync(path)
    # A new file survives only with its folder's entry for it (fsync(2)).
    for folder in (table / "_delta_log", table, *((table.parent,) if 0 in versions else ())):
        _sync(folder)


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # gone with a compaction, whose own files are synced
    try:
        os.fsync(descriptor)
    except OSError:  # a file system that cannot sync folders
        pass
    finally:
        os.close(descriptor)
