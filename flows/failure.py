"""The artifact that a failed run leaves: its cause, in one sentence."""

from __future__ import annotations

from typing import Any

from prefect import Flow, State
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun

from malearn.kernel.errors import MalearnError

__all__ = ["record_cause"]


def record_cause(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """For `on_failure`: leave the cause as an artifact of `flow_run`; its log has the traceback."""
    # The result of a failed state is the exception itself.
    cause: Any = state.result(raise_on_failure=False)
    # On one line, for it is the description in a list; some exceptions have no text at all.
    sentence = " ".join(str(cause).split()) or type(cause).__name__
    if not isinstance(cause, MalearnError):
        sentence = f"{sentence} ({type(cause).__name__}: see the log for its traceback)"
    create_markdown_artifact(
        f"**{flow_run.name}** failed: {sentence}", key="failure", description=sentence
    )
