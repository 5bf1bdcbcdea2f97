"""A backup: a tar archive of a snapshot, whose last member lists every file with its digest.

An archive without that member is one whose writing was interrupted. Plain tar, so that other
tools can read it; nothing in it is compressed twice.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from malearn.kernel.errors import BackupError

__all__ = ["Entry", "Manifest", "digest", "read_files", "read_manifest", "verify", "write"]

_MANIFEST = "manifest.json"
_FORMAT = 1  # of this archive; a reader refuses a higher one
_CHUNK = 2**20
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds: `files` by their path below the home, of which format, when `taken`
    (seconds since the epoch) and by which malearn. `left_out` are sentences about what it lacks.
    """

    home_format: int
    malearn: str
    taken: float
    left_out: list[str] = field(default_factory=list)
    files: dict[str, Entry] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files.values())


def write(place: Path, archive: Path, manifest: Manifest, notify: Notify) -> Manifest:
    """Write what is below `place` to `archive`, after the whole members that it has already.

    Returns `manifest` with the files in it.
    """
    names = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    # Not open(): the archive holds passwords, and its mode must not depend on the umask.
    descriptor = os.open(archive, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        kept, end = _whole_members(file, place)
        file.seek(end)
        file.truncate()
        # Not "a": it looks for the blocks that end an archive, which an interrupted write left out.
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name in names:
                if name not in kept:
                    notify(f"Writing {_top(name)}")
                    kept[name] = _add(tar, place / name, name)
            manifest.files.update(kept)
            # Last, so that its presence says that every file before it is complete.
            content = json.dumps({"format": _FORMAT} | asdict(manifest)).encode()
            info = tarfile.TarInfo(_MANIFEST)
            info.size, info.mode = len(content), 0o600
            tar.addfile(info, io.BytesIO(content))
        file.flush()
        # Before it gets its final name: after a power failure that must not stand for a part.
        os.fsync(file.fileno())
    return manifest


def read_manifest(archive: Path) -> Manifest:
    """The manifest of `archive`.

    Raises:
        BackupError: it is no backup, an interrupted one, or one of a newer malearn.
    """
    content = b""
    try:
        with tarfile.open(archive, "r:") as tar:
            # A tar archive has no index: the list is found by going through all headers.
            for member in tar:
                if member.name == _MANIFEST and (found := tar.extractfile(member)):
                    content = found.read()
    except FileNotFoundError:
        raise BackupError(archive, "does not exist") from None
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(archive, f"is no backup, or cut ({error})") from error
    except OSError as error:
        raise BackupError(archive, f"cannot be read ({error.strerror})") from error
    if not content:
        raise BackupError(archive, "is no backup, or one whose writing was interrupted")
    return _parse(archive, content)


def _parse(archive: Path, content: bytes) -> Manifest:
    try:
        said = json.loads(content)
        number = said.pop("format")
        if number > _FORMAT:
            problem = f"is a backup of malearn {said['malearn']}; install that or a newer one"
            raise BackupError(archive, problem)
        manifest = msgspec.convert(said, Manifest)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupError(archive, "is damaged: its list of files cannot be read") from error
    # A path of a crafted archive must not lead out of the home into which it is restored.
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BackupError(archive, f"names a file outside of a home ({name})")
    return manifest


def read_files(archive: Path, manifest: Manifest) -> Iterator[tuple[str, IO[bytes]]]:
    """Each file of `manifest` with its open content, in the order of `archive`.

    Raises:
        BackupError: a file is missing.
    """
    missing = set(manifest.files)
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            # Only regular files that are listed: not the links and devices of a crafted archive.
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None and member.name in missing:
                missing.discard(member.name)
                yield member.name, content
    if missing:
        raise BackupError(archive, f"is damaged: {min(missing)} is missing")


def verify(archive: Path, notify: Notify) -> None:
    """Read `archive` back, and compare every file with its digest.

    Raises:
        BackupError: one differs.
    """
    manifest = read_manifest(archive)
    for name, content in read_files(archive, manifest):
        notify(f"Verifying {_top(name)}")
        if digest(content) != manifest.files[name]:
            raise BackupError(archive, f"is damaged: {name} is not what was written")


def digest(content: IO[bytes]) -> Entry:
    """Size and digest of what is left to read of `content`."""
    found, size = hashlib.sha256(), 0
    while chunk := content.read(_CHUNK):
        found.update(chunk)
        size += len(chunk)
    return Entry(size, found.hexdigest())


def _top(name: str) -> str:
    """What a person reads of the thousands of names."""
    return name.partition("/")[0]


def _add(tar: tarfile.TarFile, path: Path, name: str) -> Entry:
    """Append the file at `path`, as long as it is now: others may append to it meanwhile."""
    with path.open("rb") as file:
        info = tar.gettarinfo(fileobj=file, arcname=name)
        info.type, info.linkname = tarfile.REGTYPE, ""  # of two links, both in full
        # Numbers and names of users mean nothing on the machine where it is restored.
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        copied = _Digesting(file)
        tar.addfile(info, copied)
        return Entry(info.size, copied.hash.hexdigest())


class _Digesting(io.RawIOBase):
    """A file that keeps the digest of what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self.hash.update(chunk)
        return chunk


def _whole_members(file: IO[bytes], place: Path) -> tuple[dict[str, Entry], int]:
    """The members at the beginning of `file` that are as in `place`, and where the last ends."""
    size, end = file.seek(0, os.SEEK_END), 0
    kept: dict[str, Entry] = {}
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                source = place / member.name
                # tar pads each member to blocks of 512 bytes; the division rounds up.
                whole = member.offset_data + -(-member.size // 512) * 512
                if not source.is_file() or source.stat().st_size != member.size or whole > size:
                    break
                content = tar.extractfile(member)
                assert content is not None
                found = digest(content)
                # Of the right length is not enough: a disk that filled leaves zeros.
                with source.open("rb") as original:
                    if digest(original) != found:
                        break
                kept[member.name], end = found, whole
    except tarfile.TarError:
        pass  # empty, or cut within a header
    return kept, end
