"""What identical inputs took: a mean that forgets slowly, and begins anew where levels change."""

from __future__ import annotations

import pytest

from malearn.kernel.estimation import input_effects
from malearn.kernel.estimation.input_effects import InputEffects

X, KEY = input_effects.encode((1.0, 2.0))


def learnt(known: InputEffects, taken: list[float], level: float) -> float:
    """The log-seconds expected at `level` after these were `taken` there by the same inputs."""
    assert X is not None
    for one in taken:
        known.learn(X, KEY, one - level, level)
    return known.effect(X, KEY, level)[0] + level


def test_a_few_repeats_count_alike() -> None:
    assert learnt(InputEffects(), [1.0, 2.0, 3.0], level=2.0) == pytest.approx(2.0)


def test_many_repeats_outweigh_an_outlier() -> None:
    assert learnt(InputEffects(), [1.0] * 30 + [2.0], level=1.0) == pytest.approx(1.0, abs=0.2)


def test_after_a_change_all_that_was_before_is_worth_one_repeat() -> None:
    known = InputEffects()
    assert learnt(known, [4.0] * 30, level=3.0) == pytest.approx(4.0)
    # The level has fallen by 2, and so would these inputs; but they fell by 3.
    assert learnt(known, [], level=1.0) == pytest.approx(2.0)
    assert learnt(known, [1.0], level=1.0) == pytest.approx(1.5)
    assert learnt(known, [1.0, 1.0], level=1.0) == pytest.approx(1.25)
