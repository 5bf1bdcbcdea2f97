"""What a run that failed leaves for whoever finds it: the cause, in one sentence."""

from __future__ import annotations

from typing import Any

from prefect import Flow, State
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun

from malearn.kernel.errors import MalearnError

__all__ = ["told"]


def told(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """For `on_failure`: the cause as an artifact of `flow_run`; its log keeps the traceback."""
    cause: Any = state.result(raise_on_failure=False)
    sentence = " ".join(str(cause).split()) or type(cause).__name__
    if not isinstance(cause, MalearnError):
        sentence = f"{sentence} ({type(cause).__name__}: its traceback is in the log)"
    create_markdown_artifact(
        f"**{flow_run.name}** failed: {sentence}", key="failure", description=sentence
    )
