"""Features of a task's actual inputs: a text, an image, a sound.

Each function returns exactly the names of the execution-log contract that
describe such an input, as finite numbers inside the contract's bounds. What is
empty has features too (mostly 0); what is no text, image or sound is an error.

    >>> text_features("Two words. 你好")
    {'text_length': 13, 'token_count': 5}
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from malearn.kernel import errors

__all__ = ["audio_features", "image_features", "text_features", "tokens"]

# Kana, Han with its extensions, Hangul: scripts that write words without spaces between.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
# No model's tokeniser: it would need a library and files, and every backend has another.
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")

EDGE_STEP = 32  # grey levels between neighbours that make an edge
CELL = 8  # side of a detector cell, pixels
TEXT_EDGES = (0.15, 0.8)  # share of edge pixels in a cell that holds text; noise has more
BLOCK_CELLS = 3  # fewer connected cells than this are specks, not a block of text
LOUDEST = 2.0**31  # beyond any full scale: such a sample is no audio


def tokens(text: str) -> list[str]:
    """`text` cut into tokens, which `token_count` counts.

    A token is a run of letters, digits and underscores; one CJK character; or one
    other printing character. White space separates and does not count.

    >>> tokens("don't stop_it, 3.5")
    ['don', "'", 't', 'stop_it', ',', '3', '.', '5']
    """
    return _TOKEN.findall(text)


def text_features(text: str) -> dict[str, float]:
    """Size of a text: `text_length` in characters, `token_count` in `tokens`. Empty: both 0."""
    return {"text_length": len(text), "token_count": len(tokens(text))}


def image_features(image: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Size and texture of an image, shape (height, width) or (height, width, 3), uint8.

    All but the size is computed on grey levels, 0.299 R + 0.587 G + 0.114 B with weights in
    1/65536, rounded half up:

    - `image_height`, `image_width` in px, `image_area` in px²;
    - `image_aspect_ratio`: height / width;
    - `image_entropy`: Shannon entropy of the 256-level grey histogram, 0…8 bits;
    - `edge_density`: share of pixels that differ from the pixel to the right or the one
      below by more than 32 levels, 0…1;
    - `text_area_ratio`, `text_block_count`: see `_text_blocks`;
    - `avg_brightness`: mean level, 0…255; `brightness_variance`: its population variance.

    Raises:
        InputError: not uint8, another shape, or without a pixel.
    """
    grey = _grey(image)
    height, width = grey.shape
    histogram = np.bincount(grey.ravel(), minlength=256)
    levels = np.arange(256)
    mean = float(histogram @ levels) / grey.size
    edges = _edges(grey)
    text_area, blocks = _text_blocks(edges)
    return {
        "image_height": height,
        "image_width": width,
        "image_area": grey.size,
        "image_aspect_ratio": height / width,
        "image_entropy": _entropy(histogram),
        "edge_density": int(np.count_nonzero(edges)) / grey.size,
        "text_area_ratio": text_area,
        "text_block_count": blocks,
        "avg_brightness": mean,
        "brightness_variance": float(histogram @ (levels - mean) ** 2) / grey.size,
    }


def audio_features(
    samples: npt.NDArray[np.floating] | npt.NDArray[np.signedinteger], rate: float
) -> dict[str, float]:
    """Length and content of one channel of sound, shape (samples,), at `rate` samples/s.

    Floats count as they are (full scale is ±1); signed integers are scaled by their
    type's full scale, so a sound has the same features in either form.

    - `duration`: s;
    - `audio_entropy`: spectral entropy, bits: Shannon entropy of the power spectrum of
      the whole signal taken as a distribution, 0…log2(samples / 2 + 1); a silent one has 0;
    - `audio_energy`: sum of squared samples.

    No samples: all three 0.

    Raises:
        InputError: another shape or type, a sample that is not finite, or no usable rate.
    """
    if not (np.isfinite(rate) and rate > 0):
        raise errors.InputError("audio", f"a rate of {rate} samples/s is not usable")
    signal = _signal(samples)
    return {
        "duration": signal.size / float(rate),
        "audio_entropy": _spectral_entropy(signal),
        "audio_energy": float(signal @ signal),
    }


def _grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise errors.InputError("image", f"expected an array of uint8, got {kind}")
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise errors.InputError("image", f"{image.shape} is not (height, width[, 3])")
    if not image.size:
        raise errors.InputError("image", f"there is no pixel in {image.shape}")
    if image.ndim == 2:
        return image
    # In integers: three times faster than floats, and the same on every machine.
    red, green, blue = (image[..., channel].astype(np.uint32) for channel in range(3))
    # ITU-R BT.601's weights in 1/65536; they sum to 65536, so that white stays 255.
    luma = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return luma.astype(np.uint8)


