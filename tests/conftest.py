"""What tests share: real servers, started when first asked for, and an environment of their own.

`redis_url`, `tracking_uri` and `prefect_api` last the whole session, each on a home of its own
whose path has a space, a `?` and a `#` in it. MLflow and Prefect are started once for all workers
of pytest-xdist, Redis once in each. Nothing reads or writes the user's settings or servers.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import HealthCheck, settings

from malearn.data import run_logs
from malearn.kernel import tool_types
from malearn.kernel.home import Home
from malearn.kernel.reading import joining
from malearn.kernel.records import Execution
from malearn.platform import EmbeddedRedis, MLflowServer, PrefectServer
from malearn.platform.environment import QUIET

if TYPE_CHECKING:
    from tests.redis_cluster import Cluster

ROOT = Path(__file__).parents[1]
TRACES = "MALEARN_TRACES"
#: What a person says to the tests themselves: where real logs are, and where to put screenshots.
KEPT = (TRACES, "MALEARN_PICTURES")
#: This worker of pytest-xdist; also a tag of every flow run that it starts.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
#: The files that take longest, longest first. Whole files go to one worker, so these must not be
#: what is left at the end.
LONGEST = (
    "flows/test_up.py",
    "flows/test_a_day.py",
    "flows/test_monitor.py",
    "test_end_to_end.py",
    "test_data_scientists.py",
    "flows/test_custom_tool_type.py",
    "flows/test_bad_input.py",
    "flows/test_two_at_once.py",
    "malearn/lifecycle/test_training.py",
    "flows/test_flows.py",
    "malearn/lifecycle/test_experiments.py",
    "flows/test_platform_commands.py",
    "test_notebook.py",
    "browser/test_pages.py",
    "malearn/data/test_ingest.py",
    "malearn/test_workload.py",
    "flows/test_maintain.py",
    "flows/test_task_runner.py",
    "flows/test_evolution.py",
    "malearn/test_tour.py",
    "test_old_homes.py",
    "test_laws.py",
    "expectations/test_validation.py",
    "deploy/test_kit.py",
    "flows/test_watch.py",
    "serving/test_faults.py",
    "malearn/platform/test_platform.py",
    "test_packaging.py",
    "test_docs.py",
    "test_soak.py",
    "malearn/lifecycle/test_promotion.py",
    "test_original.py",
    "malearn/data/test_maintenance.py",
)

# Generated examples are the same in every run, and none is late on a busy machine. To look for new
# ones: --hypothesis-profile=random.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("random", _PATIENT)
settings.register_profile("suite", _PATIENT, derandomize=True)
settings.load_profile("suite")


def _settings() -> dict[str, str]:
    """What the environment says of malearn and of its servers."""
    ours = ("MALEARN_", "MLFLOW_", "PREFECT_")
    return {k: v for k, v in os.environ.items() if k.startswith(ours) and k not in KEPT}


def pytest_configure(config: pytest.Config) -> None:
    """Before any library reads its settings: forget the user's, and be quiet."""
    scratch = TemporaryDirectory(prefix="malearn-prefect-", ignore_cleanup_errors=True)
    config.add_cleanup(scratch.cleanup)
    for name in _settings():
        del os.environ[name]
    os.environ |= QUIET | {
        "MPLBACKEND": "Agg",
        "PREFECT_HOME": scratch.name,
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which what we start inherits


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    places = {str(ROOT / "tests" / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))


@pytest.fixture(scope="session")
def for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that this session's workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if WORKER != "alone" else own


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis, empty at the start of every test that asks for it."""
    with EmbeddedRedis(Home(tmp_path_factory.mktemp("redis home? #1", numbered=False))) as server:
        yield server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def _redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from tests.redis_cluster import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def redis_cluster(_redis_cluster: Cluster) -> Cluster:
    """A real Redis Cluster of three nodes, all of them up and empty at the start of a test."""
    _redis_cluster.flush()
    return _redis_cluster


@pytest.fixture(autouse=True)
def _settings_of_one_test() -> Iterator[None]:
    """What a test sets is gone after it, what MLflow's client sets included.

    Servers that last longer are set up before this.
    """
    before = _settings()
    yield
    after = _settings()
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _flushed_redis(request: pytest.FixtureRequest) -> None:
    if "redis_url" in request.fixturenames:
        with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
            client.flushall()


@pytest.fixture(scope="session")
def tracking_uri(for_all_workers: Path) -> Iterator[str]:
    """A real MLflow server; tests keep apart by naming their experiments and models."""
    with MLflowServer(Home(for_all_workers / "mlflow home? #1")) as server:
        yield server.url


@pytest.fixture(scope="session")
def prefect_api(for_all_workers: Path) -> Iterator[str]:
    """A real Prefect server, which flows of this and of child processes report to."""
    home = Home(for_all_workers / "prefect home? #1")
    with PrefectServer(home) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", server.url)
        patch.setenv("PREFECT_API_AUTH_STRING", server.login())
        from prefect import tags
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        login = {PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: server.login()}
        with temporary_settings(login), tags(WORKER):  # it may be imported already
            yield server.url


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home where nothing is yet."""
    return Home(tmp_path / "a home")


@pytest.fixture(scope="session")
def traces() -> Path:
    """The real execution logs, kept beside the repository."""
    place = Path(os.environ.get(TRACES) or ROOT.parent / "shared" / "traces")
    if not place.is_dir():
        pytest.skip(f"no traces at {place}; point {TRACES} at them")
    return place


@pytest.fixture(scope="session")
def maze(traces: Path) -> list[Execution]:
    """Every execution in the real logs of Maze, run by run."""
    executions: list[Execution] = []
    for batch in run_logs.read(sorted((traces / "maze").glob("run*.jsonl"))):
        read = (one for one in batch if not isinstance(one, Execution))
        executions += joining.join(read, tool_types.declared())[0]
    return executions


@pytest.fixture(scope="session")
def maze_run() -> Callable[..., None]:
    """Writes a run of two tasks, of which the second may fail, into a Maze store."""
    return _write_maze_run


def _write_maze_run(store: Path, number: int, *, fails: bool = False) -> None:
    answer = {"text_length": 500, "token_count": 125, "reason": 1}
    run = f"{number:08d}-f37a-4a88-8eb1-074882395c8b"
    start = 1_795_738_445.0 + 20.0 * number
    said = {"task2_llm_process_qwen": answer}
    nodes = {
        "task_a": {"task_name": "read_pages", "task_kind": "cpu", "parents": []},
        "task_b": {
            "task_name": "task2_llm_process_qwen",
            "task_kind": "gpu",
            "parents": ["task_a"],
        },
    }
    events = [
        {"task_id": "task_a", "started_at": start, "finished_at": start + 1.0}
        | {"result": {"succ_task_feat": said}},
        {"task_id": "task_b", "started_at": start + 2.0, "finished_at": start + 6.0 + number % 3}
        | {"result": {"curr_task_feat": answer}},
    ]
    folder = store / "static_runs" / run
    folder.mkdir(parents=True)
    described = {"run_id": run, "status": "failed" if fails else "succeeded", "task_nodes": nodes}
    (folder / "run.json").write_text(json.dumps(described | {"created_time": start}))
    lines = [json.dumps({"type": "finish_task", "data": data}) for data in events]
    (folder / "events.jsonl").write_text("\n".join(lines[: 1 if fails else 2]) + "\n")
