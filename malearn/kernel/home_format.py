"""The format of a home: a number that a newer malearn raises, and an older one refuses by name.

It stands in `<home>/.malearn/format.json` beside the version that wrote it. A home without that
file is one of 0.1.0, or one in which nothing is yet: format 1.
"""

from __future__ import annotations

import json
from pathlib import Path

from malearn.kernel.errors import HomeTooNew, InputError

__all__ = ["FORMAT", "check", "read", "write"]

#: What this version of malearn reads and writes. 1: 0.1.0. 2: files for their owner alone.
FORMAT = 2

_FILE = Path(".malearn", "format.json")


def check(root: Path) -> None:
    """Raise `HomeTooNew` if a newer malearn made the home at `root` its own."""
    number, version = _read(root)
    if number > FORMAT:
        raise HomeTooNew(root, number, version, FORMAT)


def read(root: Path) -> int:
    """The format of the home at `root`."""
    return _read(root)[0]


def write(root: Path, version: str) -> None:
    """Note that the home at `root` has this format, as of malearn `version`; the directory
    `.malearn` must be there.
    """
    fresh = root / _FILE.with_suffix(".new")
    # Private before anything is in it, and put in place whole: a crash leaves the old one.
    fresh.touch(0o600)
    fresh.write_text(json.dumps({"format": FORMAT, "malearn": version}) + "\n", "utf-8")
    fresh.replace(root / _FILE)


def _read(root: Path) -> tuple[int, str]:
    file = root / _FILE
    try:
        content = json.loads(file.read_bytes())
        return int(content["format"]), str(content["malearn"])
    except (FileNotFoundError, NotADirectoryError):
        return 1, "0.1.0"
    except PermissionError:
        return 1, ""  # another user's home: whoever touches its files will say so
    except (ValueError, TypeError, KeyError):
        raise InputError(
            file, "is not what malearn wrote; restore it from a backup of the home"
        ) from None
