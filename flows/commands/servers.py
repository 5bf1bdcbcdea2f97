"""The servers that a command needs, attached to or started for as long as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from malearn.kernel.home import Home
    from malearn.platform import Platform

__all__ = ["running", "tracking"]


@contextmanager
def running(
    home: Home, *, redis: bool = False, mlflow: bool = True, prefect: bool = True
) -> Iterator[Platform]:
    """The platform of `home` with the servers asked for, progress shown on stderr."""
    from malearn import __version__
    from malearn.flows import console
    from malearn.operations.upgrade import upgrade
    from malearn.platform import Platform

    with console.progress() as shown:
        # Before any server opens a file of the home in the old format.
        upgrade(home, __version__, notify=shown.step)
        with (
            Platform(
                home, redis=redis, mlflow=mlflow, prefect=prefect, on_event=shown.server
            ) as platform,
            # Imports Prefect, which takes seconds and reads the address Platform has just set.
            console.following(shown) if prefect else nullcontext(),
        ):
            yield platform


@contextmanager
def tracking(home: Home) -> Iterator[None]:
    """The MLflow of `home`, with its client connected; no other server."""
    from malearn.lifecycle import mlflow_connection

    with (
        running(home, prefect=False) as platform,
        mlflow_connection.connected(platform.tracking_uri),
    ):
        yield
