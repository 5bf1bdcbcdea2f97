"""A search for the hyper-parameters of one family on one tool type's rows, with Optuna.

Each trial is fitted on the train window and scored on the validation window; the test window has
no part in it. A trial is fitted on a quarter of the rows first, then on half, then on all, and
pruned where it does worse than the median of the others did. A search is known by name in its
storage: one that was interrupted goes on, one that is complete answers at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.kernel.errors import TrainingError
from malearn.learning import families, regressor, windows
from malearn.learning.families import Choice, Parameters, Range
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import score
from malearn.learning.windows import Windows

if TYPE_CHECKING:
    import optuna

__all__ = ["Found", "Trial", "finished", "search"]

#: Shares of the train window, newest first, that a trial is fitted on in turn.
_SHARES = (0.25, 0.5, 1.0)
#: Trials before any is pruned.
_STARTUP = 8
#: The attribute of a study that holds what was known before its first trial.
_SUMMARY = "malearn"


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of hyper-parameters that was tried.

    `error` is its mean absolute error on the validation window, in seconds; of a pruned trial
    that of the last fit, NaN where none succeeded. `state` is complete, pruned or failed.
    """

    number: int
    parameters: Parameters
    error: float
    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to, after `trials`.

    `parameters` had the lowest `error`, in seconds, on the validation window of `rows` rows, where
    the declared ones had `declared_error`. They differ from what is declared only if they are
    better.
    """

    tool_type: str
    family: str
    name: str
    parameters: Mapping[str, Any]
    error: float
    declared_error: float
    rows: int
    trials: int
    finished_at: float = field(default=0.0, compare=False)

    @property
    def better(self) -> bool:
        return self.error < self.declared_error


def search(
    family: str,
    rows: Matrix,
    *,
    trials: int,
    seconds: float | None = None,
    storage: str | None = None,
    attributes: Mapping[str, str] | None = None,
    each: Callable[[Trial, Found], None] = lambda trial, found: None,
) -> Found:
    """Search until there are `trials` in all, or for so many `seconds`, and return the best.

    `storage` is the URL of a database, without one the search is forgotten; `attributes` are kept
    with it. `each` is called after every trial. Raises `TrainingError` where the family declares
    no search space, or the rows are too few.
    """
    tool = rows.tool_type.name
    kind, cut = families.get(family), windows.cut(rows)
    if not kind.search:
        raise TrainingError(tool, f"{family} declares nothing to search for")
    if len(cut.train) < kind.fewest_rows:
        raise TrainingError(
            tool, f"{family} needs {kind.fewest_rows} rows, the train window has {len(cut.train)}"
        )
    declared = rows.tool_type.hyperparameters.get(family, {})
    name = f"{tool}-{family}-{_digest(rows, declared)}"
    with _study(storage, name) as study:
        # Of a search that goes on, the declared error was measured when it began.
        if _SUMMARY not in study.user_attrs:
            _begin(study, kind, declared, _error(family, cut, declared), attributes or {})
        known = dict(study.user_attrs[_SUMMARY])
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while _count(study) < trials and time.monotonic() < deadline:
            done = _try(study, family, cut, declared)
            each(done, _found(study, rows, family, declared, known))
        found = _found(study, rows, family, declared, known)
        study.set_user_attr("found", _as_json(found))
        return found


def finished(storage: str, tool_type: str) -> list[Found]:
    """The searches for `tool_type` that a storage knows the result of, newest first."""
    import optuna

    opened = optuna.storages.RDBStorage(storage)
    try:
        attributes = [s.user_attrs for s in optuna.get_all_study_summaries(storage=opened)]
    finally:
        opened.remove_session()
        opened.engine.dispose()
    found = [_from_json(known["found"]) for known in attributes if "found" in known]
    mine = [one for one in found if one.tool_type == tool_type]
    return sorted(mine, key=lambda one: -one.finished_at)


class _study:  # noqa: N801 - used as a function
    """Optuna's study of that name, closed in the end."""

    def __init__(self, storage: str | None, name: str) -> None:
        self._url, self._name = storage, name

    def __enter__(self) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = None if self._url is None else optuna.storages.RDBStorage(self._url)
        study = optuna.create_study(
            study_name=self._name,
            storage=self._storage,
            load_if_exists=True,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP),
        )
        # Seeded by how far it has come, or one that goes on would draw the same again.
        seed = families.SEED + len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study

    def __exit__(self, *_: object) -> None:
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()


