"""The inputs of tasks: text from the standard library, drawn images, synthesised audio."""

from __future__ import annotations

from functools import cache
from pydoc_data import topics

import numpy as np
import numpy.typing as npt

__all__ = ["RATE", "Array", "Image", "drawing", "english", "library", "sound"]

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

RATE = 16_000  # samples/s


@cache
def library() -> str:
    """The English that the standard library ships: Python's own reference, ~450,000 characters."""
    return "\n".join(topics.topics[name] for name in sorted(topics.topics))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Between `low` and `high`, every order of magnitude as likely as another."""
    # Many small inputs and a few large ones, so that durations span orders of magnitude, too.
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def english(rng: np.random.Generator, low: int, high: int) -> str:
    """A passage of `low` to `high` characters, cut at words."""
    length = int(log_uniform(rng, low, high))
    start = int(rng.integers(len(library()) - length))
    return library()[start : start + length].partition(" ")[2].rpartition(" ")[0]


def drawing(rng: np.random.Generator, low: int, high: int) -> Image:
    """An RGB image, sides of `low` to `high` px: a gradient, shapes, lines of script, noise."""
    height, width = (int(log_uniform(rng, low, high)) for _ in range(2))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    slopes = rng.uniform(-120, 120, (2, 3))
    canvas = (y / height)[..., None] * slopes[0] + (x / width)[..., None] * slopes[1] + 128
    for _ in range(int(rng.integers(1, 7))):
        top, left = rng.uniform(0, height), rng.uniform(0, width)
        tall, wide = rng.uniform(0.05, 0.4, 2) * (height, width)
        canvas[((x - left) / wide) ** 2 + ((y - top) / tall) ** 2 < 1] = rng.uniform(0, 255, 3)
    # Script makes text blocks, which the features of images count.
    for top in range(8, height * int(rng.integers(0, 5)) // 5, 16):  # script: strokes 2 px wide
        line = np.repeat(rng.random((4, width // 4)) < 0.5, 2, axis=1).repeat(2, axis=0)
        canvas[top : top + 8, : line.shape[1]][line[: height - top]] = 20
    canvas += rng.normal(0, rng.uniform(0, 12), (height, width, 1))
    image: Image = canvas.clip(0, 255).astype(np.uint8)
    return image


def sound(rng: np.random.Generator, low: float, high: float) -> Array:
    """`low` to `high` seconds of tones, noise bursts and pauses, within ±1."""
    total = int(log_uniform(rng, low, high) * RATE)
    share_spoken = rng.uniform(0.4, 0.95)
    pieces: list[Array] = []
    while sum(piece.size for piece in pieces) < total:
        t = np.arange(int(rng.uniform(0.15, 0.8) * RATE), dtype=np.float32) / RATE
        tone = np.sin(2 * np.pi * (rng.uniform(80, 2000) + rng.uniform(-400, 400) * t) * t)
        piece = tone if rng.random() < 0.7 else rng.normal(0, 0.3, t.size)
        # Pauses: sounds of the same length then differ in energy, and in the words that are spoken.
        loudness = rng.uniform(0.05, 0.6) * (rng.random() < share_spoken)
        pieces.append((loudness * piece).clip(-1, 1).astype(np.float32))
    return np.concatenate(pieces)[:total]
