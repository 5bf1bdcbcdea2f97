"""Features are what their definitions say, computed here again the slow way."""

from __future__ import annotations

import cmath
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from malearn.data import extract
from malearn.kernel import errors

slow = settings(deadline=None, max_examples=60)

BOUNDS = {  # CONTRACT.md
    "text_length": (0, 10**6),
    "token_count": (0, 2 * 10**5),
    "image_height": (1, 20_000),
    "image_width": (1, 20_000),
    "image_area": (1, 4 * 10**8),
    "image_aspect_ratio": (0.01, 100),
    "image_entropy": (0, 32),
    "edge_density": (0, 1),
    "text_area_ratio": (0, 1),
    "text_block_count": (0, 10**4),
    "avg_brightness": (0, 255),
    "brightness_variance": (0, 65_025),
    "duration": (0, 86_400),
    "audio_entropy": (0, 32),
    "audio_energy": (0, math.inf),
}
IMAGE = {
    name for name in BOUNDS if name.startswith(("image", "edge", "text_a", "text_b", "avg", "br"))
}

images = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 40), st.integers(1, 40))
    | st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)),
    elements=st.sampled_from([0, 20, 60, 128, 200, 255]),
    fill=st.sampled_from([0, 128]),
)
sounds = arrays.arrays(
    np.float64,
    st.integers(0, 60),
    elements=st.floats(-1, 1) | st.sampled_from([0.0, 5e-324, 1e-200, 1.0, -1.0]),
)


def within_bounds(features: dict[str, float]) -> bool:
    return all(BOUNDS[name][0] <= value <= BOUNDS[name][1] for name, value in features.items())


# ── Text ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n\t ", 0),
        ("one", 1),
        ("one two", 2),
        ("don't!", 4),
        ("snake_case9", 1),
        ("你好，世界", 5),
        ("GPT很好", 3),
        ("한국어 カナ", 5),
        ("naïve café", 2),
        ("😀😀", 2),
    ],
)
def test_tokens_are_words_single_cjk_characters_and_single_marks(text: str, count: int) -> None:
    assert extract.text_features(text) == {"text_length": len(text), "token_count": count}


def tokens_one_character_at_a_time(text: str) -> int:
    count, in_word = 0, False
    for char in text:
        cjk = any(
            low <= ord(char) <= high
            for low, high in (
                (0x3040, 0x30FF),
                (0x3400, 0x4DBF),
                (0x4E00, 0x9FFF),
                (0xAC00, 0xD7AF),
                (0xF900, 0xFAFF),
                (0x20000, 0x3FFFF),
            )
        )
        word = (char.isalnum() or char == "_") and not cjk
        if cjk or (word and not in_word) or not (word or char.isspace()):
            count += 1
        in_word = word
    return count


@slow
@given(st.text(max_size=200) | st.text("ab_ 9.好カ한\n", max_size=40))
def test_the_token_rule_is_what_a_slow_reader_counts(text: str) -> None:
    features = extract.text_features(text)
    assert features["token_count"] == tokens_one_character_at_a_time(text)
    assert within_bounds(features)


# ── Images ────────────────────────────────────────────────────────────────────────────


def image_features_by_hand(image: np.ndarray) -> dict[str, float]:
    grey = [
        [
            pixel
            if isinstance(pixel, int)
            else math.floor((19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2]) / 65536 + 0.5)
            for pixel in row
        ]
        for row in image.tolist()
    ]
    height, width = len(grey), len(grey[0])
    levels = [level for row in grey for level in row]
    shares = [count / len(levels) for count in Counter(levels).values()]
    mean = sum(levels) / len(levels)
    edges = [[is_edge(grey, y, x) for x in range(width)] for y in range(height)]
    text_area, blocks = text_by_hand(edges)
    return {
        "image_height": height,
        "image_width": width,
        "image_area": height * width,
        "image_aspect_ratio": height / width,
        "image_entropy": -sum(share * math.log2(share) for share in shares),
        "edge_density": sum(map(sum, edges)) / len(levels),
        "text_area_ratio": text_area,
        "text_block_count": blocks,
        "avg_brightness": mean,
        "brightness_variance": sum((level - mean) ** 2 for level in levels) / len(levels),
    }


