"""Run ids of any form: told, or read off the task id."""

from __future__ import annotations

import json

import pytest

from malearn.kernel.reading import joining, record_reader, run_ids
from malearn.kernel.records import Record
from malearn.kernel.tool_types import declared

UUID = "19725120-6620-445b-9f40-7ceccb20bae2"
RUNS = [UUID, "0123456789abcdef0123456789abcdef", "run7", "nightly-2025-08-01", "a" * 60]


@pytest.mark.parametrize("run", RUNS)
def test_run_and_function_are_read_off_a_task_id(run: str) -> None:
    task_id = f"{run}-task2_llm_process_qwen"
    assert run_ids.run_of(task_id) == run
    assert run_ids.function_of(task_id) == "task2_llm_process_qwen"


def test_a_told_function_may_hold_hyphens() -> None:
    assert run_ids.run_of("run7-fuse-answers", "fuse-answers") == "run7"
    assert run_ids.run_of(f"{UUID}-a-b") == UUID  # after a UUID nothing has to be guessed


def test_what_holds_no_function_is_a_run_of_its_own() -> None:
    assert [run_ids.function_of(one) for one in ("", "run7", UUID, "-x")] == ["", "", "", ""]
    assert run_ids.run_of("run7") == "run7"


@pytest.mark.parametrize("run", RUNS)
def test_what_was_known_beforehand_does_not_depend_on_the_form_of_the_run_id(run: str) -> None:
    said = {"task2_llm_process": {"text_length": 7, "token_count": 2}}
    before = {"start_time": 1.0, "end_time": 2.0, "succ_task_feat": said}
    after = {"start_time": 2.0, "end_time": 9.0, "curr_task_feat": {"text_length": 9}}
    read = [
        record_reader.read(f"{run}-task1_start", json.dumps(before)),
        record_reader.read(f"{run}-task2_llm_process", json.dumps(after)),
    ]
    assert all(isinstance(one, Record) and one.run == run for one in read)
    (execution,) = joining.join(read, declared())[0]
    assert execution.serve[:2] == (7.0, 2.0)
    assert execution.run == run
