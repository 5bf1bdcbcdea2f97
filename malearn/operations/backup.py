"""A backup of a home: taken while it runs, verified, and resumed where it was interrupted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from malearn.kernel import home_format
from malearn.kernel.errors import BackupError
from malearn.kernel.home import Home
from malearn.operations import archive, snapshot
from malearn.operations.archive import Manifest
from malearn.platform import private
from malearn.platform.file_lock import FileLock

__all__ = ["backup"]

#: Seconds after which an interrupted backup is not continued: its snapshot is of that time.
_CONTINUE_WITHIN = 86_400.0
Notify = Callable[[str], None]


def backup(home: Home, file: Path, version: str, notify: Notify = lambda _: None) -> Manifest:
    """Write `home` to `file` (mode 0600), which appears when it is complete and verified.

    Interrupted, the same call continues with the snapshot it had taken. `version` is malearn's.

    Raises:
        BackupError: `file` exists, the home has nothing in it, or is damaged.
    """
    # Everything that can be refused is refused before a snapshot is taken.
    if file.exists():
        raise BackupError(file, "already exists; name another file, or remove it")
    if not file.absolute().parent.is_dir():
        raise BackupError(file.absolute().parent, "is no directory")
    if not (home.data.exists() or (home.mlruns / "mlflow.db").exists()):
        raise BackupError(home.root, "has neither data nor models; name a home with --home")
    private.make_directory(home.state)
    lock = FileLock.try_exclusive(home.state / "backup.lock")
    if lock is None:
        raise BackupError(home.root, "another backup of it is being made")
    try:
        return _backup(home, file, version, notify)
    except OSError as error:
        problem = f"cannot be written ({error.strerror}); the same command continues it"
        raise BackupError(error.filename or file, problem) from error
    finally:
        lock.release()


def _backup(home: Home, file: Path, version: str, notify: Notify) -> Manifest:
    # Beside the file, hence on its file system: it is renamed once it has been verified.
    part = file.with_name(file.name + ".part")
    staging = home.state / "backup"
    manifest = _interrupted(staging, part)
    if manifest is None:
        notify("Taking a snapshot")
        # Of an interrupted backup that cannot be continued.
        shutil.rmtree(staging, ignore_errors=True)
        part.unlink(missing_ok=True)
        _take_snapshot(home, staging, notify)
        number = home_format.read(home.root)
        manifest = Manifest(number, version, time.time(), snapshot.left_out(home))
        _note(staging, part, manifest)
    else:
        notify("Continuing the backup that was interrupted")
    manifest = archive.write(staging / "home", part, manifest, notify)
    archive.verify(part, notify)
    part.replace(file)
    shutil.rmtree(staging)
    return manifest


def _take_snapshot(home: Home, staging: Path, notify: Notify) -> None:
    """Whole or not at all: half of one is of no use, and holds on to room."""
    try:
        snapshot.take(home, staging / "home", notify)
    # Ctrl-C as well.
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _note(staging: Path, part: Path, manifest: Manifest) -> None:
    """Write down that the snapshot is complete, and what it is for."""
    said = {
        "part": str(part.absolute()),
        "home_format": manifest.home_format,
        "malearn": manifest.malearn,
        "taken": manifest.taken,
        "left_out": manifest.left_out,
    }
    # Outside of `staging / "home"`, so it does not get into the archive.
    (staging / "snapshot.json").write_text(json.dumps(said), "utf-8")


def _interrupted(staging: Path, part: Path) -> Manifest | None:
    """The manifest, still without files, of a backup to `part` that can be continued."""
    try:
        said = json.loads((staging / "snapshot.json").read_bytes())
        of = said.pop("part")
        manifest = msgspec.convert(said, Manifest)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    # Negative where the clock was set back since: then nobody knows how old the snapshot is.
    recent = 0.0 <= time.time() - manifest.taken < _CONTINUE_WITHIN
    if of != str(part.absolute()) or not recent or not part.exists():
        return None
    return manifest
