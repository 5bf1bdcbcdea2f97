"""The command line `malearn`: one module per group of subcommands, each thin over the library.

Modules of the library are imported within the commands that need them: `--help` must not wait
seconds for Prefect and MLflow, and Prefect reads its server's address when it is imported.

Results go to stdout, as JSON alone under `--json`; progress and errors to stderr. Exit
status 0: done; 1: refused or failed, with the reason in one sentence; 2: wrong usage.
"""

from malearn.flows.commands.app import app

__all__ = ["app"]
