"""Evaluations and simulations in MLflow: each a run of an experiment of its own, with plots."""

from __future__ import annotations

import numpy as np

from malearn.kernel import text
from malearn.kernel.names import Names
from malearn.learning import plots, scheduling_plots, state_plots
from malearn.learning.evaluation import Evaluation
from malearn.learning.policy_comparison import Comparison
from malearn.lifecycle import runs

__all__ = ["log_comparison", "log_evaluation"]


def log_comparison(comparison: Comparison, name: str) -> str:
    """A simulation as one run of its own experiment, with its plots; returns the run's id."""
    import mlflow

    mlflow.set_experiment(Names.find().experiment("simulation"))
    runs.describe_experiment(
        "What predictions would have gained a scheduler: each run replays the logs' workflows "
        "under every policy. `<policy>/<predictor>_mean` in seconds."
    )
    with mlflow.start_run(run_name=name) as run:
        settings = comparison.settings
        mlflow.log_params(
            {
                "slots": ", ".join(f"{name}={n}" for name, n in settings.slots.items()),
                "loads": ", ".join(
                    "as recorded" if load is None else f"{load:g}" for load in settings.loads
                ),
                "seeds": settings.seeds,
                "deadlines": ", ".join(f"{factor:g}" for factor in settings.deadlines),
                "workflows": comparison.workflows,
            }
        )
        metrics: dict[str, float] = {}
        for policy, predictors in comparison.as_json()["policies"].items():
            for predictor, found in predictors.items():
                metrics |= {
                    f"{policy}/{predictor}_mean": found["mean"],
                    f"{policy}/{predictor}_late": found["late"],
                    f"{policy}/{predictor}_gain": found["gain"]["mean"],
                }
        mlflow.log_metrics(metrics)
        runs.log_figures(scheduling_plots.of_comparison(comparison))
        return str(run.info.run_id)


def log_evaluation(evaluation: Evaluation, name: str) -> str:
    """A replay as one run of its own experiment, with its plots; returns the run's id."""
    import mlflow

    mlflow.set_experiment(Names.find().experiment("evaluation"))
    runs.describe_experiment(
        "Logs replayed in time, every predictor scored on each task before it ran. "
        "`<tool type>/<predictor>_mae` in seconds."
    )
    with mlflow.start_run(run_name=name) as run:
        metrics = {f"pairwise_accuracy/{who}": share for who, share in evaluation.order().items()}
        figures, inside = {}, {}
        for tool_type in evaluation.tool_types:
            rows = evaluation.rows(tool_type)
            actual = evaluation.actual[rows]
            for who, s in evaluation.scores(tool_type).items():
                metrics |= {f"{tool_type}/{who}_mae": s.mae, f"{tool_type}/{who}_r2": s.r2}
                metrics[f"{tool_type}/{who}_median_ape"] = s.median_ape
            metrics[f"{tool_type}/coverage"] = evaluation.coverage(tool_type)
            for state, found in evaluation.by_state(tool_type).items():
                # MLflow makes a chart section of what stands before the slash.
                metrics[f"{tool_type}/{state}/mae"] = found.mae
                metrics[f"{tool_type}/{state}/coverage"] = found.coverage
            ours = evaluation.predicted[evaluation.own][rows]
            figures[f"error_by_state_{tool_type}"] = state_plots.error_by_state(
                actual,
                ours,
                [evaluation.ours.states[i] for i in rows],
                f"{tool_type}: how far off, by what answers stood on",
            )
            figures[f"levels_over_time_{tool_type}"] = state_plots.levels_over_time(
                [evaluation.executions[i].function for i in rows],
                actual,
                ours,
                f"{tool_type}: levels believed, over {text.counted(len(rows), 'task')}",
                [evaluation.ours.levels[i] for i in rows],
            )
            inside[tool_type] = evaluation.inside(tool_type)
            figures[f"error_over_time_{tool_type}"] = plots.error_over_time(
                actual,
                {who: p[rows] for who, p in evaluation.predicted.items()},
                f"{tool_type}: how far off, over {text.counted(len(rows), 'task')}",
            )
        figures["coverage_over_time"] = plots.coverage_over_time(
            inside, "Outcomes within the 80 % interval, over time"
        )
        # R² of equal outcomes, or the order of a run of one task, is NaN, which no chart shows.
        mlflow.log_metrics({k: v for k, v in metrics.items() if np.isfinite(v)})
        runs.log_figures(figures)
        return str(run.info.run_id)
