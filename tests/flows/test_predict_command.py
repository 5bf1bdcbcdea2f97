"""What `malearn predict` says to a person who names what is not there. No server is started."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from malearn.flows.commands import app


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-f", "text_lenght=3"), "has no feature 'text_lenght'; did you mean 'text_length'?"),
        (("-f", "zzz=3"), "has no feature 'zzz'; it has text_length, token_count, batch_size,"),
        (("-f", "text_length=-1"), "text_length must be between 0 and 1,000,000 characters,"),
        (("-f", "text_length=nan"), "text_length must be a finite number, not 'nan'"),
        (("-f", "text_length=long"), "text_length must be a finite number, not 'long'"),
        (("-f", "text_length"), "'text_length' is not NAME=VALUE"),
        (("-f", "reason=1", "-f", "reason=0"), "'reason' is given twice"),
        (("--resource", "gpuu"), "is not a resource (gpu, cpu, io); did you mean 'gpu'?"),
    ],
)
def test_what_a_scheduler_would_pass_over_is_named(words: tuple[str, ...], sentence: str) -> None:
    done = CliRunner().invoke(app, ["predict", "task1_llm_process", *words])
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
