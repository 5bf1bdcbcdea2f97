"""What people read of a log cannot steer their terminal, nor be taken for markup."""

from __future__ import annotations

import pytest

from malearn.flows import report
from malearn.flows.commands import output
from malearn.flows.report import tables
from malearn.kernel.workflows.workflow_status import WorkflowStatus

NAMES = ("g\x1b[31m", "h\x9b2J\r", "[/red]", ":smile:")


def test_a_name_from_a_log_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    status = WorkflowStatus("run\x1b[2J", 1e9, 3, 1, 9.0, 8.0, 10.0, running=NAMES)
    report.show_workflow(status)
    report.show_workflows([status])
    table = tables.table(*NAMES)
    table.add_row(*NAMES)
    tables.console().print(table)
    output.note(" ".join(NAMES))
    shown = "".join(capsys.readouterr())
    assert not set(shown) & set("\x1b\x9b\r\x07")
    for name in ("g�[31m", "h�2J", "[/red]", ":smile:"):
        assert shown.count(name) >= 4, name
