"""What hears a sound: a mel spectrum, and a recurrent network over its frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from malearn.workload.inputs import RATE, Array
from malearn.workload.weights import weights

__all__ = ["Ear"]


@dataclass(frozen=True, slots=True)
class Ear:
    """Mel spectrum and two recurrent (GRU) layers over the frames of a sound."""

    filters: Array  # (257, bands)
    inputs: tuple[Array, ...]
    states: tuple[Array, ...]

    @classmethod
    @cache
    def of(cls, width: int) -> Ear:
        dice = np.random.default_rng(width)
        sizes = (40, width)
        return cls(
            mel_filters(40),
            tuple(weights(dice, size, 3 * width) for size in sizes),
            tuple(weights(dice, width, 3 * width) for _ in sizes),
        )

    def hear(self, samples: Array) -> tuple[Array, int]:
        """States (frames, width), one per 10 ms, and how many frames are not silent."""
        padded = np.pad(samples, (0, max(0, 400 - samples.size)))
        frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
        power = np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2
        x = np.log(power @ self.filters + 1e-6).astype(np.float32)
        for inward, onward in zip(self.inputs, self.states, strict=True):
            x = recur(x @ inward, onward)
        return x, int(np.count_nonzero((frames**2).mean(axis=1) > 1e-5))


def recur(pushed: Array, onward: Array) -> Array:
    """A GRU over inputs already projected, shape (frames, 3 width)."""
    width = len(onward)
    state = np.zeros(width, np.float32)
    states = np.empty((len(pushed), width), np.float32)
    for index, push in enumerate(pushed):
        pull = state @ onward
        gates = 1 / (1 + np.exp(-(push[: 2 * width] + pull[: 2 * width])))
        new = np.tanh(push[2 * width :] + gates[:width] * pull[2 * width :])
        state = state + gates[width:] * (new - state)
        states[index] = state
    return states


def mel_filters(bands: int) -> Array:
    """Triangles evenly spaced in mel = 2595 log10(1 + Hz / 700), shape (257, bands)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    hertz = np.linspace(0, RATE / 2, 257)[:, None]
    low, mid, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (hertz - low) / (mid - low), (high - hertz) / (high - mid)
    return np.minimum(rising, falling).clip(0).astype(np.float32)
