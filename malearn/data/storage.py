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
from malearn.kernel.errors import InputError, Unreachable
from malearn.kernel.home import Home

__all__ = ["DATA_SETTING", "Folder", "ObjectFolder", "root", "unreachable"]

DATA_SETTING = "MALEARN_DATA"
_AMAZON = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_GOOGLE = "GOOGLE_SERVICE_ACCOUNT"
_AZURE = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
#: The variables that commonly hold credentials, by the scheme of an address.
_CREDENTIALS = {
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "gs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
# What delta-rs draws between an error and its causes, a line each, and how it begins the first.
_DRAWN = re.compile(r"\x1b\[[0-9;]*m|↳|^Kernel error -> ")


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
    if scheme[1].lower() not in _CREDENTIALS or "://" not in given:
        known = ", ".join(f"{name}://" for name in _CREDENTIALS)
        raise InputError(DATA_SETTING, f"must be a directory or begin with {known}, not '{given}'")
    # Only S3 is imitated by servers that may ignore conditions.
    if scheme[1].lower() in ("s3", "s3a"):
        conditional_writes.require(given, DATA_SETTING)
    return ObjectFolder(given)


def unreachable(folder: ObjectFolder, error: Exception) -> Unreachable:
    """What to tell people of an `error` of delta-rs at `folder`."""
    lines = (_DRAWN.sub("", line).strip() for line in str(error).splitlines())
    # The causes behind the first name addresses and attempts that help nobody.
    cause = ": ".join([line for line in lines if line][:2]) or type(error).__name__
    return Unreachable(
        "Object storage",
        folder.url,
        DATA_SETTING,
        cause,
        f"check its credentials ({_CREDENTIALS[folder.url.partition('://')[0].lower()]}), "
        f"and the address in {DATA_SETTING}",
    )
