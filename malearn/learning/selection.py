"""Model selection: candidates fitted, one chosen, everybody tested, the chosen one fitted again.

Pure: rows in, a `Selection` out. Nothing is recorded, registered or promoted here;
`malearn.lifecycle.training` logs it to MLflow.

Candidates are a full fit of every family and, where enough is new to it, the incumbent updated.
Which rows fit, choose and test is in `windows`; the one that is chosen is at last fitted on all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from malearn.kernel import text
from malearn.kernel.errors import ExportError, TrainingError
from malearn.kernel.tool_types import ToolTypes
from malearn.learning import baselines, export, gate, recipes, regressor, stack, windows
from malearn.learning import families as model_families
from malearn.learning.families import DEFAULT, Parameters
from malearn.learning.gate import Decision
from malearn.learning.incumbent import Incumbent
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores, score
from malearn.learning.recipes import Recipe
from malearn.learning.regressor import Regressor
from malearn.learning.windows import Windows

__all__ = ["ENOUGH_TO_UPDATE", "Candidate", "NothingSelected", "Selection", "select"]

#: So many executions that the incumbent has not seen are needed to test an update of it.
#: Half of them test, half of the others validate, the rest update (`windows.cut`): the least of
#: these parts then has as many as the gate requires.
ENOUGH_TO_UPDATE = 4 * gate.FEWEST_ROWS
#: How much lower another family's error must be, as a share, to be preferred to the default's.
_CLEARLY = 0.05
#: Most rows that a point of the learning curve is fitted on, beside the last one.
_CURVE_ROWS = 20_000
#: Rows, at most, on which a candidate's export is compared with it.
_PROVEN_ROWS = 2_000
_CURVE_SHARES = (0.125, 0.25, 0.5)
#: Ends of the interval that goes with the model: it encloses 80 % of the test window.
_INTERVAL = (0.1, 0.9)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe, how it did on the validation window, and on the test window once refitted.

    `fitted` was fitted on all rows before the test window; `seconds` are what it predicts there.
    """

    recipe: Recipe
    fitted: Regressor
    validation: Scores
    test: Scores
    seconds: Vector


@dataclass(frozen=True, slots=True)
class Selection:
    """What came of one selection.

    `scores` are everybody's on the test window: the `chosen` candidate, baselines, incumbent.
    `fitted` is the chosen recipe fitted on all rows. `calibration` holds the factors, `low` and
    `high`, by which the middle 80 % of actual seconds in the test window differ from predicted
    ones. `learning_curve` is the error there, in seconds, by the number of rows fitted on.
    `failed` gives the reason, by name, for every recipe that became no candidate.
    """

    rows: Matrix
    windows: Windows
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    scores: Mapping[str, Scores]
    decision: Decision
    fitted: Regressor
    calibration: Mapping[str, float]
    learning_curve: Mapping[int, float]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def competitors(self) -> dict[str, Scores]:
        """The scores of everybody who is no candidate."""
        own = self.chosen.recipe.name
        return {name: scores for name, scores in self.scores.items() if name != own}


@dataclass(frozen=True, slots=True)
class NothingSelected:
    """That there are too few rows to fit or to test, and `why`, as a sentence."""

    why: str


