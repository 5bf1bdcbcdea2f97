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

__all__ = ["STAGING", "restore"]

#: Moved into place one by one, once everything is there.
_PARTS = (
    Path("mlruns", "mlflow.db"),
    Path("mlruns", "artifacts"),
    Path("data"),
    Path("malearn.toml"),
    Path(".malearn"),
)
#: Directory below a home into which a backup is unpacked.
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
    staging = home.root / STAGING
    marker = staging / hashlib.sha256(str(manifest).encode()).hexdigest()
    if not marker.exists():
        _refuse_to_overwrite(home, staging)
        _check_room(home.root, manifest)
        private.make_directory(staging)
        marker.touch()
    for name, content in archive.read_files(file, manifest):
        if not _present(home.root, staging, name, manifest.files[name]):
            notify(f"Restoring {name.partition('/')[0]}")
            _extract(file, name, content, staging / name, manifest.files[name])
    for part in _PARTS:
        if (staging / part).exists():
            private.make_directory((home.root / part).parent)
            (staging / part).rename(home.root / part)
    shutil.rmtree(staging)
    return manifest


def _refuse_to_overwrite(home: Home, staging: Path) -> None:
    there = [part for part in _PARTS if (home.root / part).exists()]
    if staging.exists():
        problem = f"the restoration of another backup was interrupted; remove {staging}"
        raise BackupError(home.root, problem)
    if there:
        problem = f"already has {', '.join(map(str, there))}; restore into an empty directory"
        raise BackupError(home.root, problem)


def _check_room(place: Path, manifest: Manifest) -> None:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < manifest.size:
        sizes = f"{manifest.size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB free"
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
    target.touch(0o600)
    found = hashlib.sha256()
    with target.open("wb") as out:
        while chunk := content.read(2**20):
            found.update(chunk)
            out.write(chunk)
    if found.hexdigest() != entry.sha256:
        raise BackupError(file, f"is damaged: {name} is not what was written")
