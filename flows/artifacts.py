"""The artifacts that a run leaves in Prefect: its result, the reasons, and links to MLflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.settings import PREFECT_UI_URL

from malearn.kernel import text
from malearn.kernel.tool_types import ToolType
from malearn.lifecycle import mlflow_pages

if TYPE_CHECKING:  # what trains and plots takes a second to import, and ingestion needs none of it
    from malearn.learning.gate import GateCheck
    from malearn.learning.metrics import Scores
    from malearn.lifecycle.promotion import Promoted
    from malearn.lifecycle.training import Trained

__all__ = ["VALIDATION", "candidates", "key", "promotion", "reasons", "training", "validation_page"]

#: The artifact key of the validation report that every ingestion leaves.
VALIDATION = "validation-report"


def key(kind: str, tool_type: str) -> str:
    """The key of an artifact of one tool type; Prefect wants small letters, digits and dashes."""
    return f"{kind}-{tool_type.lower().replace('_', '-')}"


def training(trained: Trained, tool_type: ToolType, trigger: str) -> None:
    """Leave the result of a retraining in words, with links to MLflow."""
    if trained.version is None or trained.run_id is None or trained.decision is None:
        title, links = "nothing trained", []
        details = [trained.why]
    else:
        verdict = "passes the gate" if trained.decision.promote else "does not pass the gate"
        title = f"version {trained.version}, {trained.family}, {verdict}"
        details = reasons(trained.decision.reasons)
        links = [
            f"[Candidates, compared in MLflow]({mlflow_pages.comparison_page(trained.run_id)})",
            f"[The retraining]({mlflow_pages.run_page(trained.run_id)})",
            f"[Version {trained.version}]({mlflow_pages.version_page(tool_type, trained.version)})",
        ]
    links.append(f"[Validation report of the data]({validation_page()})")
    lines = [
        f"# {trained.tool_type}: {title}",
        f"{text.counted(trained.rows, 'execution')} in the dataset. Trigger: {trigger}.",
        "\n".join(details),
        "\n".join(f"- {sentence}" for sentence in trained.schema_changes),
        " · ".join(links),
    ]
    create_markdown_artifact(
        "\n\n".join(line for line in lines if line),
        key=key("training", trained.tool_type),
        description=f"{trained.tool_type}: {title}",
    )


def candidates(trained: Trained) -> None:
    """Leave the scores of all predictors as a table."""
    if trained.scores is None:
        return
    everyone = {**trained.candidates, **trained.scores}
    create_table_artifact(
        [
            {
                "predictor": name,
                "is": _role(name, trained),
                "MAE, s": round(s.mae, 3),
                "median error": f"{s.median_ape:.0%}",
                "pairwise accuracy": f"{s.pairwise_accuracy:.0%}",
                "R²": round(s.r2, 3),
                "rows": s.n,
            }
            for name, s in sorted(everyone.items(), key=_error)
        ],
        key=key("candidates", trained.tool_type),
        description=f"{trained.tool_type}: {trained.why}",
    )


def promotion(promoted: Promoted, tool_type: ToolType) -> None:
    """Leave whether a version was promoted, with every check."""
    verdict = "is in Production" if promoted.promoted else "was not promoted"
    title = f"{promoted.tool_type}: version {promoted.version} {verdict}"
    link = mlflow_pages.version_page(tool_type, promoted.version)
    lines = [
        f"# {title}",
        "\n".join(reasons(promoted.reasons)),
        f"[Version {promoted.version} in MLflow]({link})",
    ]
    create_markdown_artifact(
        "\n\n".join(lines), key=key("promotion", promoted.tool_type), description=title
    )


def reasons(given: Iterable[GateCheck]) -> list[str]:
    """One Markdown item per gate check, failed ones first."""
    # False sorts before True, and the sort keeps the order of the gate otherwise.
    ranked = sorted(given, key=lambda reason: reason.passed)
    return [f"- {'✓' if reason.passed else '✗'} {reason.detail}" for reason in ranked]


def validation_page() -> str:
    """The address of the validation reports in Prefect."""
    return f"{PREFECT_UI_URL.value()}/artifacts/key/{VALIDATION}"


def _role(name: str, trained: Trained) -> str:
    if trained.decision is not None and name == trained.decision.candidate:
        return "candidate, chosen"
    if name in trained.candidates:
        return "candidate"
    return "incumbent" if name.startswith("incumbent") else "baseline"


def _error(item: tuple[str, Scores]) -> float:
    return item[1].mae