def _begin(
    study: optuna.Study,
    kind: families.Family,
    declared: Parameters,
    error: float,
    attributes: Mapping[str, str],
) -> None:
    """Note what is known before the first trial, which is of what is declared."""
    now = kind.parameters(declared)
    # Declared values may lie outside of the search space; Optuna would not use them.
    if all(_holds(space, now[key]) for key, space in kind.search.items()):
        first = {key: _stored(space, now[key]) for key, space in kind.search.items()}
        study.enqueue_trial(first)
    study.set_user_attr(_SUMMARY, {**attributes, "declared_error": error})


def _try(study: optuna.Study, family: str, cut: Windows, declared: Parameters) -> Trial:
    import optuna

    began, trial = time.monotonic(), study.ask()
    given, errors = {**declared, **_drawn(trial, family)}, []
    state = optuna.trial.TrialState.COMPLETE
    try:
        for step, share in enumerate(_SHARES):
            part = _newest(cut.train, share)
            # A quarter of a small train window may be too little; the last step is all of it.
            if len(part) < families.get(family).fewest_rows:
                continue
            errors.append(_error(family, cut, given, part))
            trial.report(errors[-1], step)
            if share < 1.0 and trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
    except TrainingError:
        # Recorded, not raised: one set of parameters that a library refuses ends no search.
        state = optuna.trial.TrialState.FAIL
    complete = state == optuna.trial.TrialState.COMPLETE
    last = errors[-1] if errors else math.nan
    study.tell(trial, last if complete else None, state=state)
    return Trial(trial.number, given, last, state.name.lower(), time.monotonic() - began)


def _drawn(trial: optuna.Trial, family: str) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for key, space in families.get(family).search.items():
        if isinstance(space, Choice):
            # By text, since a storage of Optuna's holds no tuples.
            by_text = {str(option): option for option in space.options}
            drawn[key] = by_text[trial.suggest_categorical(key, list(by_text))]
        elif space.whole:
            drawn[key] = trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
        else:
            value = trial.suggest_float(key, space.low, space.high, log=space.log)
            drawn[key] = float(f"{value:.4g}")  # as it is shown, logged and kept
    return drawn


def _holds(space: Range | Choice, value: Any) -> bool:
    if isinstance(space, Choice):
        return value in space.options
    return isinstance(value, int | float) and space.low <= value <= space.high


def _stored(space: Range | Choice, value: Any) -> Any:
    return str(value) if isinstance(space, Choice) else value


def _newest(rows: Matrix, share: float) -> Matrix:
    first = len(rows) - math.ceil(share * len(rows))
    return rows if first == 0 else rows.rows(np.arange(first, len(rows)))


def _error(family: str, cut: Windows, given: Parameters, part: Matrix | None = None) -> float:
    fitted = regressor.fit(family, cut.train if part is None else part, given)
    return score(cut.validation.seconds, fitted.seconds(cut.validation.inputs)).mae


def _count(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _found(
    study: optuna.Study, rows: Matrix, family: str, declared: Parameters, known: Mapping[str, Any]
) -> Found:
    import optuna

    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    best = min(done, key=lambda trial: trial.value or math.inf, default=None)
    error, parameters = float(known["declared_error"]), dict(declared)
    if best is not None and best.value is not None and best.value < error:
        error = best.value
        # Drawn again from the stored values, which makes tuples of texts and rounds as before.
        parameters |= _drawn(optuna.trial.FixedTrial(best.params), family)  # type: ignore[arg-type]
    return Found(
        rows.tool_type.name,
        family,
        study.study_name,
        parameters,
        error,
        float(known["declared_error"]),
        len(windows.cut(rows).validation),
        _count(study),
        time.time(),
    )


def _digest(rows: Matrix, declared: Parameters) -> str:
    """Tells apart searches on other rows, other columns or another declaration."""
    known = hashlib.sha256(rows.inputs.tobytes())
    known.update(rows.seconds.tobytes())
    known.update(json.dumps([rows.columns, sorted(declared.items())], default=str).encode())
    return known.hexdigest()[:12]


def _as_json(found: Found) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Found.__slots__}


def _from_json(known: Mapping[str, Any]) -> Found:
    # JSON knows no tuples.
    parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in known["parameters"].items()}
    return Found(**{**known, "parameters": parameters})