def is_edge(grey: list[list[int]], y: int, x: int) -> bool:
    right = x + 1 < len(grey[0]) and abs(grey[y][x] - grey[y][x + 1]) > 32
    below = y + 1 < len(grey) and abs(grey[y][x] - grey[y + 1][x]) > 32
    return right or below


def text_by_hand(edges: list[list[bool]]) -> tuple[float, int]:
    """Cells of 8×8 px with 15…80 % edges, flooded into blocks of at least three."""
    height, width = len(edges), len(edges[0])
    areas: dict[tuple[int, int], int] = {}
    for top in range(0, height, 8):
        for left in range(0, width, 8):
            cell = [e for row in edges[top : top + 8] for e in row[left : left + 8]]
            if 0.15 <= sum(cell) / len(cell) <= 0.8:
                areas[top // 8, left // 8] = len(cell)
    covered, blocks, todo = 0, 0, set(areas)
    while todo:
        block, edge = set(), [todo.pop()]
        while edge:
            y, x = edge.pop()
            block.add((y, x))
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & todo
            todo -= near
            edge.extend(near)
        if len(block) >= 3:
            blocks += 1
            covered += sum(areas[cell] for cell in block)
    return covered / (height * width), blocks


@slow
@given(images)
def test_image_features_are_what_slow_loops_compute(image: np.ndarray) -> None:
    features = extract.image_features(image)
    assert set(features) == IMAGE
    assert features == pytest.approx(image_features_by_hand(image), abs=1e-9)
    assert within_bounds(features)


def test_random_scenes_agree_with_slow_loops_too() -> None:
    dice = np.random.default_rng(7)
    for side in (17, 64, 90):
        fine = dice.integers(0, 2, (side, side)) * dice.integers(0, 2, (side, side)) * 200
        image = np.where(np.arange(side)[:, None] % 20 < 11, fine, 90).astype(np.uint8)
        expected = image_features_by_hand(image)
        assert extract.image_features(image) == pytest.approx(expected)
        assert expected["text_block_count"] > 0


def test_colour_counts_by_its_luma() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert extract.image_features(red)["avg_brightness"] == 76  # 0.299 × 255


def test_one_pixel_and_one_colour_have_no_texture() -> None:
    flat = ("image_entropy", "edge_density", "text_area_ratio", "brightness_variance")
    for image in (np.full((1, 1), 9, np.uint8), np.full((50, 30, 3), 9, np.uint8)):
        features = extract.image_features(image)
        assert [features[name] for name in flat] == [0, 0, 0, 0]
        assert features["avg_brightness"] == 9


def test_two_equal_halves_carry_one_bit() -> None:
    image = np.repeat(np.array([0, 255], np.uint8), 32)[None, :].repeat(64, axis=0)
    features = extract.image_features(image)
    assert features["image_entropy"] == pytest.approx(1)
    assert features["edge_density"] == pytest.approx(1 / 64)
    assert features["brightness_variance"] == pytest.approx(127.5**2)


def test_two_paragraphs_are_two_blocks_and_noise_is_none() -> None:
    dice = np.random.default_rng(3)
    page = np.full((200, 200), 240, np.uint8)
    strokes = np.kron(dice.random((16, 60)) < 0.5, np.ones((2, 2), bool))
    for top in (16, 120):
        page[top : top + 32, 40:160][strokes] = 10
    assert extract.image_features(page)["text_block_count"] == 2
    noise = dice.integers(0, 256, (200, 200), dtype=np.uint8)
    assert extract.image_features(noise)["text_area_ratio"] < 0.05


def test_a_winding_block_is_still_one() -> None:
    cells = np.zeros((41, 41), bool)
    cells[::2] = True
    cells[1::4, -1] = cells[3::4, 0] = True
    labels = extract._components(cells)
    assert set(labels[cells]) == {0}
    assert set(labels[~cells]) == {-1}


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((2, 2)), "image: expected an array of uint8, got float64."),
        ([[0]], "image: expected an array of uint8, got list."),
        (np.zeros((2, 2, 4), np.uint8), "image: (2, 2, 4) is not (height, width[, 3])."),
        (np.zeros(4, np.uint8), "image: (4,) is not (height, width[, 3])."),
        (np.zeros((0, 4), np.uint8), "image: there is no pixel in (0, 4)."),
        (np.zeros((3, 0, 3), np.uint8), "image: there is no pixel in (3, 0, 3)."),
    ],
)
def test_what_is_no_image_is_refused(image: Any, sentence: str) -> None:
    with pytest.raises(errors.InputError) as refusal:
        extract.image_features(image)
    assert str(refusal.value) == sentence


