"""What a person sees while a command works: lines on stderr, never on stdout."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.status import Status
from rich.text import Text

from malearn.errors import Unreachable

__all__ = ["Progress", "following", "progress"]


class Progress:
    """A line per finished step, and a moving one for the step in progress."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console, self._status = console, status
        self._shown = ""
        self._stopped = False

    def stop(self, number: int, frame: FrameType | None) -> NoReturn:
        """Ctrl-C. Where a library swallows it, as scikit-learn's MLP does, the next step ends."""
        self._stopped = True
        raise KeyboardInterrupt

    def step(self, text: str) -> None:
        """What is being done now."""
        if self._stopped:
            raise KeyboardInterrupt
        if text == self._shown:
            return
        self._shown = text
        if self._status is not None:
            self._status.update(Text(text))
        else:
            self._print(Text(f"  {text}", "dim"))

    def done(self, text: str, seconds: float | None = None) -> None:
        """What has been done."""
        took = "" if seconds is None else f" ({seconds:.0f} s)"
        self._print(Text.assemble(("✓", "green"), f" {text}", (took, "dim")))

    def server(self, service: str, event: str, seconds: float) -> None:
        """For `Platform(on_event=…)`."""
        if event == "starting" and self._status is not None:
            self.step(f"Starting {service} …")
        elif event == "ready":
            self.done(f"{service} is up", seconds)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress on stderr: animated on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    animated = console.status("…") if console.is_terminal else nullcontext()
    with animated as status, _stopping(Progress(console, status)) as shown:
        yield shown


@contextmanager
def _stopping(shown: Progress) -> Iterator[Progress]:
    if threading.current_thread() is not threading.main_thread():
        yield shown
        return
    before = signal.signal(signal.SIGINT, shown.stop)
    try:
        yield shown
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def following(shown: Progress) -> Iterator[None]:
    """Show what our flows log; what Prefect says of itself goes to its server alone.

    Enter it once the server's address is in the environment, which Prefect
    reads when it is imported, and leave it while the server is still up: the
    last logs and events are sent on the way out. Raises `Unreachable` when
    that server goes away meanwhile, or is none of Prefect's.
    """
    import httpx

    import_module("prefect.main")  # configures logging, so that our handler comes after it
    from prefect.events.worker import EventsWorker
    from prefect.exceptions import PrefectException
    from prefect.logging.handlers import APILogHandler

    handler = _FlowLogs(shown)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "API" not in str(error):
            raise  # Prefect says with the same class that there is no API, or an older one
        url = os.environ.get("PREFECT_API_URL", "")
        raise Unreachable("Prefect", url, "PREFECT_API_URL", type(error).__name__) from error
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        APILogHandler().flush()
        EventsWorker.drain_all(timeout=5)


class _FlowLogs(logging.Handler):
    """Passes on what our own flows log."""

    def __init__(self, shown: Progress) -> None:
        super().__init__(logging.INFO)
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        if Path(record.pathname).parent != Path(__file__).parent:
            return
        from flows.progress import is_finished

        if is_finished(record):
            self._shown.done(record.getMessage())
        else:
            self._shown.step(record.getMessage())
