"""The Typer application: the table of all subcommands, and how their errors are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from malearn.flows.commands import (
    backup,
    compare,
    data,
    doctor,
    evaluate,
    explain,
    ingest,
    models,
    monitor,
    output,
    predict,
    run,
    serve,
    simulate,
    tuned,
    up,
    workflows,
)
from malearn.flows.commands.command import Command
from malearn.kernel import names
from malearn.kernel.errors import InputError, MalearnError
from malearn.kernel.reading import stream_entries

__all__ = ["app"]


class _Commands(TyperGroup):
    """The group of all commands: an error is one sentence on stderr, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MalearnError as error:
            output.fail(error)
        except KeyboardInterrupt:
            output.note("stopped")
            raise SystemExit(130) from None  # 128 + SIGINT, as a shell expects
        except BrokenPipeError:  # whoever read our output has gone
            # Python flushes stdout once more at exit, which would raise again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            # 1, not 0: what was asked for has not been shown in full.
            raise SystemExit(1) from None
        # What the library did not foresee, such as a full disk: still a sentence, not a traceback.
        except OSError as error:
            output.fail(InputError(error.filename or "The system", error.strerror or str(error)))


app = typer.Typer(
    name="malearn",
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # What is a bug of ours keeps Python's plain traceback, which reads the same in a log.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: fits 80 columns, and reads the same in a log
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from malearn import __version__

        typer.echo(f"malearn {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Predict how many seconds a task will take, learnt from a scheduler's own logs."""
    # Before anything starts, whichever command reads them: a mistyped variable is no default.
    names.Names.find()
    names.stream_count()
    stream_entries.length_limit()


# One table, so that the order of `malearn --help` is in one place.
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "ingest": ingest.ingest,
    "train": models.train,
    "tuned": tuned.tuned,
    "promote": models.promote,
    "rollback": models.rollback,
    "monitor": monitor.monitor,
    "status": monitor.status,
    "eta": workflows.eta,
    "predict": predict.predict,
    "explain": explain.explain,
    "compare": compare.compare,
    "evaluate": evaluate.evaluate,
    "simulate": simulate.simulate,
    "serve": serve.serve,
    "doctor": doctor.doctor,
    "backup": backup.backup,
    "restore": backup.restore,
    "up": up.up,
}
for _name, _function in _COMMANDS.items():
    app.command(_name, cls=Command)(_function)
app.add_typer(data.data, name="data")
