"""What `malearn predict` says to a person who names what is not there. No server is started
by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from malearn import DAGTaskPredictor
from malearn.data.dataset import Dataset
from malearn.flows.commands import app, predict
from malearn.kernel import tool_types
from malearn.kernel.home import Home
from malearn.kernel.records import Execution


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


def test_what_redis_has_forgotten_is_known_from_the_datasets(tmp_path: Path) -> None:
    home, name, nobody = Home(tmp_path), "llm_process", "redis://127.0.0.1:1"
    known = tool_types.declared()[name]
    nothing = (float("nan"),) * len(known.features)
    executions = [
        Execution(
            f"{n:036d}-step_{name}", f"step_{name}", name, 1e9 + n, 1e9 + n + 40.0, nothing, nothing
        )
        for n in range(3)
    ]
    Dataset.open(home, known).append(executions)
    task = predict.Task.parse(home, f"step_{name}", [], [], "gpu")
    with DAGTaskPredictor(nobody, "http://127.0.0.1:1", cache_dir=tmp_path / "cache") as one:
        predict.remember(one, home, task)
        assert one.predict(f"step_{name}", "gpu", []) == pytest.approx(40.0)


def test_a_predecessor_without_a_record_is_named(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    redis_client.set("result:there", "{}")
    home, words = Home(tmp_path), ("step_llm_process", [])
    predict.note_missing(redis_url, predict.Task.parse(home, *words, ["there", "nope"], "gpu"))
    assert "malearn: Redis holds no record of nope: the answer is" in capsys.readouterr().err
    for known in ([], ["there"]):
        predict.note_missing(redis_url, predict.Task.parse(home, *words, known, "gpu"))
    assert capsys.readouterr().err == ""
