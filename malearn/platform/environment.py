"""Environment settings: no telemetry, and no chatter of other tools on our terminal."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["QUIET", "without"]

QUIET: dict[str, str] = {
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",  # else MLflow warns where git is not installed
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # tracebacks at shutdown
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLI_PROMPT": "false",
}


def without(environment: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """`environment` less the variables that begin with one of `prefixes`.

    >>> without({"MLFLOW_HOST": "::", "HOME": "/"}, "MLFLOW_")
    {'HOME': '/'}
    """
    return {key: value for key, value in environment.items() if not key.startswith(prefixes)}
