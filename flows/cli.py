"""The entry point of the `malearn` command, which names `malearn[lifecycle]` if it is missing."""

from __future__ import annotations

import os
import sys

from malearn.flows import terminal
from malearn.platform import private

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    # os.umask tells the old mask only by setting another. The user's own bits stay.
    os.umask(os.umask(0) | private.UMASK)  # what it writes into a home is its owner's alone
    terminal.accept_any_text()
    # Failures are one sentence of ours on stderr; what Prefect logs is kept by its server.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    try:
        # Within the `try`: this import is what fails where the extra is not installed.
        from malearn.flows.commands import app

        app()
    except ModuleNotFoundError as missing:
        sys.stderr.write(
            f"malearn: this command needs {missing.name}, which malearn[lifecycle] brings; "
            "pip install 'malearn[lifecycle]'.\n"
        )
        sys.exit(1)
