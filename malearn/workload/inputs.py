"""What tasks are given: text from the standard library, drawn images, synthesised audio."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pydoc_data import topics

import numpy as np
import numpy.typing as npt

from malearn.data import extract

__all__ = ["RATE", "VOCABULARY", "Array", "Image", "drawing", "english", "sound", "vocabulary"]

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

RATE = 16_000  # samples/s
VOCABULARY = 2048  # words the language models know


@cache
def library() -> str:
    """The English that the standard library ships: Python's own reference, ~450,000 characters."""
    return "\n".join(topics.topics[name] for name in sorted(topics.topics))


@cache
def vocabulary() -> tuple[str, ...]:
    """The most frequent words of the library."""
    words = Counter(word for word in extract.tokens(library()) if word.isalpha())
    return tuple(word for word, _ in words.most_common(VOCABULARY))


def log_uniform(dice: np.random.Generator, low: float, high: float) -> float:
    """Between `low` and `high`, every order of magnitude as likely as another."""
    return float(np.exp(dice.uniform(np.log(low), np.log(high))))


def english(dice: np.random.Generator, low: int, high: int) -> str:
    """A passage of `low` to `high` characters, log-uniform, cut at words."""
    length = int(log_uniform(dice, low, high))
    start = int(dice.integers(len(library()) - length))
    return library()[start : start + length].partition(" ")[2].rpartition(" ")[0]


def drawing(dice: np.random.Generator, low: int, high: int) -> Image:
    """An RGB image, sides of `low` to `high` px: gradient, shapes, lines of script, noise."""
    height, width = (int(log_uniform(dice, low, high)) for _ in range(2))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = dice.uniform(-120, 120, (2, 3))
    canvas = (y / height)[..., None] * slope[0] + (x / width)[..., None] * slope[1] + 128
    for _ in range(int(dice.integers(1, 7))):
        top, left = dice.uniform(0, height), dice.uniform(0, width)
        tall, wide = dice.uniform(0.05, 0.4, 2) * (height, width)
        across, down = np.abs(x - left) / wide, np.abs(y - top) / tall
        inside = across**2 + down**2 < 1 if dice.random() < 0.5 else np.maximum(across, down) < 1
        canvas[inside] = dice.uniform(0, 255, 3)
    for _ in range(int(dice.integers(0, 5))):
        scribble(dice, canvas)
    canvas += dice.normal(0, dice.uniform(0, 12), (height, width, 1))
    image: Image = canvas.clip(0, 255).astype(np.uint8)
    return image


def scribble(dice: np.random.Generator, canvas: npt.NDArray[np.floating]) -> None:
    """A paragraph of unreadable script: strokes two pixels wide, in lines and words."""
    height, width = canvas.shape[:2]
    top, left = int(dice.integers(height * 3 // 4)), int(dice.integers(width * 3 // 4))
    line = int(dice.uniform(0.3, 1.0) * (width - left)) // 2
    for y in range(top, min(height - 10, top + 16 * int(dice.integers(2, 9))), 16):
        words = np.repeat(dice.random(line // 8 + 1) < 0.85, 8)[:line]
        strokes = np.kron((dice.random((4, line)) < 0.5) & words, np.ones((2, 2), bool))
        canvas[y : y + 8, left : left + 2 * line][strokes] = 20


def sound(dice: np.random.Generator, low: float, high: float) -> Array:
    """`low` to `high` seconds of tones, chirps, noise bursts and pauses, within ±1."""
    total = int(log_uniform(dice, low, high) * RATE)
    talkative = dice.uniform(0.4, 0.95)
    pieces: list[Array] = []
    while sum(piece.size for piece in pieces) < total:
        t = np.arange(int(dice.uniform(0.15, 0.8) * RATE), dtype=np.float32) / RATE
        pitch, glide = dice.uniform(80, 2000), dice.uniform(-800, 800)
        tone = np.sin(2 * np.pi * (pitch + glide * t * (dice.random() < 0.4)) * t)
        burst = tone if dice.random() < 0.7 else dice.normal(0, 0.3, t.size)
        loudness = dice.uniform(0.05, 0.6) * (dice.random() < talkative)
        pieces.append((loudness * burst).clip(-1, 1).astype(np.float32))
    return np.concatenate(pieces)[:total]
