"""What `malearn train` prints last: what to do next."""

from __future__ import annotations

import pytest

from malearn.flows import report
from malearn.learning.gate import Decision, GateCheck
from malearn.lifecycle.promotion import Promoted
from malearn.lifecycle.training import Trained

PASSED = Decision(True, "linear", 40, (GateCheck("rows", True, "40 test rows"),))
FAILED = Decision(False, "linear", 4, (GateCheck("rows", False, "only 4 test rows"),))


@pytest.mark.parametrize(
    ("trained", "sentence"),
    [
        (
            Trained("llm_process", 3, "3 rows are too few"),
            "Next: ingest more logs of llm_process, then `malearn train llm_process` again.",
        ),
        (
            Trained("llm_process", 200, "", 7, "linear", PASSED),
            "Next: `malearn promote llm_process` puts version 7 into Production.",
        ),
        (
            Trained("llm_process", 200, "", 7, "linear", FAILED),
            "`malearn promote llm_process 7` would promote this one over the gate.",
        ),
    ],
)
def test_training_ends_with_what_to_do_next(
    trained: Trained, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report.show_trained([trained])
    assert sentence in capsys.readouterr().out
    assert report.trained([trained])["llm_process"]["promoted"] is False


def test_what_was_promoted_needs_no_advice(capsys: pytest.CaptureFixture[str]) -> None:
    trained = Trained("llm_process", 200, "", 7, "linear", PASSED)
    promoted = Promoted("llm_process", 7, True, "", PASSED.reasons)
    report.show_trained([trained], [promoted])
    shown = capsys.readouterr().out
    assert "llm_process version 7 is in Production" in shown
    assert "Next:" not in shown
    assert report.trained([trained], [promoted])["llm_process"]["promoted"] is True
