"""What sees an image: its patches, attended over and pooled."""

from __future__ import annotations

from functools import cache

import numpy as np

from malearn.workload.inputs import Array, Image
from malearn.workload.transformer import Transformer
from malearn.workload.weights import weights

__all__ = ["glance", "patch_weights"]

PATCH = 16  # side of an image patch, pixels


def glance(eye: Transformer, image: Image) -> Array:
    """Sixteen summary rows (16, width) of one image: patches, attention, pooling."""
    width = eye.embedding.shape[1]
    height, across = (max(1, side // PATCH) for side in image.shape[:2])
    whole = np.zeros((height * PATCH, across * PATCH, 3), np.float32)
    part = image[: height * PATCH, : across * PATCH]
    whole[: part.shape[0], : part.shape[1]] = part
    grid = whole.reshape(height, PATCH, across, PATCH, 3).swapaxes(1, 2)
    patches = (grid.reshape(height * across, -1) / 255).astype(np.float32)
    x, _ = eye.prefill(patches @ patch_weights(width), causal=False)
    enough = np.resize(x, (max(16, len(x)), width))
    return np.vstack([rows.mean(axis=0) for rows in np.array_split(enough, 16)])


@cache
def patch_weights(width: int) -> Array:
    return weights(np.random.default_rng(PATCH), PATCH * PATCH * 3, width)
