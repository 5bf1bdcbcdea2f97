"""A home restored from a backup: into an empty place, verified, resumed if interrupted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from malearn.kernel import home_format
from malearn.kernel.errors import BackupError, HomeTooNew
from malearn.kernel.home import Home
from malearn.operations import archive
from malearn.operations.archive import Entry, Manifest
from malearn.platform import private
from malearn.platform.file_lock import FileLock

__all__ = ["STAGING", "restore"]

#: Moved into place one by one, once everything is there.
_PARTS = (
    Path("mlruns", "mlflow.db"),
    Path("mlruns", "artifacts"),
    Path("data"),
    Path("malearn.toml"),
    Path("tuning.db"),
    Path(".malearn"),
)
#: Directory below a home into which a backup is unpacked.
#: Not within `.malearn`, which is one of the parts, and on the same file system: moves are renames.
STAGING = ".malearn-restoring"
Notify = Callable[[str], None]


def restore(file: Path, home: Home, notify: Notify = lambda _: None) -> Manifest:
    """Make `home`, in which nothing may be, what it was when `file` was written.

    Every file is compared with its digest before any is in its place. Interrupted, the same call
    continues.

    Raises:
        BackupError: the home is not empty, `file` is no backup or damaged, or the disk is full.
        HomeTooNew: a newer malearn wrote it.
    """
    manifest = archive.read_manifest(file)
    if manifest.home_format > home_format.FORMAT:
        raise HomeTooNew(file, manifest.home_format, manifest.malearn, home_format.FORMAT)
    if home.root.exists() and not home.root.is_dir():
        raise BackupError(home.root, "is no directory; name another home with --home")
    try:
        _restore(file, manifest, home, notify)
    except OSError as error:
        problem = f"cannot be restored ({error.strerror}); the same command continues"
        raise BackupError(error.filename or home.root, problem) from error
    return manifest


def _restore(file: Path, manifest: Manifest, home: Home, notify: Notify) -> None:
    staging = home.root / STAGING
    # Named by the backup's content: files of another one, half unpacked, are never continued.
    marker = staging / hashlib.sha256(str(manifest).encode()).hexdigest()
    if not marker.exists():
        # Only at the first attempt: a later one finds parts that it has moved into place.
        _refuse_to_overwrite(home, staging)
        _check_room(home.root, manifest)
        private.make_directory(staging)
        marker.touch()
    # The marker exists from the first attempt to the last, so it is the lock of all of them.
    lock = FileLock.try_exclusive(marker)
    if lock is None:
        raise BackupError(home.root, "is being restored by another process")
    try:
        _unpack(file, manifest, home, notify)
        _move_into_place(home, staging)
        shutil.rmtree(staging)
    finally:
        lock.release()


def _unpack(file: Path, manifest: Manifest, home: Home, notify: Notify) -> None:
    """Every file of `manifest` in its place below the staging directory, verified."""
    staging = home.root / STAGING
    try:
        for name, content in archive.read_files(file, manifest):
            if not _present(home.root, staging, name, manifest.files[name]):
                notify(f"Restoring {name.partition('/')[0]}")
                _extract(file, name, content, staging / name, manifest.files[name])
    except BackupError:  # it is damaged: nothing of it is wanted, and another may be
        # Once parts have been moved, the rest in the staging directory belongs to them.
        if not _there(home):
            shutil.rmtree(staging)
        raise


def _move_into_place(home: Home, staging: Path) -> None:
    for part in _PARTS:
        if not (staging / part).exists():
            continue
        if (home.root / part).exists():
            problem = f"got {part} of its own while it was restored; stop what uses it, remove that"
            raise BackupError(home.root, f"{problem}, and give the same command again")
        private.make_directory((home.root / part).parent)
        (staging / part).rename(home.root / part)
    # What a backup holds and no place is known for must not go with the staging directory.
    if left := [file for file in staging.rglob("*") if file.is_file() and file.stat().st_size]:
        problem = f"{left[0].relative_to(staging)} has no place in a home of this version"
        raise BackupError(home.root, f"{problem}; it stays in {staging}")


def _there(home: Home) -> list[Path]:
    return [part for part in _PARTS if (home.root / part).exists()]


def _refuse_to_overwrite(home: Home, staging: Path) -> None:
    there = _there(home)
    if staging.exists():
        problem = f"the restoration of another backup was interrupted; remove {staging}"
        raise BackupError(home.root, problem)
    if there:
        problem = f"already has {', '.join(map(str, there))}; restore into an empty directory"
        raise BackupError(home.root, problem)


def _check_room(place: Path, manifest: Manifest) -> None:
    # The home may not exist yet; its nearest parent is on the same file system.
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < manifest.size:
        sizes = f"{manifest.size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free"
        raise BackupError(place, f"has not enough room: {sizes}")


def _present(root: Path, staging: Path, name: str, entry: Entry) -> bool:
    """Whether an earlier attempt has restored the file `name`, or moved it into its place."""
    for path in (staging / name, root / name):
        if path.is_file() and path.stat().st_size == entry.size:
            with path.open("rb") as content:
                return archive.digest(content) == entry
    return False


def _extract(file: Path, name: str, content: IO[bytes], target: Path, entry: Entry) -> None:
    private.make_directory(target.parent)
    # The mode before the content: secrets are among the files.
    target.touch(0o600)
    found = hashlib.sha256()
    with target.open("wb") as out:
        while chunk := content.read(2**20):
            found.update(chunk)
            out.write(chunk)
    if found.hexdigest() != entry.sha256:
        raise BackupError(file, f"is damaged: {name} is not what was written")
