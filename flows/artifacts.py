"""What a run leaves in Prefect for whoever watches it: what came of it, why, and where to look."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.settings import PREFECT_UI_URL

from malearn.kernel.tool_types import ToolType
from malearn.learning.gate import GateCheck
from malearn.learning.metrics import Scores
from malearn.lifecycle import tracking
from malearn.lifecycle.promotion import Promoted
from malearn.lifecycle.training import Trained

__all__ = ["VALIDATION", "candidates", "key", "promotion", "reasons", "training", "validation_page"]

#: The key of what every ingestion leaves.
VALIDATION = "validation-report"


def key(kind: str, tool_type: str) -> str:
    """The key of an artifact of one tool type; Prefect wants small letters, digits and dashes."""
    return f"{kind}-{tool_type.lower().replace('_', '-')}"


def training(trained: Trained, tool_type: ToolType, trigger: str) -> None:
    """The outcome of one retraining in words, with links to where it can be compared."""
    if trained.version is None or trained.run_id is None or trained.decision is None:
        title, links = "nothing trained", []
        details = [trained.why]
    else:
        verdict = "passes the gate" if trained.decision.promote else "does not pass the gate"
        title = f"version {trained.version}, {trained.family}, {verdict}"
        details = reasons(trained.decision.reasons)
        links = [
            f"[Candidates, compared in MLflow]({tracking.comparison_page(trained.run_id)})",
            f"[The retraining]({tracking.run_page(trained.run_id)})",
            f"[Version {trained.version}]({tracking.version_page(tool_type, trained.version)})",
        ]
    links.append(f"[Validation report of the data]({validation_page()})")
    lines = [
        f"# {trained.tool_type}: {title}",
        f"{trained.rows:,} executions in the dataset. Trigger: {trigger}.",
        "\n".join(details),
        "\n".join(f"- {sentence}" for sentence in trained.evolved),
        " · ".join(links),
    ]
    create_markdown_artifact(
        "\n\n".join(line for line in lines if line),
        key=key("training", trained.tool_type),
        description=f"{trained.tool_type}: {title}",
    )


def candidates(trained: Trained) -> None:
    """Everyone's scores on the newest slice, as a table."""
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
                "order": f"{s.pairwise_accuracy:.0%}",
                "R²": round(s.r2, 3),
                "rows": s.n,
            }
            for name, s in sorted(everyone.items(), key=_error)
        ],
        key=key("candidates", trained.tool_type),
        description=f"{trained.tool_type}: {trained.why}",
    )


def promotion(promoted: Promoted, tool_type: ToolType) -> None:
    """Whether a version serves now, with every reason that was looked at."""
    verdict = "serves now" if promoted.promoted else "does not serve"
    title = f"{promoted.tool_type}: version {promoted.version} {verdict}"
    link = tracking.version_page(tool_type, promoted.version)
    lines = [
        f"# {title}",
        "\n".join(reasons(promoted.reasons)),
        f"[Version {promoted.version} in MLflow]({link})",
    ]
    create_markdown_artifact(
        "\n\n".join(lines), key=key("promotion", promoted.tool_type), description=title
    )


def reasons(given: Iterable[GateCheck]) -> list[str]:
    """One Markdown item a reason, those that failed first."""
    ranked = sorted(given, key=lambda reason: reason.passed)
    return [f"- {'✓' if reason.passed else '✗'} {reason.detail}" for reason in ranked]


def validation_page() -> str:
    """Where Prefect shows what the last ingestions let in."""
    return f"{PREFECT_UI_URL.value()}/artifacts/key/{VALIDATION}"


def _role(name: str, trained: Trained) -> str:
    if trained.decision is not None and name == trained.decision.candidate:
        return "candidate, chosen"
    if name in trained.candidates:
        return "candidate"
    return "serving" if name.startswith("incumbent") else "baseline"


def _error(item: tuple[str, Scores]) -> float:
    return item[1].mae