# ── Audio ─────────────────────────────────────────────────────────────────────────────


def audio_entropy_by_hand(samples: list[float]) -> float:
    peak = max(map(abs, samples), default=0.0)
    if not peak:
        return 0.0
    count = len(samples)
    power = [
        abs(sum(x / peak * cmath.exp(-2j * math.pi * k * n / count) for n, x in enumerate(samples)))
        ** 2
        for k in range(count // 2 + 1)
    ]
    shares = [value / sum(power) for value in power]
    return -sum(share * math.log2(share) for share in shares if share > 1e-30)


@slow
@given(sounds, st.sampled_from([1, 8000, 16_000, 44_100.0]))
def test_audio_features_are_what_slow_loops_compute(samples: np.ndarray, rate: float) -> None:
    features = extract.audio_features(samples, rate)
    values = samples.tolist()
    assert features["duration"] == len(values) / rate
    assert features["audio_energy"] == pytest.approx(math.fsum(x * x for x in values))
    assert features["audio_entropy"] == pytest.approx(audio_entropy_by_hand(values), abs=1e-6)
    assert within_bounds(features)
    assert features["audio_entropy"] <= math.log2(len(values) // 2 + 1) + 1e-9


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(500), np.zeros(8, np.int16)])
def test_silence_and_nothing_have_features_all_the_same(samples: np.ndarray) -> None:
    features = extract.audio_features(samples, 1000)
    assert features == {"duration": len(samples) / 1000, "audio_entropy": 0, "audio_energy": 0}


def test_a_tone_is_orderly_and_noise_is_not() -> None:
    time_axis = np.arange(16_000) / 16_000
    tone = extract.audio_features(np.sin(2 * np.pi * 440 * time_axis), 16_000)
    noise = extract.audio_features(np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    assert tone["audio_entropy"] == pytest.approx(0, abs=1e-6)
    assert noise["audio_entropy"] > 12
    assert tone["audio_energy"] == pytest.approx(8000)


def test_integers_and_floats_of_one_sound_have_the_same_features() -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32768, 4000).astype(np.int16)
    as_floats = extract.audio_features(pcm / 32768.0, 16_000)
    assert extract.audio_features(pcm, 16_000) == pytest.approx(as_floats)


@pytest.mark.parametrize(
    ("samples", "rate", "sentence"),
    [
        (np.zeros((2, 5)), 16_000, "audio: shape (2, 5) is not one channel (samples,)."),
        (
            np.zeros(3, complex),
            1,
            "audio: expected an array of floats or integers, got complex128.",
        ),
        ([0.0], 1, "audio: expected an array of floats or integers, got list."),
        (np.array([0, np.nan]), 1, "audio: a sample is not a finite number."),
        (np.array([np.inf, 0]), 1, "audio: a sample is not a finite number."),
        (np.array([1e300]), 1, "audio: a sample is not a finite number."),
        (np.zeros(3), 0, "audio: a rate of 0 samples/s is not usable."),
        (np.zeros(3), math.nan, "audio: a rate of nan samples/s is not usable."),
    ],
)
def test_what_is_no_audio_is_refused(samples: Any, rate: float, sentence: str) -> None:
    with pytest.raises(errors.InputError) as refusal:
        extract.audio_features(samples, rate)
    assert str(refusal.value) == sentence
