"""A retraining as a data scientist finds it in MLflow: one real server, a few small trainings."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run

from malearn.kernel import text
from malearn.kernel.estimation import history
from malearn.kernel.onnx import onnx_model
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import baselines, export, gate, matrix, regressor
from malearn.learning.families import FAMILIES, USUAL
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores, score
from malearn.lifecycle import logged_models, promotion, registry, runs, training
from malearn.lifecycle.training import DatasetVersion, Trained

SOURCE = DatasetVersion("/data/a table", 3)
SCORES = set(Scores.__slots__)


@pytest.fixture(scope="module")
def rows(own_tool_type: ToolType, synthetic) -> Matrix:
    return matrix.build(own_tool_type, synthetic(own_tool_type, 190))


def train(rows: Matrix, **options: object) -> Trained:
    return training.train(rows, ToolTypes([rows.tool_type]), SOURCE, **options)


@pytest.fixture(scope="module")
def first(connected: str, rows: Matrix) -> Trained:
    """The first training of the tool type, of every family."""
    return train(rows, trigger="a test")


@pytest.fixture(scope="module")
def promoted(first: Trained, rows: Matrix) -> Trained:
    assert promotion.promote(rows, first.version).promoted
    return first


@pytest.fixture(scope="module")
def misled(own_tool_type: ToolType, synthetic) -> Matrix:
    """The same rows; then as many where more work took less time; then a while as before."""
    log = synthetic(own_tool_type, 190 + 190 + 110)
    usual = {e.function: math.log(e.seconds) for e in log[:190]}
    turned = [
        replace(e, end=e.start + math.exp(2 * usual[e.function] - math.log(e.seconds)))
        for e in log[190:380]
    ]
    return matrix.build(own_tool_type, [*log[:190], *turned, *log[380:]])


@pytest.fixture(scope="module")
def second(promoted: Trained, misled: Matrix) -> Trained:
    """Another training while the first one serves, on rows that mislead it."""
    return train(misled, families=("linear",))


@pytest.fixture(scope="module")
def children(first: Trained) -> dict[str, Run]:
    client = mlflow.MlflowClient()
    found = client.search_runs(
        [client.get_run(first.run_id).info.experiment_id],
        f"tags.mlflow.parentRunId = '{first.run_id}'",
    )
    return {run.data.params["family"]: run for run in found}


def test_a_model_that_learns_beats_the_baselines(first: Trained) -> None:
    assert first.decision.promote, first.why
    assert set(first.scores) == {first.family, "stack", *baselines.BASELINES}
    assert first.rows == 190


def test_every_family_is_a_child_run_with_its_parameters(children: dict[str, Run]) -> None:
    assert set(children) == set(USUAL)
    for name, run in children.items():
        expected = {"family": name, **FAMILIES[name].parameters()}
        assert {
            key: str(value) for key, value in expected.items()
        }.items() <= run.data.params.items()
        assert run.info.status == "FINISHED"


def test_every_child_has_its_scores_and_those_of_its_competitors(children: dict[str, Run]) -> None:
    for run in children.values():
        names = set(run.data.metrics)
        assert {f"test/{name}" for name in SCORES} <= names
        assert {f"validation/{name}" for name in SCORES} <= names
        # Charts of one bar each would say nothing: everybody stands in one table.
        assert {name.partition("/")[0] for name in names} == {"test", "validation"}
        assert run.data.metrics["test/n"] == 38
        table = mlflow.load_table("scores.json", [run.info.run_id])
        everybody = {*baselines.BASELINES, "stack", run.data.params["family"]}
        assert set(table["predictor"]) == everybody
        assert table["mae"].is_monotonic_increasing


def test_what_a_run_says_of_its_model_can_be_computed_again(
    children: dict[str, Run], rows: Matrix
) -> None:
    older, newest = rows.split(0.2)
    again = score(newest.seconds, regressor.fit("linear", older).seconds(newest.inputs))
    assert children["linear"].data.metrics["test/mae"] == pytest.approx(again.mae)


def test_everybody_is_tested_on_the_same_rows(first: Trained, rows: Matrix) -> None:
    types = ToolTypes([rows.tool_type])
    median = baselines.function_median(rows.executions, types)[-38:]
    assert first.scores["function_median"] == score(rows.seconds[-38:], median)
    assert {scores.n for scores in first.scores.values()} == {38}


def test_runs_know_their_dataset_and_its_version(first: Trained, children: dict[str, Run]) -> None:
    for run in (mlflow.get_run(first.run_id), *children.values()):
        uses = {tag.value for used in run.inputs.dataset_inputs for tag in used.tags}
        assert uses == ({"training"} if run.info.run_id == first.run_id else {"training", "test"})
        for used in run.inputs.dataset_inputs:
            source = json.loads(used.dataset.source)
            assert (source["path"], source["delta_table_version"]) == (SOURCE.table, SOURCE.version)
            names = {column["name"] for column in json.loads(used.dataset.schema)["mlflow_colspec"]}
            assert {"words", "level", "seconds"} <= names
        assert run.data.tags["malearn.dataset_version"] == "3"
        assert run.data.tags["malearn.trigger"] == "a test"


def test_every_child_has_its_plots_once(children: dict[str, Run]) -> None:
    client = mlflow.MlflowClient()
    for run in children.values():
        files = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
        for name in (
            "predicted_against_actual",
            "residuals_over_time",
            "calibration",
            "error_by_function",
            "importance",
            "competitors",
        ):  # MLflow keeps each as an image and as a smaller one for its charts
            assert sum(name in file and file.endswith(".png") for file in files) == 1
        assert not client.list_artifacts(run.info.run_id, "plots")


def test_runs_are_named_for_what_they_are(first: Trained, children: dict[str, Run]) -> None:
    assert mlflow.get_run(first.run_id).info.run_name == "retraining on data v3"
    assert {run.info.run_name for run in children.values()} == {
        f"{family} on data v3" for family in USUAL
    }


def test_a_search_finds_the_winner_and_what_became_of_it(
    first: Trained, children: dict[str, Run]
) -> None:
    winners = {name for name, run in children.items() if "malearn.version" in run.data.tags}
    assert winners == {first.family}
    assert children[first.family].data.tags["malearn.why"] == first.why


def test_the_retraining_shows_everyone_and_what_more_rows_bring(first: Trained) -> None:
    client = mlflow.MlflowClient()
    names = {file.path for file in client.list_artifacts(first.run_id, "plots")}
    assert {"plots/all_candidates.png", "plots/learning_curve.png"} <= names
    curve = client.get_metric_history(first.run_id, "test_by_rows/mae")
    assert len(curve) > 1
    last = max(curve, key=lambda metric: metric.step)
    assert last.value == first.scores[first.family].mae
    assert set(first.candidates) == set(USUAL)


def test_a_version_is_a_pyfunc_that_names_its_columns(first: Trained, rows: Matrix) -> None:
    """What a notebook does with it."""
    name = rows.tool_type.registered_model
    model = mlflow.pyfunc.load_model(f"models:/{name}/{first.version}")
    assert model.metadata.metadata["malearn"]["columns"] == list(rows.columns)
    example = model.input_example
    assert list(example.columns) == ["function", *rows.tool_type.feature_names]
    answers = model.predict(example)
    assert (answers["seconds"] > 0).all()
    assert set(answers["source"]) == {"model"}


def test_the_retraining_explains_typical_tasks_and_the_worst(first: Trained) -> None:
    client = mlflow.MlflowClient()
    drawn = {file.path for file in client.list_artifacts(first.run_id, "explanations")}
    assert {"explanations/typical_1.png", "explanations/worst_1.png"} <= drawn
    table = mlflow.load_table("explanations.json", [first.run_id])
    for _, terms in table.groupby("which"):
        seconds = math.exp(terms["log-seconds"].sum())
        assert seconds == pytest.approx(terms["predicted, s"].iloc[0], rel=1e-3)


def test_the_retraining_says_what_it_came_to(first: Trained) -> None:
    run = mlflow.get_run(first.run_id)
    assert run.data.tags["malearn.family"] == first.family
    assert run.data.tags["malearn.version"] == "1"
    assert run.data.tags["malearn.promote"] == "true"
    assert run.data.tags["malearn.why"] == first.why
    assert run.data.metrics["test/mae"] == first.scores[first.family].mae


def test_the_chosen_family_erred_little_where_nobody_was_fitted(
    first: Trained, children: dict[str, Run]
) -> None:
    """Not always least: the default is kept unless another is clearly better."""
    errors = {name: run.data.metrics["validation/mae"] for name, run in children.items()}
    assert errors[first.family] <= 1.1 * min(errors.values())


def test_the_best_is_registered_with_its_decision(first: Trained, rows: Matrix) -> None:
    version = registry.version(rows.tool_type, first.version)
    assert version.number == 1
    assert version.family == first.family
    assert version.tags["malearn.rows"] == "190"
    kept = version.decision
    assert kept.reasons[: len(first.decision.reasons)] == first.decision.reasons


def test_its_signature_names_columns_in_and_seconds_out(first: Trained, rows: Matrix) -> None:
    info = mlflow.models.get_model_info(f"models:/{rows.tool_type.registered_model}/1")
    inputs, outputs = info.signature.inputs, info.signature.outputs
    assert inputs.required_input_names() == ["function"]
    tool_type = rows.tool_type
    assert inputs.optional_input_names() == [*tool_type.feature_names, *tool_type.context, "time"]
    assert outputs.input_names() == ["seconds", "low", "high", "source"]


def test_its_file_says_what_it_is_and_what_it_saw(first: Trained, rows: Matrix) -> None:
    file = registry.model_file(rows.tool_type, 1)
    noted = registry.version(rows.tool_type, 1).tags[onnx_model.DIGEST_TAG]
    assert noted == onnx_model.digest(file)
    metadata = onnx_model.load(file, rows.tool_type, "it").metadata
    assert (metadata.tool_type, metadata.family) == (rows.tool_type.name, first.family)
    assert (metadata.features, metadata.history) == (rows.tool_type.feature_names, history.FEATURES)
    assert (metadata.rows, metadata.dataset_version) == (190, 3)
    assert metadata.trained_until == max(e.end for e in rows.executions)
    pages = rows.inputs[:, 1]
    assert metadata.clips["pages"] == pytest.approx((np.nanmin(pages), np.nanmax(pages)))


def test_the_executions_it_carries_are_the_last_of_each_function(
    first: Trained, rows: Matrix
) -> None:
    file = registry.model_file(rows.tool_type, 1)
    recent = onnx_model.load(file, rows.tool_type, "it").metadata.recent
    assert {function for function, *_ in recent} == {e.function for e in rows.executions}
    ends = [end for _, _, end, _, _ in recent]
    assert ends == sorted(ends)
    assert max(ends) == max(e.end for e in rows.executions)


def test_a_training_that_nothing_new_could_judge_registers_nothing(
    promoted: Trained, rows: Matrix
) -> None:
    """Whoever serves has seen these rows: on them it would be hard to beat."""
    trained = train(rows)
    assert trained.version is None
    assert trained.why == (
        "0 executions started since incumbent v1 was trained; at least "
        f"{gate.FEWEST_ROWS} are required to compare another model with it"
    )


def test_the_next_training_is_compared_with_what_serves(second: Trained, misled: Matrix) -> None:
    assert set(second.scores) == {"linear", "incumbent v1", "stack", *baselines.BASELINES}
    newest = misled.rows(np.arange(len(misled) - second.scores["linear"].n, len(misled)))
    model = registry.model_file(misled.tool_type, 1)
    again = score(newest.seconds, export.seconds(model, newest))
    assert second.scores["incumbent v1"] == again
    table = mlflow.load_table("scores.json", [second.run_id]).set_index("predictor")
    assert table.loc["incumbent v1", "mae"] == pytest.approx(again.mae, abs=1e-4)


def test_one_that_is_worse_than_what_serves_becomes_candidate(
    second: Trained, misled: Matrix
) -> None:
    assert not second.decision.promote
    assert "is not at least 2 % lower than incumbent v1" in second.why
    assert not promotion.promote(misled, second.version).promoted
    assert registry.by_alias(misled.tool_type, registry.CANDIDATE).number == second.version == 2
    assert registry.by_alias(misled.tool_type, registry.PRODUCTION).number == 1


@pytest.fixture(scope="module")
def warm(connected: str, own_tool_type: ToolType, synthetic) -> Trained:
    """A retraining beside an xgboost model that serves and can be updated."""
    name = f"{own_tool_type.name}_warm"
    tool_type = replace(own_tool_type, name=name, functions=(name,))
    log = synthetic(tool_type, 330)
    known, everything = matrix.build(tool_type, log[:200]), matrix.build(tool_type, log)
    trained = train(known, families=("xgboost",))
    assert promotion.promote(known, trained.version, bypass_gate=True).promoted
    return train(everything, families=("xgboost",))


def test_what_serves_is_updated_beside_a_full_fit(warm: Trained) -> None:
    client = mlflow.MlflowClient()
    found = client.search_runs(
        [client.get_run(warm.run_id).info.experiment_id],
        f"tags.mlflow.parentRunId = '{warm.run_id}'",
    )
    runs = {run.info.run_name.partition(" on data")[0]: run for run in found}
    assert set(runs) == {"xgboost", "xgboost updated"}
    assert runs["xgboost updated"].data.params["updated_from"] == "incumbent v1"
    errors = {name: run.data.metrics["validation/mae"] for name, run in runs.items()}
    assert errors[warm.decision.candidate] == min(errors.values())
    assert warm.family == "xgboost"


def test_an_update_is_chosen_and_tested_on_what_it_has_not_seen(warm: Trained) -> None:
    """130 executions are new to it: half of them test at most, half of the others validate."""
    run = mlflow.get_run(warm.run_id)
    assert run.data.metrics["test/n"] <= 65
    child = mlflow.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{warm.run_id}'", output_format="list"
    )[0]
    assert child.data.metrics["validation/n"] <= 33


def test_how_far_off_each_candidate_was_is_kept(first: Trained, children: dict[str, Run]) -> None:
    for run in children.values():
        errors = runs.test_errors(run.info.run_id)
        assert len(errors) == 38
        share = float(np.median(np.abs(np.expm1(errors))))
        assert share == pytest.approx(run.data.metrics["test/median_ape"], rel=0.01)
    assert runs.test_errors(first.run_id) is None


@pytest.fixture
def unheard(rows: Matrix) -> Matrix:
    """Rows of a tool type that MLflow has not heard of."""
    name = f"{rows.tool_type.name}_unheard"
    return matrix.build(
        replace(rows.tool_type, name=name),
        [replace(execution, tool_type=name) for execution in rows.executions],
    )


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_too_few_rows_register_nothing_and_say_how_many_are_needed(
    connected: str, unheard: Matrix, count: int
) -> None:
    trained = train(unheard.rows(np.arange(count)))
    assert (trained.version, trained.decision, trained.run_id) == (None, None, None)
    need = min(FAMILIES[name].fewest_rows for name in USUAL)
    assert trained.why.startswith(f"{text.counted(count, 'row')}, ")
    assert trained.why.endswith(f" in the train window; at least {need} are required there")
    assert registry.versions(unheard.tool_type) == []
    assert mlflow.get_experiment_by_name(unheard.tool_type.registered_model) is None


def test_what_serves_but_cannot_be_loaded_is_no_competitor_and_training_is_quiet(
    connected: str, unheard: Matrix, fit, capfd: pytest.CaptureFixture[str]
) -> None:
    """Schedulers refuse the same file: it must not stand in the way of one that loads."""
    strange = fit("linear", "speech_process")
    mlflow.set_experiment("training tests")
    with mlflow.start_run() as run:
        uri = logged_models.log_onnx(strange.model, strange.rows)
    registry.register(unheard.tool_type, uri, run.info.run_id, {})
    registry.move(unheard.tool_type, registry.PRODUCTION, 1)
    told: list[str] = []
    trained = train(unheard, families=("linear",), progress=told.append)
    assert set(trained.scores) == {"linear", "stack", *baselines.BASELINES}
    assert told[0] == f"{unheard.tool_type.name}: linear"
    assert capfd.readouterr() == ("", "")
