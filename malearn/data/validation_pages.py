"""The pages that validation leaves beside the datasets, wherever those are."""

from __future__ import annotations

from malearn.data import storage
from malearn.data.delta import object_files
from malearn.data.storage import Folder, ObjectFolder
from malearn.kernel.home import Home

__all__ = ["FOLDER", "delete", "write", "written"]

FOLDER = "_reports"


def write(home: Home, name: str, page: str) -> Folder:
    """Write `page`, HTML, under `name`; returns where it is."""
    folder = storage.root(home) / FOLDER
    if isinstance(folder, ObjectFolder):
        object_files.write(folder, name, page.encode())
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page, encoding="utf-8")
    return folder / name


def written(home: Home) -> dict[str, float]:
    """The names of all pages, and when each was written, in seconds since the epoch."""
    folder = storage.root(home) / FOLDER
    if isinstance(folder, ObjectFolder):
        found = object_files.names(folder)
        return {name: at for name, at in found.items() if name.startswith("validation-")}
    return {page.name: page.stat().st_mtime for page in folder.glob("validation-*.html")}


def delete(home: Home, name: str) -> None:
    """Delete a page."""
    folder = storage.root(home) / FOLDER
    if isinstance(folder, ObjectFolder):
        object_files.delete(folder, name)
    else:
        # Another maintenance may have deleted it since it was listed.
        (folder / name).unlink(missing_ok=True)
