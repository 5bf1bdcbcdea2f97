"""Progress of a command, on stderr: a line per finished step and a spinner for the current one."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

from rich.console import Console, Group
from rich.live import Live
from rich.status import Status
from rich.table import Table
from rich.text import Text

from malearn.flows.plain_console import PlainConsole
from malearn.kernel.errors import Unreachable

__all__ = ["Progress", "StatusTable", "following", "progress"]

_WIDE = 160  # columns of a table where no terminal says how many there are
_COLOURS = {"up": "green", "given": "green", "down": "red"}


class Progress:
    """A line per finished step, and a moving one for the step in progress."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console, self._status = console, status
        self._shown = ""
        self._awaited: dict[str, None] = {}  # services that are starting, in order
        self._stopped = False

    def stop(self, number: int, frame: FrameType | None) -> NoReturn:
        """Handle Ctrl-C. If a library swallows it (scikit-learn's MLP does), the next step ends."""
        # Remembered, since the exception may be caught by whatever runs now.
        self._stopped = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed and a library swallowed it."""
        if self._stopped:
            raise KeyboardInterrupt

    def step(self, text: str) -> None:
        """Show what is being done now."""
        self.check()
        # Without a terminal each step is a line, and flows log the same one many times.
        if text == self._shown:
            return
        self._shown = text
        if self._status is not None:
            self._status.update(Text(text))
        else:
            self._print(Text(f"  {text}", "dim"))

    def done(self, text: str, seconds: float | None = None) -> None:
        """Print what has been done."""
        took = "" if seconds is None else f" ({seconds:.0f} s)"
        self._print(Text.assemble(("✓", "green"), f" {text}", (took, "dim")))

    def server(self, service: str, event: str, seconds: float) -> None:
        """For `Platform(on_event=…)`."""
        if event == "starting":
            self._awaited[service] = None
        elif event == "slow":
            self.step(f"{service} has not answered for {seconds:.0f} s; still waiting …")
        elif event in ("ready", "attached"):
            self._awaited.pop(service, None)
            if event == "attached":
                self.done(f"{service} was up already, and is used")
            else:
                self.done(f"{service} is up", seconds)
        if self._awaited and event != "slow" and self._status is not None:
            self.step(f"Starting {', '.join(self._awaited)} …")

    def _print(self, line: Text) -> None:
        # soft_wrap: the terminal wraps; rich would break file names and addresses at its own width.
        self._console.print(line, soft_wrap=True)


class StatusTable:
    """A table on stderr that is updated in place. Where stderr is not a terminal it is printed
    once, and messages follow below it, line by line.
    """

    def __init__(self, titles: Sequence[str], foot: str) -> None:
        self._titles, self._foot = titles, foot
        self._console = PlainConsole(stderr=True)
        if not self._console.is_terminal:
            self._console = PlainConsole(stderr=True, width=_WIDE)
        self._live: Live | None = None
        self._rows: tuple[Sequence[str], ...] = ()

    def say(self, sentence: str, style: str = "") -> None:
        """Print a line that stays; on a terminal, above the table."""
        self._console.print(Text(sentence, style), soft_wrap=True)

    def show(self, rows: Iterable[Sequence[str]]) -> None:
        """Update the table."""
        before, self._rows = self._rows, tuple(rows)
        if self._live is not None and self._rows != before:
            self._live.update(self._page(), refresh=True)
        elif self._live is None and not before:
            self._console.print(self._page(), soft_wrap=True)

    def __enter__(self) -> Self:
        # Elsewhere there is nothing to redraw; `show` prints the first table and no more.
        if self._console.is_terminal:
            # Drawn only when a row changes: a timer would cost a process that runs for months.
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _page(self) -> Group:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for title in self._titles:
            table.add_column(title, no_wrap=True)
        for row in self._rows:
            table.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in row))
        return Group(table, Text(self._foot))


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress on stderr: animated on a terminal, plain lines elsewhere."""
    # stdout is for results alone, which may be JSON.
    console = PlainConsole(stderr=True)
    animated = console.status("…") if console.is_terminal else nullcontext()
    with animated as status, _stopping(Progress(console, status)) as shown:
        yield shown


@contextmanager
def _stopping(shown: Progress) -> Iterator[Progress]:
    # Python allows signal handlers in the main thread only; tests run commands in others.
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
    """Show what our flows log; Prefect's own messages go to its server alone.

    Enter it once the server's address is in the environment, which Prefect
    reads when it is imported, and leave it while the server is still up: the
    last logs and events are sent on the way out. Raises `Unreachable` when
    that server goes away meanwhile, or is not Prefect's.
    """
    import httpx

    import_module("prefect.main")  # configures logging, so that our handler comes after it
    from prefect.events.worker import EventsWorker
    from prefect.exceptions import PrefectException
    from prefect.logging.handlers import APILogHandler

    handler = _FlowLogs(shown)
    # Those two carry what flows and tasks log; all others of Prefect are about itself.
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "API" not in str(error):
            raise  # Prefect raises the same class when the API is missing or older
        url = os.environ.get("PREFECT_API_URL", "")
        raise Unreachable("Prefect", url, "PREFECT_API_URL", type(error).__name__) from error
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        # Both send in the background; what is not sent before the server stops is lost.
        APILogHandler().flush()
        EventsWorker.drain_all(timeout=5)


class _FlowLogs(logging.Handler):
    """Shows what our own flows log, and nothing of Prefect's."""

    def __init__(self, shown: Progress) -> None:
        super().__init__(logging.INFO)
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        # Prefect logs through the same loggers; ours are told apart by the file that called.
        if Path(record.pathname).parent != Path(__file__).parent:
            return
        # Here, for it imports Prefect, which a command without flows does not need.
        from malearn.flows.progress import is_finished

        if is_finished(record):
            self._shown.done(record.getMessage())
        else:
            self._shown.step(record.getMessage())
