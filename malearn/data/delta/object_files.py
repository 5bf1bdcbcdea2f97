"""Single files in object storage, such as reports, by the settings that tables are read with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

from malearn.data import storage
from malearn.data.storage import ObjectFolder

__all__ = ["delete", "names", "write"]


def write(folder: ObjectFolder, name: str, content: bytes) -> None:
    """Write `content` to `name` in `folder`. Raises `Unreachable`."""

    def put(files: DeltaStorageHandler) -> None:
        # The public method hands a pyarrow buffer on, which deltalake 1.6 does not take.
        stream: Any = files._handler.open_output_stream(name, None)
        stream.write(content)
        stream.close()

    _answering(folder, put)


def names(folder: ObjectFolder) -> dict[str, float]:
    """The names of the files in `folder`, and when each was written, seconds since the epoch."""
    from pyarrow.fs import FileSelector

    def listed(files: DeltaStorageHandler) -> dict[str, float]:
        # Before the first report is written there is no such prefix.
        selector = FileSelector("", allow_not_found=True)
        found = files.get_file_info_selector(selector)
        return {one.path: one.mtime.timestamp() for one in found if one.is_file}

    return _answering(folder, listed)


def delete(folder: ObjectFolder, name: str) -> None:
    """Delete `name` in `folder`."""
    _answering(folder, lambda files: files.delete_file(name))


_T = TypeVar("_T")


def _answering(folder: ObjectFolder, action: Callable[[DeltaStorageHandler], _T]) -> _T:
    try:
        return action(DeltaStorageHandler(folder.url))
    except (DeltaError, OSError) as error:
        raise storage.unreachable(folder, error) from error
