"""`malearn backup` and `malearn restore`: a home in one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malearn.flows.commands import output
from malearn.flows.commands.options import HomeOption, JsonOption
from malearn.kernel import text
from malearn.kernel.home import Home

if TYPE_CHECKING:
    from malearn.operations.archive import Manifest

__all__ = ["backup", "restore"]


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup to write, a tar file.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a home to one file while it runs, and verify it.

    Datasets, models, MLflow's and Prefect's databases, Redis and passwords. Interrupted, the same
    command continues.
    """
    from malearn import __version__
    from malearn.flows import console
    from malearn.operations import backup as backups

    with console.progress() as shown:
        done = backups.backup(Home.find(home), file, __version__, shown.step)
    for sentence in done.left_out:
        output.note(sentence)
    value = _described(file, done)
    written = f"{text.counted(len(done.files), 'file')}, {done.size / 1e6:,.1f} MB"
    shown_as = f"Wrote {written}, to {file}; verified."
    output.result(value, as_json, lambda: typer.echo(shown_as))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into an empty home; verify every file first.

    Nothing is overwritten. Interrupted, the same command continues.
    """
    from malearn.flows import console
    from malearn.operations import restore as restoring

    place = Home.find(home)
    with console.progress() as shown:
        done = restoring.restore(file, place, shown.step)
    restored = f"{text.counted(len(done.files), 'file')}, {done.size / 1e6:,.1f} MB"
    shown_as = f"Restored {restored}, to {place.root}."
    output.result(_described(file, done), as_json, lambda: typer.echo(shown_as))


def _described(file: Path, manifest: Manifest) -> dict[str, Any]:
    from datetime import UTC, datetime

    return {
        "file": str(file),
        "files": len(manifest.files),
        "bytes": manifest.size,
        "taken": datetime.fromtimestamp(manifest.taken, UTC).isoformat(timespec="seconds"),
        "malearn": manifest.malearn,
        "home_format": manifest.home_format,
        "left_out": manifest.left_out,
    }
