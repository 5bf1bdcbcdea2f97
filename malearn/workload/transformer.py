"""The transformer behind every model task: small, with fixed random weights."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from malearn.data import extract
from malearn.workload.inputs import VOCABULARY, Array, vocabulary
from malearn.workload.weights import weights

__all__ = ["Transformer"]


def normed(x: Array) -> Array:
    scaled: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(1e-6))
    return scaled


def softmax(scores: Array) -> Array:
    """Along the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


@dataclass(frozen=True, slots=True)
class Layer:
    """One pre-norm transformer layer: attention with `heads` heads, then a ReLU MLP."""

    heads: int
    qkv: Array  # (width, 3 width)
    out: Array  # (width, width)
    up: Array  # (width, 4 width)
    down: Array  # (4 width, width)

    @classmethod
    def random(cls, dice: np.random.Generator, width: int) -> Layer:
        shapes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
        return cls(width // 32, *(weights(dice, *shape) for shape in shapes))

    def over(self, x: Array, causal: bool) -> tuple[Array, Array, Array]:
        """The sequence `x` (length, width) through this layer, with its keys and values."""
        queries, keys, values = np.split(normed(x) @ self.qkv, 3, axis=1)
        mixed = np.empty_like(x)
        future = np.triu(np.full((len(x), len(x)), -1e9, np.float32), 1) if causal else None
        for head in np.split(np.arange(x.shape[1]), self.heads):
            part = slice(head[0], head[-1] + 1)
            scores = queries[:, part] @ keys[:, part].T * np.float32(32**-0.5)
            if future is not None:
                scores += future
            mixed[:, part] = softmax(scores) @ values[:, part]
        return self.feed(x + mixed @ self.out), keys, values

    def next(self, x: Array, keys: Array, values: Array) -> Array:
        """One position, shape (width,), that attends to everything in `keys` and `values`.

        Its own key and value are written to their last row.
        """
        query, keys[-1], values[-1] = np.split(normed(x) @ self.qkv, 3)
        by_head = (len(keys), self.heads, 32)
        scores = np.einsum("hd,nhd->hn", query.reshape(self.heads, 32), keys.reshape(by_head))
        shares = softmax(scores * np.float32(32**-0.5))
        mixed = np.einsum("hn,nhd->hd", shares, values.reshape(by_head)).reshape(-1)
        return self.feed(x + mixed @ self.out)

    def feed(self, x: Array) -> Array:
        fed: Array = x + np.maximum(normed(x) @ self.up, 0) @ self.down
        return fed


Memory = list[tuple[Array, Array]]  # keys and values, per layer


@dataclass(frozen=True, slots=True)
class Transformer:
    """A language model over `vocabulary()`: prefill once, then one position a token."""

    embedding: Array  # (VOCABULARY, width)
    layers: tuple[Layer, ...]

    @classmethod
    @cache
    def of(cls, width: int, depth: int) -> Transformer:
        dice = np.random.default_rng((width, depth))
        embedding = weights(dice, VOCABULARY, width) * np.float32(VOCABULARY**0.5)
        return cls(embedding, tuple(Layer.random(dice, width) for _ in range(depth)))

    def embed(self, text: str) -> Array:
        """One row per token of `text`, one zero row if it has none."""
        ids = [zlib.crc32(token.encode()) % VOCABULARY for token in extract.tokens(text)]
        rows: Array = self.embedding[ids] if ids else np.zeros_like(self.embedding[:1])
        return rows

    def prefill(self, x: Array, causal: bool = True) -> tuple[Array, Memory]:
        memory: Memory = []
        for layer in self.layers:
            x, keys, values = layer.over(x, causal)
            memory.append((keys, values))
        return x, memory

    def decode(self, last: Array, memory: Memory, count: int, dice: np.random.Generator) -> str:
        """`count` sampled words that continue after `last` (width,), given `memory`."""
        length = len(memory[0][0])
        room = np.zeros((count, last.size), np.float32)
        caches = [(np.vstack((k, room)), np.vstack((v, room))) for k, v in memory]
        words = []
        for position in range(length + 1, length + count + 1):
            logits = self.embedding @ normed(last) + dice.gumbel(0, 8, VOCABULARY)
            word = int(logits.argmax())
            words.append(vocabulary()[word % len(vocabulary())])
            last = self.embedding[word]
            for layer, (keys, values) in zip(self.layers, caches, strict=True):
                last = layer.next(last, keys[:position], values[:position])
        return " ".join(words)