def _edges(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    # A difference of two uint8 would wrap around.
    level = grey.astype(np.int16)
    edges = np.zeros(grey.shape, dtype=np.bool_)
    edges[:, :-1] = np.abs(level[:, 1:] - level[:, :-1]) > EDGE_STEP
    edges[:-1] |= np.abs(level[1:] - level[:-1]) > EDGE_STEP
    return edges


def _text_blocks(edges: npt.NDArray[np.bool_]) -> tuple[float, int]:
    """Share of the image covered by text (0…1), and the number of its blocks.

    The image is cut into cells of 8×8 px (those at the border may be smaller). A cell
    holds text when 15…80 % of its pixels are edges: less is flat or a single contour,
    more is noise. Cells that touch by a side form a block; of fewer than 3 cells it is
    a speck, and counts neither as block nor as area.
    """
    height, width = edges.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    padded = np.zeros((rows * CELL, columns * CELL), dtype=np.uint8)
    padded[:height, :width] = edges
    # A cell has 64 pixels, so that counts fit into eight bits.
    counts = padded.reshape(rows, CELL, columns * CELL).sum(axis=1, dtype=np.uint8)
    counts = counts.reshape(rows, columns, CELL).sum(axis=2, dtype=np.uint8)
    tall = np.minimum(CELL, height - CELL * np.arange(rows))
    wide = np.minimum(CELL, width - CELL * np.arange(columns))
    areas = np.outer(tall, wide)
    share = counts / areas
    labels = _components((share >= TEXT_EDGES[0]) & (share <= TEXT_EDGES[1]))
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    in_block = (labels >= 0) & (sizes[labels] >= BLOCK_CELLS)
    return int(areas[in_block].sum()) / edges.size, int(np.count_nonzero(sizes >= BLOCK_CELLS))


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The lowest flat index of each cell's 4-connected component; -1 outside `mask`.

    Every cell takes the lowest label among its neighbours, then the label of the cell
    that label names (pointer jumping), until nothing changes: few rounds, no recursion.
    """
    nowhere = mask.size
    labels = np.full((mask.shape[0] + 2, mask.shape[1] + 2), nowhere, dtype=np.intp)
    inner = labels[1:-1, 1:-1]
    inner[mask] = np.flatnonzero(mask)
    while True:
        before = inner.copy()
        lowest = np.minimum(before, labels[:-2, 1:-1])
        for neighbour in (labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]):
            np.minimum(lowest, neighbour, out=lowest)
        lowest[~mask] = nowhere
        # Two jumps a round: chains of labels shrink by a factor of four each time.
        jump = np.append(lowest.ravel(), nowhere)
        inner[...] = jump[jump[jump]][:-1].reshape(mask.shape)
        if np.array_equal(inner, before):
            return np.where(mask, before, -1)


def _signal(samples: npt.NDArray[np.floating] | npt.NDArray[np.signedinteger]) -> _Signal:
    if not isinstance(samples, np.ndarray) or samples.dtype.kind not in "fi":
        kind = getattr(samples, "dtype", type(samples).__name__)
        raise errors.InputError("audio", f"expected an array of floats or integers, got {kind}")
    if samples.ndim != 1:
        raise errors.InputError("audio", f"shape {samples.shape} is not one channel (samples,)")
    signal: _Signal = samples.astype(np.float64)
    if samples.dtype.kind == "i":
        return signal / 2.0 ** (8 * samples.dtype.itemsize - 1)
    if not np.all(np.abs(signal) <= LOUDEST):  # NaN compares false
        raise errors.InputError("audio", "a sample is not a finite number")
    return signal


def _spectral_entropy(signal: _Signal) -> float:
    peak = np.abs(signal).max(initial=0.0)
    if peak == 0.0:
        return 0.0
    # Scaled to its peak, so that squares of faint sounds do not vanish.
    return _entropy(np.abs(np.fft.rfft(signal / peak)) ** 2)


def _entropy(weights: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> float:
    """Shannon entropy in bits of non-negative weights with a positive sum."""
    shares = weights[weights > 0] / weights.sum()
    # A weight that is positive may round to a share of 0, of which log2 is -inf.
    shares = shares[shares > 0]
    # A single share of 1 gives -0.0.
    return max(0.0, float(-(shares @ np.log2(shares))))


_Signal = npt.NDArray[np.float64]