def select(
    rows: Matrix,
    tool_types: ToolTypes,
    *,
    families: Sequence[str] | None = None,
    found: Mapping[str, Parameters] | None = None,
    incumbent: Incumbent | None = None,
    explore: bool = False,
    prove: Callable[[Regressor, Matrix], None] = export.prove,
    learning_curve: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Selection | NothingSelected:
    """Select a model of one tool type from `families`, fitted on `rows`, and test it.

    Without `families` those that are declared. `found` are hyper-parameters that a search found,
    by family; each adds a candidate. With `explore` models are also fitted where the incumbent
    knows the rows that would test it: then it is left out of the comparison, and none may be
    promoted. `progress` is called with what is being fitted. A recipe that cannot be fitted, or
    whose model `prove` refuses to export, is no candidate; raises `TrainingError` or
    `ExportError` where none is left.
    Without `learning_curve` the curve has its
    last point only, and no model is fitted for it.
    """
    names = tuple(families or model_families.tried(rows.tool_type))
    left_out = None
    if incumbent is not None:
        unseen = windows.unseen(rows, incumbent.trained_until)
        if unseen < gate.FEWEST_ROWS and not explore:
            return NothingSelected(
                f"{text.counted(unseen, 'execution')} started since {incumbent.name} was trained; "
                f"at least {gate.FEWEST_ROWS} are required to compare another model with it"
            )
        if unseen < gate.FEWEST_ROWS:
            incumbent, left_out = None, incumbent
    warm = _warm_start(rows, incumbent, names)
    seen_until = -math.inf if incumbent is None else incumbent.trained_until
    cut = windows.cut(rows, seen_until, warm_start=warm is not None)
    tried = [recipes.full_fit(family, rows) for family in names]
    tried += [recipes.tuned(family, rows, given) for family, given in (found or {}).items()]
    tried += [warm] if warm else []
    tried = [recipe for recipe in tried if len(cut.train) >= recipe.fewest_rows]
    if not tried:
        need = min(model_families.get(name).fewest_rows for name in names)
        return NothingSelected(
            f"{text.counted(len(rows), 'row')}, {len(cut.train)} of them in the train window; "
            f"at least {need} are required there"
        )
    candidates, failed = _candidates(tried, cut, prove, progress)
    chosen = _choose(candidates)
    scores = _competitors(rows, cut.test, tool_types, incumbent)
    scores[chosen.recipe.name] = chosen.test
    progress(f"{chosen.recipe.name} on all {text.counted(len(rows), 'row')}")
    decision = gate.decide(chosen.recipe.name, scores)
    if left_out is not None:
        detail = f"not compared with {left_out.name}, which was trained on the test window"
        decision = decision.with_check("error against incumbent", False, detail)
    return Selection(
        rows,
        cut,
        candidates,
        chosen,
        scores,
        decision,
        # A third fit, on all rows, is what is registered: the newest rows are worth most, and the
        # test that they were kept for is over.
        chosen.recipe.fit(rows),
        _calibration(cut.test.seconds, chosen.seconds),
        _learning_curve(chosen, candidates, cut, _CURVE_SHARES if learning_curve else ()),
        failed,
    )


def _candidates(
    tried: Sequence[Recipe],
    cut: Windows,
    prove: Callable[[Regressor, Matrix], None],
    progress: Callable[[str], None],
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """Those that could be fitted and exported, and why the others could not, by name."""
    candidates: list[Candidate] = []
    failed: dict[str, str] = {}
    reasons: list[ExportError | TrainingError] = []
    for recipe in tried:
        progress(recipe.name)
        try:
            candidates.append(_try(recipe, cut, prove))
        except (ExportError, TrainingError) as error:
            failed[recipe.name] = str(error)
            reasons.append(error)
    if not candidates:
        raise reasons[0]
    return tuple(candidates), failed


def _warm_start(
    rows: Matrix, incumbent: Incumbent | None, families: Sequence[str]
) -> Recipe | None:
    if incumbent is None or windows.unseen(rows, incumbent.trained_until) < ENOUGH_TO_UPDATE:
        return None
    recipe = recipes.warm_start(incumbent, rows)
    return recipe if recipe is not None and recipe.family in families else None


def _try(recipe: Recipe, cut: Windows, prove: Callable[[Regressor, Matrix], None]) -> Candidate:
    # Two fits: one that has not seen the validation window chooses, one that has is tested.
    validated = recipe.fit(cut.train).seconds(cut.validation.inputs)
    fitted = recipe.fit(cut.before_test)
    prove(fitted, cut.validation.rows(np.arange(min(len(cut.validation), _PROVEN_ROWS))))
    predicted = fitted.seconds(cut.test.inputs)
    return Candidate(
        recipe,
        fitted,
        score(cut.validation.seconds, validated),
        score(cut.test.seconds, predicted),
        predicted,
    )


def _choose(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the lowest error on the validation window.

    Of the default family it is the better of full fit and update; another family, or what a
    search found on that very window, is preferred only where it is clearly better, so that chance
    does not change the family every night.
    """
    best = min(candidates, key=lambda c: c.validation.mae)
    usual = [c for c in candidates if c.recipe.family == DEFAULT and not c.recipe.tuned]
    defaults = usual or [c for c in candidates if not c.recipe.tuned] or [best]
    default = min(defaults, key=lambda c: c.validation.mae)
    return best if best.validation.mae < (1.0 - _CLEARLY) * default.validation.mae else default


def _competitors(
    rows: Matrix, test: Matrix, tool_types: ToolTypes, incumbent: Incumbent | None
) -> dict[str, Scores]:
    """The scores on the test window of everybody who is no candidate."""
    # All rows are replayed, so that baselines know what came before the window, as models do.
    predicted = {
        name: predict(rows.executions, tool_types) for name, predict in baselines.BASELINES.items()
    }
    scores = {name: score(test.seconds, p[-len(test) :]) for name, p in predicted.items()}
    learner = stack.of_newest(rows.executions, predicted, len(test))
    if learner is not None:
        scores[stack.NAME] = score(test.seconds, learner)
    if incumbent is not None:
        scores[incumbent.name] = score(test.seconds, incumbent.seconds(test))
    return scores


def _calibration(actual: Vector, predicted: Vector) -> dict[str, float]:
    # A ratio, since errors grow with the duration.
    low, high = np.quantile(actual / predicted, _INTERVAL)
    return {"low": float(low), "high": float(high)}


def _learning_curve(
    chosen: Candidate, candidates: Sequence[Candidate], cut: Windows, shares: Sequence[float]
) -> dict[int, float]:
    """The error of the chosen family on the test window, by the number of rows fitted on.

    Always the latest rows, so that the curve also shows what the oldest are still worth.
    """
    family, before, test = chosen.recipe.family, cut.before_test, cut.test
    curve = {}
    for share in shares:
        size = min(round(share * len(before)), _CURVE_ROWS)
        if size >= model_families.get(family).fewest_rows:
            latest = before.rows(np.arange(len(before) - size, len(before)))
            predicted = regressor.fit(family, latest, chosen.recipe.given).seconds(test.inputs)
            curve[size] = score(test.seconds, predicted).mae
    own = next((c for c in candidates if c.recipe.name == family), chosen)
    full = chosen if chosen.recipe.tuned else own
    return {**curve, len(before): full.test.mae}
