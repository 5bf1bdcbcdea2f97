"""The flows, on a real Prefect, a real MLflow and a real Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

from malearn import DAGTaskPredictor
from malearn.data.dataset import Dataset
from malearn.kernel.errors import RegistryError, UnknownToolType, Unreachable
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import declared
from malearn.lifecycle import mlflow_connection, registry
from malearn.serving import stream_format
from tests.flows.conftest import Artifacts, Log

TOOL = "flow_process"
FUNCTION = f"task2_{TOOL}"
BY_HAND = "manual_process"
DECLARATION = "".join(
    f"""
[{name}]
resource = "cpu"
[{name}.features]
length = {{ min = 0, max = 100000, monotone = 1 }}
"""
    for name in (TOOL, BY_HAND)
)


@pytest.fixture
def only_ours(
    tmp_path: Path, tracking_uri: str, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Two tool types of this module's own, beside the shipped ones, and the servers."""
    file = tmp_path / "types.toml"
    file.write_text(DECLARATION)
    monkeypatch.setenv("MALEARN_TOOL_TYPES", str(file))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.delenv("MALEARN_REDIS_URL", raising=False)
    yield


@pytest.fixture
def some_log(log: Log) -> Path:
    """Eighty tasks whose time follows their length."""
    return log(80, FUNCTION, features=_length)


