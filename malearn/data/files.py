"""Files of records: opened for reading bytes, unpacked where they are gzipped."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from malearn.kernel.errors import InputError

__all__ = ["cause", "opened"]


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of `path`, unpacked. Raises `InputError` where it cannot be opened."""
    try:
        with path.open("rb") as file:
            # By content (RFC 1952), not by name: rotated logs lose or keep their suffix.
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                with gzip.open(file) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            else:
                yield file
    except FileNotFoundError:
        raise InputError(path, "does not exist") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})") from error


def cause(error: Exception) -> str:
    """The message of `error`, or its type's name where it has none; no full stop."""
    return (str(error).strip() or type(error).__name__).rstrip(".")
