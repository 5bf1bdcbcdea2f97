"""Weights of the models: random, fixed by a seed."""

from __future__ import annotations

import numpy as np

from malearn.workload.inputs import Array

__all__ = ["weights"]


def weights(dice: np.random.Generator, *shape: int) -> Array:
    drawn: Array = (dice.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    return drawn
