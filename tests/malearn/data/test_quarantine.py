"""What was kept out can be looked at and, once its cause is mended, let in: each record once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from malearn.data import outliers, quarantine
from malearn.data.ingest import Ingest
from malearn.data.quarantine import QuarantineFilter, RetryReport
from malearn.kernel.home import Home
from malearn.kernel.reading import stream_entries
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes, declared, parse

TYPES = declared()
FILM = parse(
    '[film]\nfunctions = ["cut_film"]\n[film.features.frames]\nmin = 0\nmax = 100', "films"
)
WITH_FILM = ToolTypes([*TYPES.values(), *FILM])


@dataclass(frozen=True)
class Verdict:
    accepted: list[Execution]
    quarantined: list[Rejected]


def at_most(seconds: float, tool_type: ToolType, executions: Sequence[Execution]) -> Verdict:
    """A contract: nothing takes longer than `seconds`."""
    long = [e for e in executions if e.seconds > seconds]
    detail = f"seconds is {{}}, not at most {seconds:g}"
    return Verdict(
        [e for e in executions if e.seconds <= seconds],
        [
            Rejected(e.task_id, e.function, RejectReason.INVALID_FEATURE, detail.format(e.seconds))
            for e in long
        ],
    )


def ingest(home: Home, types: ToolTypes = TYPES, longest: float = 1e9) -> Ingest:
    return Ingest(home, types, partial(at_most, longest))


def record(number: int, function: str, seconds: float = 5.0, **changes: object) -> Record:
    task_id, start = f"{UUID(int=number)}-{function}", 1000.0 * (1 + number)
    features = {"text_length": 7, "duration": 7, "frames": 7}
    fields = {"task_id": task_id, "function": function, "start": start, "end": start + seconds}
    return Record(**{**fields, "features": features, **changes})  # type: ignore[arg-type]


def retry(ingestion: Ingest, size: int = 50_000, **which: object) -> RetryReport:
    chosen = QuarantineFilter(ingestion.tool_types, **which)  # type: ignore[arg-type]
    return sum(quarantine.retry(ingestion, chosen, size), RetryReport())


def test_an_overview_counts_reasons_and_expectations_and_shows_the_newest(home: Home) -> None:
    ingestion = ingest(home, longest=10.0)
    for number, seconds in enumerate((5.0, 11.0, 12.0)):
        ingestion.take([record(number, "llm_process", seconds)], "test")
    ingestion.take(
        [record(8, "cut_film"), Rejected("", "", RejectReason.INVALID_JSON, "line 3")], "test"
    )

    everything = quarantine.overview(ingestion.rejections, QuarantineFilter(TYPES), limit=2)
    assert everything.count == 4
    most = everything.groups[0]
    assert (most.reason, most.count) == (RejectReason.INVALID_FEATURE, 2)
    assert most.by == {"seconds is not at most 10": 2}
    assert {g.reason: g.by for g in everything.groups}[RejectReason.UNMAPPED_FUNCTION] == {
        "cut_film": 1
    }
    assert len(everything.newest) == 2

    ours = quarantine.overview(
        ingestion.rejections, QuarantineFilter(TYPES, "llm_process"), limit=1
    )
    assert (ours.count, len(ours.groups)) == (2, 1)
    assert ours.newest[0].rejected.detail == "seconds is 12.0, not at most 10"
    assert quarantine.overview(ingestion.rejections, QuarantineFilter(WITH_FILM, "film")).count == 1


def test_a_new_declaration_lets_in_what_nobody_claimed(home: Home) -> None:
    """With what its predecessor, in quarantine too, said of it."""
    said = {"cut_film": {"frames": 90}}
    first = record(1, "load", features={}, successors=said, start=1990.0, end=1995.0)
    ingest(home).take([first, record(1, "cut_film")], "test")

    ingestion = ingest(home, WITH_FILM)
    done = retry(ingestion, tool_type="film")
    assert done == RetryReport(retried=1, accepted={"film": 1})
    (execution,) = ingestion.datasets["film"].read()
    assert (execution.serve, execution.ran) == ((90.0,), (7.0,))
    assert {r.rejected.function for r in ingestion.rejections.read()} == {"load"}

    assert retry(ingestion, tool_type="film") == RetryReport()
    again = ingestion.take([first, record(1, "cut_film")], "test")
    assert again.rejected == {"duplicate": 2}
    assert ingestion.datasets["film"].rows == 1


def test_what_came_by_the_stream_keeps_what_was_known_of_it_beforehand(home: Home) -> None:
    task = {"task_id": f"{UUID(int=4)}-cut_film", "start": 1.0, "end": 2.0}
    entry = json.dumps({**task, "serve": {"frames": 8}, "ran": {"frames": 9}})
    ingest(home).take([stream_entries.read(entry, TYPES)], stream_entries.STREAM)
    ingestion = ingest(home, WITH_FILM)
    assert retry(ingestion).accepted == {"film": 1}
    (execution,) = ingestion.datasets["film"].read()
    assert (execution.serve, execution.ran) == ((8.0,), (9.0,))


def test_after_a_fix_the_good_go_in_and_the_bad_stay_with_their_new_reason(home: Home) -> None:
    batch = [record(n, "llm_process", seconds=10.0 + n) for n in range(6)]
    ingest(home, longest=9.0).take(batch, "a log")

    ingestion = ingest(home, longest=12.0)
    done = retry(ingestion, size=2, tool_type="llm_process")
    assert done == RetryReport(6, {"llm_process": 3}, still={"invalid_feature": 3})
    kept = ingestion.rejections.read()
    assert {r.rejected.detail for r in kept} == {
        f"seconds is {10.0 + n}, not at most 12" for n in (3, 4, 5)
    }
    assert {r.source for r in kept} == {"a log"}
    stored = ingestion.datasets["llm_process"].read()
    assert [e.task_id for e in stored] == [r.task_id for r in batch[:3]]
    assert ingestion.take(batch, "a log").rejected == {"duplicate": 6}

    fresh = ingest(home)
    assert retry(fresh, reason=RejectReason.OUTLIER) == RetryReport()
    assert retry(fresh, reason=RejectReason.INVALID_FEATURE).accepted == {"llm_process": 3}
    assert (fresh.rejections.rows, fresh.datasets["llm_process"].rows) == (0, 6)


def test_only_the_last_record_of_a_task_is_let_in(home: Home) -> None:
    strict = ingest(home, longest=1.0)
    first, second = (record(1, "llm_process", seconds) for seconds in (5.0, 6.0))
    strict.take([first], "test")
    strict.take([second], "test")
    assert strict.rejections.rows == 2
    ingestion = ingest(home)
    assert retry(ingestion).accepted == {"llm_process": 1}
    (execution,) = ingestion.datasets["llm_process"].read()
    assert execution.end == second.end
    assert ingestion.rejections.rows == 0


def test_what_is_wrong_with_a_record_itself_no_declaration_mends(home: Home) -> None:
    ingestion = ingest(home)
    failed = Rejected(
        f"{UUID(int=1)}-llm_process", "llm_process", RejectReason.SOFT_FAILED, "failed"
    )
    ingestion.take([failed, Rejected("", "", RejectReason.INVALID_JSON, "line 3")], "test")
    assert retry(ingestion) == RetryReport(not_retryable=2)
    assert ingestion.rejections.rows == 2


def test_a_record_of_which_too_little_was_kept_stays_and_is_counted(home: Home) -> None:
    """Of what is longer, its first 4,096 characters are kept."""
    features = {f"feature_{n}": n for n in range(400)} | {"frames": 7}
    ingest(home).take([record(1, "cut_film", features=features)], "test")
    ingestion = ingest(home, WITH_FILM)
    assert retry(ingestion) == RetryReport(retried=1, unreadable=1)
    assert ingestion.rejections.rows == 1


def test_an_outlier_is_no_company_for_itself(home: Home) -> None:
    """Two alike stay outliers when they are judged again; a third, and all three are a regime."""
    ingestion = Ingest(home, TYPES, None, outliers.fence)
    usual = [record(n, "llm_process", 4.0 + n % 3) for n in range(40)]
    ingestion.take([*usual, record(50, "llm_process", 900.0)], "test")
    ingestion.take([record(51, "llm_process", 910.0)], "test")
    assert retry(ingestion) == RetryReport(retried=2, still={"outlier": 2})
    assert ingestion.take([record(52, "llm_process", 905.0)], "test").accepted == 1
    assert retry(ingestion).accepted == {"llm_process": 2}
    assert ingestion.rejections.rows == 0


def test_killed_before_it_leaves_quarantine_a_record_is_in_its_dataset_once(home: Home) -> None:
    batch = [record(1, "llm_process", 50.0), record(2, "speech_process", 50.0)]
    ingest(home, longest=10.0).take(batch, "test")
    script = (
        "import sys; from pathlib import Path; from malearn.kernel.home import Home\n"
        "from tests.malearn.data import test_quarantine as laws\n"
        "laws.die_at_the_second_tool_type(Home(Path(sys.argv[1])))"
    )
    died = subprocess.run(
        [sys.executable, "-c", script, str(home.root)], cwd=Path(__file__).parents[3], check=False
    )
    assert died.returncode == -signal.SIGKILL

    ingestion = ingest(home)
    rows = {name: dataset.rows for name, dataset in ingestion.datasets.items()}
    assert sum(rows.values()) == 1 and ingestion.rejections.rows == 2
    done = retry(ingestion)
    assert (done.retried, done.known, sum(done.accepted.values())) == (2, 1, 1)
    assert ingestion.datasets["llm_process"].rows == ingestion.datasets["speech_process"].rows == 1
    assert ingestion.rejections.rows == 0


def die_at_the_second_tool_type(home: Home) -> None:
    """Re-admit; SIGKILL once the first dataset has its row."""
    judged = []

    def fence(
        executions: Sequence[Execution],
        recent: Mapping[str, Sequence[float]],
        recent_outliers: Mapping[str, Sequence[float]],
    ) -> tuple[list[Execution], list[Rejected]]:
        judged.append(executions)
        if len(judged) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(executions), []

    retry(Ingest(home, TYPES, None, fence))