@pytest.fixture
def tags(prefect_api: str) -> Callable[[str], set[str]]:
    """The tags of the newest flow run of a name."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    def find(name: str) -> set[str]:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])),
                sort=FlowRunSort.START_TIME_DESC,
            )
        return set(runs[0].tags)

    return find


def test_a_damaged_dataset_stops_only_its_own_retraining(only_ours: None, home: Home) -> None:
    from malearn.flows import retrain

    types = declared()
    damaged, empty = (Dataset.open(home, types[name]) for name in (TOOL, BY_HAND))
    damaged.append([Execution("a", FUNCTION, TOOL, 0.0, 1.0, (1.0,), (1.0,))])
    (commit,) = (home.data / TOOL / "_delta_log").glob("*1.json")
    commit.write_bytes(b"")
    again = Dataset.open(home, types[TOOL])
    assert retrain.due([again, empty]) == [TOOL]
    assert list(retrain.without_executions([again, empty])) == [BY_HAND]


def test_a_whole_turn_of_the_lifecycle(
    only_ours: None,
    some_log: Path,
    home: Home,
    artifacts: Artifacts,
    tags: Callable[[str], set[str]],
) -> None:
    from malearn.flows.ingest import ingest
    from malearn.flows.lifecycle import lifecycle

    done = lifecycle([str(some_log)], str(home.root), trigger="a test")

    ours = done.outcomes[TOOL]
    assert done.ingested.tool_types[TOOL].accepted == ours.trained.rows == 80
    assert (ours.production, ours.family) == (1, ours.trained.family)
    assert all(reason.passed for reason in ours.reasons)
    assert {reason.check for reason in ours.reasons} >= {"rows", "pairwise accuracy", "onnx"}

    nothing = done.outcomes["speech_process"]
    assert (nothing.production, nothing.trained.version) == (None, None)
    assert "0 rows, as nothing of it was ingested yet" in nothing.why  # without a flow of its own

    (page,) = (home.data / "_reports").glob("validation-*.html")
    assert TOOL in page.read_text("utf-8")
    assert "80 accepted" in artifacts("validation-report")[0].data
    summary = artifacts("lifecycle")[0].data
    assert "# 160 records in, 80 accepted" in summary
    assert "- 80 rejected: `no_features`" in summary
    page = f"/#/models/malearn-{TOOL}/versions/1"
    assert f"| {TOOL} | 80 | 0 | 0 | [v1 {ours.family}](" in summary
    assert page in summary
    assert "**speech_process**\n\n- ✗ 0 rows" in summary
    rows = {
        row["predictor"]: row for row in json.loads(artifacts("candidates-flow-process")[0].data)
    }
    assert rows[ours.family]["is"] == "candidate, chosen"
    assert rows["function_median"]["is"] == "baseline"
    assert {"linear", "xgboost"} <= set(rows)
    words = artifacts("training-flow-process")[0].data
    assert f"# {TOOL}: version 1, {ours.family}, passes the gate" in words
    assert "Trigger: a test." in words
    assert page in words
    assert "/artifacts/key/validation-report" in words
    assert "- ✓ its ONNX file equals" in artifacts("promotion-flow-process")[0].data
    assert artifacts("progress-flow-process")[0].data == 100.0
    assert artifacts("progress-lifecycle")[0].data == 100.0
    assert {"a test", TOOL} <= tags(f"train {TOOL}")

    again = ingest([str(some_log)], str(home.root))
    assert again.rejected["duplicate"] == again.records == 160
    assert Dataset.open(home, declared()[TOOL]).rows == 80


def test_training_alone_promotes_nothing(
    only_ours: None, log: Log, home: Home, tracking_uri: str
) -> None:
    from malearn.flows.ingest import ingest
    from malearn.flows.promote import promote
    from malearn.flows.train import train

    file = log(80, BY_HAND, features=_length)
    ingest([str(file)], str(home.root))
    before = _production(tracking_uri)
    trained = train(BY_HAND, str(home.root), ["linear"])
    assert trained.version is not None
    assert _production(tracking_uri) == before

    promoted = promote(BY_HAND, trained.version, str(home.root), bypass_gate=True)
    assert promoted.promoted
    assert _production(tracking_uri) == trained.version

    with pytest.raises(RegistryError, match=f"malearn-{BY_HAND}: there is no version 9999"):
        promote(BY_HAND, 9999, str(home.root))


def test_what_goes_wrong_keeps_its_own_error_and_is_told_in_one_sentence(
    only_ours: None,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Callable[[str], list[Any]],
) -> None:
    from malearn.flows.train import train

    with pytest.raises(UnknownToolType, match="There is no tool type 'nonsense'"):
        train("nonsense", str(home.root))
    told = artifacts("failure")[0]
    assert told.data.startswith("**train nonsense** failed: There is no tool type 'nonsense'")
    assert told.flow_run_id is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"MLflow at .* cannot be reached"):
        train(TOOL, str(home.root))


def test_a_scheduler_that_starts_after_an_import_knows_what_was_imported(
    only_ours: None,
    some_log: Path,
    home: Home,
    redis_url: str,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from malearn.flows.ingest import ingest

    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    ingest([str(some_log)], str(home.root))
    key = stream_format.HISTORY + FUNCTION
    memos: Any = redis_client.lrange(key, 0, -1)
    seen = [json.loads(memo) for memo in memos]
    newest = sorted((e.end for e in Dataset.open(home, declared()[TOOL]).read()), reverse=True)
    assert [entry["end"] for entry in seen] == newest[: stream_format.REMEMBERED]

    ingest([str(some_log)], str(home.root))
    assert redis_client.lrange(key, 0, -1) == memos

    with DAGTaskPredictor(redis_url, "http://127.0.0.1:1", cache_dir=home.cache) as predictor:
        predictor.wait_until_ready(120)
        assert predictor.estimate(FUNCTION, "cpu").source == "function_history"


def test_what_a_scheduler_remembered_itself_stays(
    only_ours: None,
    some_log: Path,
    home: Home,
    redis_url: str,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reported a later task, and one that is in the log too."""
    from malearn.flows.ingest import ingest

    ingest([str(some_log)], str(home.root))
    newest = Dataset.open(home, declared()[TOOL]).read()[-1]
    record = {"start_time": newest.start, "end_time": newest.end}
    record |= {"curr_task_feat": {"length": newest.ran[0]}}
    later = record | {"start_time": newest.end, "end_time": newest.end + 1.0}
    with DAGTaskPredictor(redis_url, "http://127.0.0.1:1", cache_dir=home.cache) as predictor:
        predictor.collect_data_for_task(newest.task_id, FUNCTION, record)
        predictor.collect_data_for_task(f"{newest.task_id[:36]}-later", FUNCTION, later)
    before: Any = redis_client.lrange(stream_format.HISTORY + FUNCTION, 0, -1)

    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    other = Home(home.root / "other")
    ingest([str(some_log)], str(other.root))
    after: Any = redis_client.lrange(stream_format.HISTORY + FUNCTION, 0, -1)
    assert (len(before), len(after)) == (2, stream_format.REMEMBERED)
    assert set(before) <= set(after)
    assert len(set(after)) == len(after)


def test_a_redis_that_does_not_answer_does_not_undo_an_import(
    only_ours: None, some_log: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from malearn.flows.ingest import ingest

    monkeypatch.setenv("MALEARN_REDIS_URL", "redis://127.0.0.1:1")
    assert ingest([str(some_log)], str(home.root)).tool_types[TOOL].accepted == 80


def _length(dice: Random) -> dict[str, Any]:
    return {"length": dice.randint(100, 5000)}


def _production(tracking_uri: str) -> int | None:

    mlflow_connection.connect(tracking_uri)
    found = registry.by_alias(declared()[BY_HAND], registry.PRODUCTION)
    return found.number if found else None
