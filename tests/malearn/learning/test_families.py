"""Laws that every family keeps, whatever it is tuned to."""

from __future__ import annotations

import numpy as np
import pytest

from malearn.learning import families
from malearn.learning.families import FAMILIES

NAN = np.float32("nan")


def rows(count: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three inputs, of which the second says nothing, and log-seconds that the first decides."""
    source = np.random.default_rng(seed)
    inputs = source.uniform(0, 10, (count, 3)).astype(np.float32)
    target = 0.4 * inputs[:, 0] - 0.05 * inputs[:, 2] + source.normal(0, 0.05, count)
    return inputs, target


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> families.Family:
    return FAMILIES[request.param]


def fitted(family: families.Family, monotone: tuple[int, ...] = (0, 0, 0)):
    return family.fit(*rows(), family.parameters(monotone=monotone))


def test_each_is_called_what_the_table_calls_it(family: families.Family) -> None:
    assert FAMILIES[family.name] is family
    assert families.DEFAULT in FAMILIES


def test_it_learns_what_there_is_to_learn(family: families.Family) -> None:
    unseen, truth = rows(seed=1)
    error = np.abs(fitted(family).predict(unseen).reshape(-1) - truth)
    assert error.mean() < 0.5 * np.abs(truth - truth.mean()).mean()


def test_a_fit_can_be_repeated_exactly(family: families.Family) -> None:
    inputs, _ = rows(seed=1)
    assert np.array_equal(fitted(family).predict(inputs), fitted(family).predict(inputs))


def test_it_is_fitted_on_the_fewest_rows_it_asks_for(family: families.Family) -> None:
    few = family.fewest_rows
    assert np.all(np.isfinite(family.fit(*rows(few), family.parameters()).predict(rows()[0])))


def test_missing_inputs_are_no_obstacle(family: families.Family) -> None:
    """Neither in training, a column without any value included, nor in predicting."""
    inputs, target = rows()
    inputs[::4, 0] = NAN
    inputs[:, 1] = NAN
    estimator = family.fit(inputs, target, family.parameters())
    assert np.all(np.isfinite(estimator.predict(np.full((2, 3), NAN, dtype=np.float32))))
    assert np.all(np.isfinite(estimator.predict(rows(seed=1)[0])))


def test_a_constant_input_is_no_obstacle(family: families.Family) -> None:
    inputs, target = rows()
    inputs[:, 1] = 5.0
    assert np.all(np.isfinite(family.fit(inputs, target, family.parameters()).predict(rows()[0])))


def test_outside_the_range_of_training_it_says_no_more_than_at_its_edge(
    family: families.Family,
) -> None:
    inputs, target = rows()
    estimator = family.fit(inputs, target, family.parameters())
    edge = np.array([[inputs[:, 0].max(), 5, 5]], dtype=np.float32)
    beyond = np.array([[1e7, 5, 5]], dtype=np.float32)
    assert estimator.predict(beyond) == pytest.approx(estimator.predict(edge), abs=1e-4)


def test_what_decides_weighs_more_than_what_says_nothing(family: families.Family) -> None:
    weights = family.importance(fitted(family), 3)
    assert weights.shape == (3,)
    assert np.all(weights >= 0)
    assert weights[0] == weights.max()
    assert weights[0] > 2 * weights[1]


@pytest.mark.parametrize("name", [n for n in ("xgboost", "lightgbm", "catboost") if n in FAMILIES])
@pytest.mark.parametrize("direction", [1, -1])
def test_trees_keep_to_the_declared_direction(direction: int, name: str) -> None:
    """Even against the data: more of the third input never shortens, or never lengthens."""
    estimator = fitted(FAMILIES[name], (0, 0, direction))
    line = np.full((50, 3), 5.0, dtype=np.float32)
    line[:, 2] = np.linspace(0, 10, 50)
    assert np.all(direction * np.diff(estimator.predict(line)) >= -1e-6)


UPDATABLE = [family for family in FAMILIES.values() if family.update is not None]


@pytest.mark.parametrize("family", UPDATABLE, ids=lambda family: family.name)
def test_an_update_learns_what_changed_and_leaves_the_old_one_as_it_is(
    family: families.Family,
) -> None:
    inputs, target = rows()
    old = fitted(family)
    before = old.predict(inputs)
    new = family.update(old, inputs, target + 1.0, family.parameters())
    assert np.array_equal(old.predict(inputs), before)
    moved = float(np.mean(new.predict(inputs) - before))
    assert 0.3 < moved < 1.2


def test_trees_are_added_up_to_a_limit() -> None:
    """A booster that grows with every retraining would get slower with every retraining."""
    inputs, target = rows()
    xgboost = FAMILIES["xgboost"]
    update, estimator = xgboost.update, fitted(xgboost)
    sizes = []
    while estimator is not None:
        sizes.append(estimator.get_booster().num_boosted_rounds())
        estimator = update(estimator, inputs, target, xgboost.parameters())
    assert sizes[0] < sizes[1] < sizes[-1] <= 300
    assert len(sizes) < 20
