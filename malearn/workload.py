"""A small real workload, executed on this machine, for when there are no logs yet.

What is real: every task computes, for as long as its own input makes it. A language
task runs a transformer over the tokens of its text and decodes an answer token by
token; a vision task attends over the patches of its images; a speech task transforms
the frames of its audio and steps a recurrent network through them; a fuse task encodes
two answers that two earlier tasks decoded. The text is English from the standard
library, images are drawn, audio is synthesised, all from a seed. Start and end are the
worker's clock around that work; features are `extract`'s, of those very inputs.

What is not: the weights are random, so the answers mean nothing, and the models are
tiny, so a task takes tenths of a second. Nothing sleeps and no duration is invented.

The workflows are those of Maze's own logs (same functions, same edges, same record
keys), so the records need no special case anywhere: each worker leaves
`result:<run>-<function>` in Redis, as a Maze worker does.
"""

from __future__ import annotations

import heapq
import json
import os
import subprocess
import sys
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import Pipe, connection
from pathlib import Path
from pydoc_data import topics

import numpy as np
import numpy.typing as npt
import redis

from malearn import errors, extract

__all__ = ["execute"]

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Features = dict[str, float]

RATE = 16_000  # samples/s
VOCABULARY = 2048  # words the language models know
PATCH = 16  # side of an image patch, pixels
HARD = 0.3  # share of queries that every model must reason about
REPLAYED = 0.25  # share of runs that pose an earlier query again, as real logs do
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


# ── What travels ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Material:
    """What one task hands to one task after it. `samples` are at `RATE`, within ±1."""

    texts: tuple[str, ...] = ()
    prompt: str = ""
    images: tuple[Image, ...] = ()
    samples: Array | None = None
    reason: int = 0
    batch_size: int | None = None  # None: this workflow does not record it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task leaves: keys of its record, and material per successor function."""

    record: Mapping[str, object]
    gives: Mapping[str, Material] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One function of a workflow, the functions it waits for, and what it does."""

    function: str
    after: tuple[str, ...]
    act: Callable[[Job], Outcome]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A DAG of steps. `share`: how many of every hundred or so runs are of this one."""

    name: str
    share: int
    steps: tuple[Step, ...]

    @property
    def typed(self) -> int:
        """How many of its tasks run a model, and so teach."""
        return sum(step.act in MODEL_ACTS for step in self.steps)

    def step(self, function: str) -> Step:
        return next(step for step in self.steps if step.function == function)

    def successors(self, function: str) -> tuple[str, ...]:
        return tuple(step.function for step in self.steps if function in step.after)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow on one query; `seed` draws the query's inputs."""

    run_id: str
    query_id: str
    workflow: str
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A task that can start: everything it waited for is in `inputs`, by predecessor."""

    run: Run
    function: str
    inputs: Mapping[str, Material]

    @property
    def task_id(self) -> str:
        return f"{self.run.run_id}-{self.function}"

    @property
    def successors(self) -> tuple[str, ...]:
        return WORKFLOWS[self.run.workflow].successors(self.function)

    @property
    def material(self) -> Material:
        """What the first predecessor gave."""
        return next(iter(self.inputs.values()))

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of all predecessors, in the order the workflow names them."""
        return tuple(text for given in self.inputs.values() for text in given.texts)

    def dice(self) -> np.random.Generator:
        """Randomness that belongs to this query and function: the same each time it runs."""
        return np.random.default_rng((*self.run.seed, zlib.crc32(self.function.encode())))


# ── Inputs: text, images, audio ───────────────────────────────────────────────────────


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


# ── Models: small, with fixed random weights ──────────────────────────────────────────


