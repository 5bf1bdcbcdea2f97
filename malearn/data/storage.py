"""Where datasets, rejections and reports are: below the home, or in object storage.

`$MALEARN_DATA` names an object store (`s3://bucket/folder`, `gs://…`, `az://…`) or a directory.
Its credentials and address are delta-rs's own variables, `AWS_ENDPOINT_URL` and so on.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from malearn.data import conditional_writes
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home

__all__ = ["DATA_SETTING", "Folder", "ObjectFolder", "root"]

DATA_SETTING = "MALEARN_DATA"
_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


@dataclass(frozen=True, slots=True)
class ObjectFolder:
    """A prefix of an object store, written as a folder is: `folder / "name"`."""

    url: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def __truediv__(self, name: str) -> ObjectFolder:
        return ObjectFolder(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url


#: A folder on this machine's disk, or in an object store.
Folder = Path | ObjectFolder


def root(home: Home) -> Folder:
    """The folder of the datasets of `home`.

    Raises `InputError` for an address that is of no object store, and for a store that would let
    two writers overwrite each other's commits.
    """
    given = (os.environ.get(DATA_SETTING) or "").rstrip("/")
    if not given:
        return home.data
    scheme = _URL.match(given)
    if scheme is None:
        # Absolute, because flows are run by workers with other working directories.
        return Path(given).absolute()
    if scheme[1].lower() not in _SCHEMES or "://" not in given:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise InputError(DATA_SETTING, f"must be a directory or begin with {known}, not '{given}'")
    # Only S3 is imitated by servers that may ignore conditions.
    if scheme[1].lower() in ("s3", "s3a"):
        conditional_writes.require(given, DATA_SETTING)
    return ObjectFolder(given)
