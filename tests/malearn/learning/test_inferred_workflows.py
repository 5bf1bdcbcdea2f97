"""What waits for what, inferred from runs of the same functions."""

from __future__ import annotations

from malearn.kernel.tool_types import declared
from malearn.learning.inferred_workflows import Seen, infer

#: read → (task1_llm_process, other) → task2_vlm_process
RUNS = [
    {
        "read": Seen(0.0, 1.0),
        "task1_llm_process": Seen(1.0, 5.0),
        "other": Seen(1.0, 3.0),
        "task2_vlm_process": Seen(5.0, 9.0),
    },
    {
        "read": Seen(0.0, 1.0),
        "task1_llm_process": Seen(4.0, 6.0),  # waited for a slot until the other had ended
        "other": Seen(1.0, 3.0),
        "task2_vlm_process": Seen(6.0, 9.0),
    },
]


def test_a_function_waits_for_what_had_ended_before_it_in_every_run() -> None:
    (found,) = infer(RUNS, declared())
    assert found.predecessors == {
        "read": (),
        "other": ("read",),
        "task1_llm_process": ("read",),
        "task2_vlm_process": ("other", "task1_llm_process"),
    }
    assert found.resources["task2_vlm_process"] == "gpu"
    assert found.resources["read"] == "cpu"


def test_a_successor_map_names_what_would_follow_from_others_too() -> None:
    run = RUNS[0] | {"read": Seen(0.0, 1.0, ("task2_vlm_process", "nobody"))}
    (found,) = infer([run, RUNS[1]], declared())
    assert found.predecessors["task2_vlm_process"] == ("other", "read", "task1_llm_process")


def test_runs_of_other_functions_are_of_another_kind() -> None:
    assert len(infer([*RUNS, {"read": Seen(0.0, 1.0)}], declared())) == 2
