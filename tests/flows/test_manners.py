"""The manners of the command line: help, version, completion."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from malearn import __version__
from malearn.flows.commands import app


def commands(group: Any, *words: str) -> list[tuple[str, ...]]:
    found = [words]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, *words, name)
    return found


def test_h_shows_help_of_every_command_in_80_columns_and_plain_words() -> None:
    every = commands(typer.main.get_command(app))
    assert len(every) > 20
    for words in every:
        done = CliRunner().invoke(app, [*words, "-h"], terminal_width=80)
        assert done.exit_code == 0, words
        assert [line for line in done.stdout.splitlines() if len(line) > 80] == [], words
        assert not re.search(r"\[\[|\[\]|<str>|\bTEXT\b|\bINTEGER\b", done.stdout), words


def test_python_m_malearn_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "malearn", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"malearn {__version__}\n"


def test_a_shell_completes_commands() -> None:
    malearn = Path(sys.executable).with_name("malearn")
    asked = {"_MALEARN_COMPLETE": "complete_bash", "COMP_WORDS": "malearn ba", "COMP_CWORD": "1"}
    done = subprocess.run([malearn], env=asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["backup"]
