"""The network behind every model task: a small transformer with fixed random weights."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np

from malearn.data import extract
from malearn.workload.inputs import Array, library

__all__ = ["Network"]

WORDS = 2048  # of the vocabulary


@dataclass(frozen=True, slots=True)
class Network:
    """Layers of attention and a ReLU network: `read` a whole input, then `write` an answer."""

    embedding: Array  # (WORDS, width)
    layers: tuple[tuple[Array, Array, Array], ...]  # (width, 3 width), (width, 4 width), back

    @classmethod
    @cache
    def of_size(cls, width: int, depth: int) -> Network:
        """The network of this size; the same in every process."""
        # Seeded by the size: weights need not be sent to workers, nor kept on disk.
        rng = np.random.default_rng((width, depth))
        shapes = ((width, 3 * width), (width, 4 * width), (4 * width, width))
        layers = (tuple(weights(rng, *shape) for shape in shapes) for _ in range(depth))
        return cls(rng.standard_normal((WORDS, width), np.float32), tuple(layers))  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        return int(self.embedding.shape[1])

    def embed(self, text: str) -> Array:
        """One row per token of `text`, one zero row when there is none."""
        # Not hash(), which differs from process to process.
        ids = [zlib.crc32(token.encode()) % WORDS for token in extract.tokens(text)]
        return self.embedding[ids] if ids else np.zeros_like(self.embedding[:1])

    def project(self, rows: Array) -> Array:
        """Rows of any other width (image patches, spectra) as rows of this network's."""
        matrix = weights(np.random.default_rng(rows.shape[1]), rows.shape[1], self.width)
        return (rows @ matrix).astype(np.float32)

    def read(self, x: Array) -> Array:
        """`x` (length, width) through all layers; every row attends to every other."""
        scale = np.float32(self.width**-0.5)
        for qkv, up, down in self.layers:
            queries, keys, values = np.split(normed(x) @ qkv, 3, axis=1)
            x = x + softmax(scale * (queries @ keys.T)) @ values
            x = x + np.maximum(normed(x) @ up, 0) @ down
        return x

    def write(self, memory: Array, count: int, rng: np.random.Generator) -> str:
        """`count` words, one after the other, each attending to all of `memory`."""
        words, state, scale = [], memory[-1], np.float32(1 / self.width)
        for _ in range(count):
            for qkv, up, down in self.layers:
                query = normed(state) @ qkv[:, : self.width]
                state = state + softmax(scale * (memory @ query)) @ memory
                state = state + np.maximum(normed(state) @ up, 0) @ down
            # Gumbel-max: the largest score plus noise is a sample of the scores' softmax.
            word = int((self.embedding @ normed(state) + rng.gumbel(0, 8, WORDS)).argmax())
            words.append(vocabulary()[word % len(vocabulary())])
            state = self.embedding[word]
        return " ".join(words)


@cache
def vocabulary() -> tuple[str, ...]:
    """The most frequent words of the library."""
    words = Counter(word for word in extract.tokens(library()) if word.isalpha())
    return tuple(word for word, _ in words.most_common(WORDS))


def weights(rng: np.random.Generator, rows: int, columns: int) -> Array:
    drawn: Array = rng.standard_normal((rows, columns), np.float32) / np.float32(rows**0.5)
    return drawn


def normed(x: Array) -> Array:
    scaled: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(1e-6))
    return scaled


def softmax(scores: Array) -> Array:
    """Along the last axis."""
    # Less the largest: exp of a large score would be infinite in float32.
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Array = raised / raised.sum(axis=-1, keepdims=True)
    return shares