def weights(dice: np.random.Generator, *shape: int) -> Array:
    drawn: Array = (dice.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    return drawn


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


def language_model(function: str) -> Transformer:
    """The model behind a language function: each has its own size."""
    if "deepseek" in function:
        return Transformer.of(288, 5)
    return Transformer.of(224, 5) if "qwen" in function else Transformer.of(192, 4)


def answer_length(text: str, reason: int) -> int:
    """Words of an answer: grows with the variety of the text, and threefold by reasoning."""
    distinct = len(set(extract.tokens(text)))
    return (10 + distinct * 2 // 5) * (3 if reason else 1)


# ── What the tasks do ─────────────────────────────────────────────────────────────────


def batch_features(material: Material, prefix: str = "") -> Features:
    """What an llm task receives: its texts added up, as the scheduler's logs have them."""
    counts = [extract.text_features(prefix + text) for text in material.texts]
    features = {name: sum(count[name] for count in counts) for name in counts[0]}
    if material.batch_size is not None:
        features["batch_size"] = material.batch_size
    return features | {"reason": material.reason}


def prompt_features(prompt: str, name: str = "prompt") -> Features:
    counts = extract.text_features(prompt)
    return {f"{name}_length": counts["text_length"], f"{name}_token_count": counts["token_count"]}


def vision_features(material: Material) -> Features:
    """What a vlm task receives: means over its images, and its prompt."""
    seen = [extract.image_features(image) for image in material.images]
    features = {name: sum(one[name] for one in seen) / len(seen) for name in seen[0]}
    if material.batch_size is not None:
        features["batch_size"] = material.batch_size
    return features | prompt_features(material.prompt) | {"reason": material.reason}


def answer(job: Job) -> Outcome:
    """llm_process: read every text of the batch, decode an answer to each."""
    material, model, dice = job.material, language_model(job.function), job.dice()
    task = f"You are {job.function}. Answer from this text:\n"
    answers = []
    for text in material.texts:
        hidden, memory = model.prefill(model.embed(task + text))
        length = answer_length(task + text, material.reason)
        answers.append(model.decode(hidden[-1], memory, length, dice))
    record: dict[str, object] = {"curr_task_feat": batch_features(material, task)}
    if material.batch_size is not None:
        record |= {"status": "success", "items_processed": len(answers)}
    given = Material(tuple(answers), material.prompt)
    fuses = [name for name in job.successors if "llm_fuse" in name]
    if fuses:
        half = 1 + WORKFLOWS[job.run.workflow].step(fuses[0]).after.index(job.function)
        known = prompt_features(material.prompt) | prompt_features(answers[0], f"text{half}")
        record["succ_task_feat"] = {fuses[0]: known | {"reason": 0}}
    return Outcome(record, dict.fromkeys(job.successors, given))


def fuse(job: Job) -> Outcome:
    """llm_fuse2In1: encode two answers, and decode one from both and the question."""
    model = Transformer.of(256, 6)
    first, second = job.texts
    question = f"{job.material.prompt}\nTwo answers are given. Weigh them, and answer.\n"
    _, one = model.prefill(model.embed(first), causal=False)
    _, two = model.prefill(model.embed(second), causal=False)
    hidden, asked = model.prefill(model.embed(question))
    memory = [
        (np.vstack((a[0], b[0], c[0])), np.vstack((a[1], b[1], c[1])))
        for a, b, c in zip(one, two, asked, strict=True)
    ]
    length = answer_length(first + " " + second, 0)
    final = model.decode(hidden[-1], memory, length, job.dice())
    halves = prompt_features(first, "text1") | prompt_features(second, "text2")
    features = prompt_features(question + first + "\n" + second) | halves | {"reason": 0}
    return Outcome({"curr_task_feat": features, "final_answer": final})


def look(job: Job) -> Outcome:
    """vlm_process: attend over the patches of every image, then answer about all of them."""
    material, eye, model = job.material, Transformer.of(128, 3), Transformer.of(160, 4)
    seen = [glance(eye, image) for image in material.images]
    widened = np.pad(np.vstack(seen), ((0, 0), (0, 32)))
    hidden, memory = model.prefill(np.vstack((widened, model.embed(material.prompt))))
    features = vision_features(material)
    lettering = int(features["text_block_count"] * len(material.images))
    length = 16 + 12 * len(material.images) + 4 * min(40, lettering)
    text = model.decode(hidden[-1], memory, length, job.dice())
    record: dict[str, object] = {"curr_task_feat": features}
    if material.batch_size is not None:
        record |= {"status": "success", "items_processed": len(material.images)}
    given = Material((text,), images=material.images)
    return Outcome(record, dict.fromkeys(job.successors, given))


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


def transcribe(job: Job) -> Outcome:
    """speech_process: hear every frame, then decode as many words as were spoken."""
    material, model = job.material, Transformer.of(160, 3)
    samples = material.samples
    assert samples is not None
    states, voiced = Ear.of(160).hear(samples)
    hidden, memory = model.prefill(states[::8])
    words = model.decode(hidden[-1], memory, 4 + voiced // 20, job.dice())
    text = f"{material.prompt}\n{words}"
    gives = {
        name: Material((text,), material.prompt, reason=reasons(job, name))
        for name in job.successors
    }
    record: dict[str, object] = {
        "curr_task_feat": extract.audio_features(samples, RATE),
        "succ_task_feat": {name: batch_features(given) for name, given in gives.items()},
    }
    return Outcome(record, gives)


def reasons(job: Job, function: str) -> int:
    """1 if `function` reasons before it answers: DeepSeek's model always, any on a hard query."""
    hard = np.random.default_rng(job.run.seed).random() < HARD
    return int("deepseek" in function or hard)


def open_file(job: Job) -> Outcome:
    """The start of gaia/file: a question and a document, for two models."""
    dice = job.dice()
    question = english(dice, 80, 400)
    text = f"{question}\n{english(dice, 200, 5000)}"
    gives = {
        name: Material((text,), question, reason=reasons(job, name)) for name in job.successors
    }
    known = {name: batch_features(given) for name, given in gives.items()}
    return Outcome({"curr_task_feat": None, "succ_task_feat": known}, gives)


def open_audio(job: Job) -> Outcome:
    """The start of gaia/speech. What it tells its successor is flat: not under its name."""
    dice = job.dice()
    samples = sound(dice, 4, 60)
    given = Material(prompt=english(dice, 80, 4000), samples=samples)
    record: dict[str, object] = {"succ_task_feat": extract.audio_features(samples, RATE)}
    return Outcome(record, dict.fromkeys(job.successors, given))


def open_picture(job: Job) -> Outcome:
    """The start of gaia/vision: one picture and a question; no batch is recorded."""
    dice = job.dice()
    given = Material(prompt=english(dice, 80, 1500), images=(drawing(dice, 200, 900),))
    known = dict.fromkeys(job.successors, vision_features(given))
    record: dict[str, object] = {"curr_task_feat": None, "succ_task_feat": known}
    return Outcome(record, dict.fromkeys(job.successors, given))


def receive(job: Job) -> Outcome:
    """The start of an OpenAGI workflow: the query is parsed, and noted."""
    query = json.loads(json.dumps({"id": job.run.query_id, "workflow": job.run.workflow}))
    message = f"received {query['workflow']}, query {query['id']}"
    given = Material((message,))
    return Outcome({"status": "success", "message": message}, dict.fromkeys(job.successors, given))


def read_pictures(job: Job) -> Outcome:
    """Four to twenty-four pictures, handed over as one pile with a question."""
    dice = job.dice()
    pile = tuple(drawing(dice, 160, 640) for _ in range(int(dice.integers(4, 25))))
    counts = {"num_images": len(pile), "total_size_bytes": sum(image.nbytes for image in pile)}
    given = Material(prompt=english(dice, 80, 600), images=pile)
    known = dict.fromkeys(job.successors, counts)
    record = {"status": "success", "curr_task_feat": counts, "succ_task_feat": known}
    return Outcome(record, dict.fromkeys(job.successors, given))


def deal_pictures(job: Job) -> Outcome:
    """The pile dealt in turn to the four that look, and described to the scheduler."""
    pile, hands = job.material.images, job.successors
    gives = {
        name: Material(prompt=job.material.prompt, images=hand, batch_size=len(hand))
        for name, hand in ((name, pile[n :: len(hands)]) for n, name in enumerate(hands))
    }
    known = {
        name: vision_features(given) | extract.text_features(given.prompt)
        for name, given in gives.items()
    }
    return Outcome({"status": "success", "succ_task_feat": known}, gives)


def gather_pictures(job: Job) -> Outcome:
    """The four answers joined; the pictures described once more, all together."""
    pile = tuple(image for given in job.inputs.values() for image in given.images)
    seen = [extract.image_features(image) for image in pile]
    features = {name: sum(one[name] for one in seen) / len(seen) for name in seen[0]}
    size = {"num_answers": len(job.texts), "total_answer_length": sum(map(len, job.texts))}
    known = dict.fromkeys(job.successors, size)
    record = {"status": "success", "curr_task_feat": features, "succ_task_feat": known}
    return Outcome(record, dict.fromkeys(job.successors, Material(job.texts)))


def read_document(job: Job) -> Outcome:
    """A document. Only the model that extracts its structure is described to the scheduler."""
    given = Material((english(job.dice(), 600, 5000),), batch_size=1)
    models = [name for name in job.successors if "llm_process" in name]
    known = {name: batch_features(given) for name in models}
    record = {"status": "success", "succ_task_feat": known}
    return Outcome(record, dict.fromkeys(job.successors, given))


def load_questions(job: Job) -> Outcome:
    """Three to twelve questions."""
    dice = job.dice()
    questions = tuple(english(dice, 60, 250) for _ in range(int(dice.integers(3, 13))))
    return Outcome({"status": "success"}, dict.fromkeys(job.successors, Material(questions)))


def prepare_batches(job: Job) -> Outcome:
    """Every question set before the merged document, in three batches."""
    document = "\n".join(job.inputs["task4a_merge_document_analysis"].texts)[:3500]
    questions = job.inputs["task3c_load_questions_batch"].texts
    gives = {}
    for index, name in enumerate(job.successors):
        texts = tuple(f"{question}\n{document}" for question in questions[index::3])
        gives[name] = Material(texts, batch_size=len(texts))
    known = {name: batch_features(given) for name, given in gives.items()}
    return Outcome({"status": "success", "succ_task_feat": known}, gives)


def pass_on(job: Job) -> Outcome:
    """All texts so far, cleaned of blank lines, to whoever comes next."""
    texts = tuple("\n".join(filter(str.strip, text.splitlines())) for text in job.texts)
    return Outcome({"status": "success"}, dict.fromkeys(job.successors, Material(texts)))


def conclude(job: Job) -> Outcome:
    """The end: one final answer."""
    final = "\n".join(job.texts)
    counts = {"final_answer_length": len(final), "num_answers": len(job.texts)}
    return Outcome({"status": "success", "final_answer": final, "curr_task_feat": counts})


def conclude_vision(job: Job) -> Outcome:
    """The end of gaia/vision, which writes neither status nor features."""
    return Outcome({"final_answer": "\n".join(job.texts)})


MODEL_ACTS = (answer, fuse, look, transcribe)

_PAIR = ("task2_llm_process_qwen", "task3_llm_process_deepseek")
_HEARD = ("task3_llm_process_qwen", "task4_llm_process_deepseek")
_LOOKS = ("task4a_vlm_process", "task4b_vlm_process", "task4c_vlm_process", "task4d_vlm_process")
_BATCHES = tuple(f"task5{x}_llm_process_batch_{n}" for x, n in zip("abc", "123", strict=True))
_STRUCTURE = "task3b_llm_process_extract_structure_info"

WORKFLOWS = {
    workflow.name: workflow
    for workflow in (
        Workflow(
            "gaia/speech",
            50,
            (
                Step("task1_speech_process", (), open_audio),
                Step("task2_speech_process", ("task1_speech_process",), transcribe),
                *(Step(name, ("task2_speech_process",), answer) for name in _HEARD),
                Step("task5_llm_fuse_answer", _HEARD, fuse),
            ),
        ),
        Workflow(
            "openagi/multimodal_vqa_complex",
            20,
            (
                Step("task1_start_receive_task", (), receive),
                Step("task2_read_file", ("task1_start_receive_task",), read_pictures),
                Step("task3_file_process", ("task2_read_file",), deal_pictures),
                *(Step(name, ("task3_file_process",), look) for name in _LOOKS),
                Step("task4_merge_results", _LOOKS, gather_pictures),
                Step("task5_output_final_answer", ("task4_merge_results",), conclude),
            ),
        ),
        Workflow(
            "gaia/file",
            12,
            (
                Step("task1_file_process", (), open_file),
                *(Step(name, ("task1_file_process",), answer) for name in _PAIR),
                Step("task4_llm_fuse_answer", _PAIR, fuse),
            ),
        ),
        Workflow(
            "gaia/vision",
            12,
            (
                Step("task1_obtain_content", (), open_picture),
                Step("task2_vlm_process", ("task1_obtain_content",), look),
                Step("task3_output_final_answer", ("task2_vlm_process",), conclude_vision),
            ),
        ),
        Workflow(
            "openagi/document_qa",
            8,
            (
                Step("task1_start_receive_task", (), receive),
                Step("task2_read_file", ("task1_start_receive_task",), read_document),
                Step("task3a_extract_text_content", ("task2_read_file",), pass_on),
                Step(_STRUCTURE, ("task2_read_file",), answer),
                Step("task3c_load_questions_batch", ("task2_read_file",), load_questions),
                Step(
                    "task4a_merge_document_analysis",
                    ("task3a_extract_text_content", _STRUCTURE),
                    pass_on,
                ),
                Step(
                    "task4b_prepare_qa_context",
                    ("task4a_merge_document_analysis", "task3c_load_questions_batch"),
                    prepare_batches,
                ),
                *(Step(name, ("task4b_prepare_qa_context",), answer) for name in _BATCHES),
                Step("task7_merge_all_answers", _BATCHES, pass_on),
                Step("task8_output_final_answer", ("task7_merge_all_answers",), conclude),
            ),
        ),
    )
}


# ── The worker: one process, one task at a time ───────────────────────────────────────


def perform(job: Job) -> tuple[dict[str, object], Mapping[str, Material]]:
    """Run one task now: its record as a Maze worker writes it, and what it hands on."""
    start = time.time()
    outcome = WORKFLOWS[job.run.workflow].step(job.function).act(job)
    end = time.time()
    times = {"start_time": start, "end_time": end}
    return {"dag_id": job.run.query_id, **outcome.record, **times}, outcome.gives


def warm_up() -> None:
    """Load what every worker of a real cluster has loaded before its first task."""
    vocabulary()
    patch_weights(128)
    Ear.of(160)
    for width, depth in ((128, 3), (160, 3), (160, 4), (192, 4), (224, 5), (256, 6), (288, 5)):
        model = Transformer.of(width, depth)
        hidden, memory = model.prefill(model.embed("ready"))
        model.decode(hidden[-1], memory, 2, np.random.default_rng(0))


def serve(descriptor: int) -> None:
    """The life of a worker: jobs come in over a pipe until its other end is gone.

    A parent that was killed closes that end too, so no worker outlives its parent by
    more than the task in hand.
    """
    pipe = connection.Connection(descriptor)
    try:
        client = redis.Redis.from_url(pipe.recv())
        warm_up()
        while True:
            job = pipe.recv()
            record, gives = perform(job)
            pipe.send(_written(client, job.task_id, record) or gives)
    except (EOFError, OSError):
        return


def _written(client: redis.Redis, task_id: str, record: Mapping[str, object]) -> str | None:
    """None once the record is in Redis, else what stood in the way."""
    try:
        client.set(f"result:{task_id}", json.dumps(record))
    except redis.RedisError as error:
        return str(error)
    return None


# ── The executor ──────────────────────────────────────────────────────────────────────


class Board:
    """Which tasks can start, wait or are done. Earlier runs go first."""

    __slots__ = ("_given", "_ready", "_runs", "left")

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = {run.run_id: (order, run) for order, run in enumerate(runs)}
        self._given: dict[str, dict[str, dict[str, Material]]] = {}
        self._ready: list[tuple[int, int, str, str]] = []
        self.left = 0
        for run in runs:
            steps = WORKFLOWS[run.workflow].steps
            self.left += len(steps)
            self._given[run.run_id] = {step.function: {} for step in steps}
            self._release(run, [step.function for step in steps])

    def take(self) -> Job | None:
        """The next task whose predecessors all finished; None while there is none."""
        if not self._ready:
            return None
        _, _, run_id, function = heapq.heappop(self._ready)
        given = self._given[run_id].pop(function)
        run = self._runs[run_id][1]
        after = WORKFLOWS[run.workflow].step(function).after
        return Job(run, function, {name: given[name] for name in after})

    def finish(self, job: Job, gives: Mapping[str, Material]) -> None:
        """Hand what `job` gave to its successors; those that have all can start."""
        self.left -= 1
        for successor in job.successors:
            self._given[job.run.run_id][successor][job.function] = gives[successor]
        self._release(job.run, job.successors)

    def _release(self, run: Run, functions: Sequence[str]) -> None:
        """Those of `functions` that wait for nothing more can start."""
        given = self._given[run.run_id]
        for index, step in enumerate(WORKFLOWS[run.workflow].steps):
            if step.function in functions and len(given[step.function]) == len(step.after):
                order = self._runs[run.run_id][0]
                heapq.heappush(self._ready, (order, index, run.run_id, step.function))


def plan(tasks: int, seed: int) -> tuple[Run, ...]:
    """Runs, their workflows evenly interleaved by share, that hold at least `tasks` typed tasks."""
    dice = np.random.default_rng((seed, tasks))
    credit = dict.fromkeys(WORKFLOWS, 0)
    asked = Counter[str]()
    runs: list[Run] = []
    while tasks > 0:
        for name, workflow in WORKFLOWS.items():
            credit[name] += workflow.share
        name = max(credit, key=credit.__getitem__)
        credit[name] -= sum(workflow.share for workflow in WORKFLOWS.values())
        tasks -= WORKFLOWS[name].typed
        replay = asked[name] and dice.random() < REPLAYED
        query = int(dice.integers(asked[name])) if replay else asked[name]
        asked[name] = max(asked[name], query + 1)
        runs.append(_run(name, query, seed))
    return tuple(runs)


def _run(workflow: str, query: int, seed: int) -> Run:
    query_id = uuid.uuid5(uuid.NAMESPACE_OID, f"malearn/{seed}/{workflow}/{query}")
    inputs = (seed, zlib.crc32(workflow.encode()), query)
    return Run(str(uuid.uuid4()), str(query_id), workflow, inputs)


@contextmanager
def crew(size: int, redis_url: str) -> Iterator[list[connection.Connection]]:
    """`size` worker processes, by their pipes; all gone on leaving, however that happens.

    They are fresh interpreters, not forks: one BLAS thread each is set in their own
    environment before numpy loads, and the caller's environment is not touched. In a
    session of their own, they do not get the terminal's Ctrl-C: the parent ends them.
    """
    workers: list[tuple[subprocess.Popen[bytes], connection.Connection]] = []
    try:
        for _ in range(size):
            workers.append(_hire())
            _send(workers[-1][1], redis_url)
        yield [pipe for _, pipe in workers]
    finally:
        for process, pipe in workers:
            pipe.close()
            process.kill()
        for process, _ in workers:
            process.wait()


def _hire() -> tuple[subprocess.Popen[bytes], connection.Connection]:
    ours, theirs = Pipe()
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    with theirs:
        handle = theirs.fileno()
        code = f"from malearn import workload; workload.serve({handle})"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            env=os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[handle],
            start_new_session=True,
        )
    return process, ours


def execute(
    redis_url: str,
    *,
    tasks: int = 360,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Execute the workload; every task's record ends up in Redis as `result:<task_id>`.

    `tasks` counts those that run a model (the last workflow is completed, so there may be
    up to three more); their start and merge tasks come on top. `seed` decides every input,
    `workers` is at most 2 and at most the cores by default, and `progress` is called with
    (records written, records in all) after each one. Returns the records written.

    Raises:
        InputError: `tasks` or `workers` is below 1.
        Unreachable: Redis does not answer.
        PlatformError: a worker process died.
    """
    size = min(2, os.cpu_count() or 1) if workers is None else workers
    if tasks < 1 or size < 1:
        raise errors.InputError("workload", f"cannot execute {tasks} tasks with {size} workers")
    _ping(redis_url)
    board = Board(plan(tasks, seed))
    total = board.left
    with crew(size, redis_url) as idle:
        busy: dict[connection.Connection, Job] = {}
        while board.left:
            while idle and (job := board.take()):
                busy[idle[-1]] = job
                _send(idle.pop(), job)
            for pipe in connection.wait(list(busy)):
                assert isinstance(pipe, connection.Connection)
                board.finish(busy.pop(pipe), _received(pipe, redis_url))
                idle.append(pipe)
                if progress:
                    progress(total - board.left, total)
    return total


def _ping(redis_url: str) -> None:
    try:
        with redis.Redis.from_url(redis_url) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise _unreachable(redis_url, error) from error


def _send(pipe: connection.Connection, message: Job | str) -> None:
    try:
        pipe.send(message)
    except OSError as error:
        raise _died() from error


def _received(pipe: connection.Connection, redis_url: str) -> Mapping[str, Material]:
    try:
        reply: str | Mapping[str, Material] = pipe.recv()
    except (EOFError, OSError) as error:
        raise _died() from error
    if isinstance(reply, str):
        raise _unreachable(redis_url, reply)
    return reply


def _died() -> errors.PlatformError:
    return errors.PlatformError("A workload worker", "died before its task was done")


def _unreachable(redis_url: str, cause: object) -> errors.Unreachable:
    return errors.Unreachable("Redis", redis_url, "MALEARN_REDIS_URL", cause)
