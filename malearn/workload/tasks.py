"""The tasks of the workflows: what each computes, records, and hands to the tasks after it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from malearn.data import extract
from malearn.workload.inputs import RATE, Array, Image, drawing, english, sound
from malearn.workload.network import Network

__all__ = ["MODEL_TASKS", "Input", "Perform", "TaskOutput", "WorkloadTask"]

HARD = 0.3  # share of queries that every language model must reason about
PATCH = 16  # side of an image patch, px
FRAME, STEP = 400, 640  # samples of a spectrum (25 ms), and from one to the next (40 ms)

Features = dict[str, float]


@dataclass(frozen=True, slots=True)
class Input:
    """What a task works on. `samples` are at `RATE`, within ±1."""

    text: str = ""
    prompt: str = ""
    images: tuple[Image, ...] = ()
    samples: Array | None = None


@dataclass(frozen=True, slots=True)
class WorkloadTask:
    """A task that can start. `inputs` are what its predecessors handed over, in their order."""

    function: str
    successors: tuple[str, ...]
    inputs: tuple[Input, ...]
    seed: tuple[int, ...]  # of the query: the same inputs each time it is asked

    def rng(self) -> np.random.Generator:
        # crc32, not hash(): the same numbers in every worker process.
        return np.random.default_rng((*self.seed, zlib.crc32(self.function.encode())))


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """What a task leaves: keys of its record, and the input of each successor."""

    record: Mapping[str, object]
    gives: Mapping[str, Input] = field(default_factory=dict)


Perform = Callable[[WorkloadTask], TaskOutput]


def text_features(text: str, reason: int) -> Features:
    return extract.text_features(text) | {"reason": reason}


def prompt_features(text: str, name: str = "prompt") -> Features:
    counts = extract.text_features(text)
    return {f"{name}_length": counts["text_length"], f"{name}_token_count": counts["token_count"]}


def vision_features(given: Input) -> Features:
    """Means over the images, and the prompt."""
    each = [extract.image_features(image) for image in given.images]
    means = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
    return means | prompt_features(given.prompt) | {"batch_size": len(each), "reason": 0}


def reason(task: WorkloadTask, function: str) -> int:
    """1 if `function` reasons before it answers: DeepSeek always, any model on a hard query."""
    # Drawn from the query's seed alone: a hard query is hard for every model.
    return int("deepseek" in function or np.random.default_rng(task.seed).random() < HARD)


def open_audio(task: WorkloadTask) -> TaskOutput:
    """The start of the speech workflow, which gives its successor flat features, without a name."""
    rng = task.rng()
    samples = sound(rng, 4, 60)
    given = Input(prompt=english(rng, 80, 4000), samples=samples)
    known = extract.audio_features(samples, RATE)
    return TaskOutput({"succ_task_feat": known}, dict.fromkeys(task.successors, given))


def read_pictures(task: WorkloadTask) -> TaskOutput:
    """Four to twenty-four pictures and a question about them."""
    rng = task.rng()
    pile = tuple(drawing(rng, 160, 640) for _ in range(int(rng.integers(4, 25))))
    given = Input(prompt=english(rng, 80, 600), images=pile)
    counts = {"num_images": len(pile), "total_size_bytes": sum(image.nbytes for image in pile)}
    record = {"status": "success", "curr_task_feat": counts}
    return TaskOutput(record, dict.fromkeys(task.successors, given))


def deal_pictures(task: WorkloadTask) -> TaskOutput:
    """The pictures dealt in turn to the four models, and described to the scheduler."""
    (pile,), hands = task.inputs, len(task.successors)
    gives = {
        name: replace(pile, images=pile.images[index::hands])
        for index, name in enumerate(task.successors)
    }
    known = {name: vision_features(given) for name, given in gives.items()}
    return TaskOutput({"status": "success", "succ_task_feat": known}, gives)


def conclude(task: WorkloadTask) -> TaskOutput:
    """The end: all answers in one."""
    answer = "\n".join(given.text for given in task.inputs)
    return TaskOutput({"status": "success", "final_answer": answer, "curr_task_feat": None})


def answer(task: WorkloadTask) -> TaskOutput:
    """llm_process: read the text, write an answer; each function has a network of its own."""
    (given,), reasons = task.inputs, reason(task, task.function)
    # Of different widths: two models of a kind differ in time on the same text.
    network = Network.of_size(*((288, 5) if "deepseek" in task.function else (224, 5)))
    text = f"You are {task.function}. Answer from this text:\n{given.text}"
    # Reasoning is what makes an answer long, hence slow, at the same input.
    words = write_length(text) * (3 if reasons else 1)
    written = network.write(network.read(network.embed(text)), words, task.rng())
    known: dict[str, Features] = {}
    for name in task.successors:  # a fuse task: each predecessor supplies its own half
        half = "text1" if "qwen" in task.function else "text2"
        halves = prompt_features(given.prompt) | prompt_features(written, half)
        known[name] = halves | {"reason": 0}
    record = {"curr_task_feat": text_features(text, reasons), "succ_task_feat": known}
    return TaskOutput(record, dict.fromkeys(task.successors, Input(written, given.prompt)))


def fuse(task: WorkloadTask) -> TaskOutput:
    """llm_fuse2In1: read the question and two answers, write one."""
    network, (first, second) = Network.of_size(256, 6), task.inputs
    question = f"{first.prompt}\nTwo answers are given. Weigh them, and answer.\n"
    whole = f"{question}{first.text}\n{second.text}"
    memory = [network.read(network.embed(part)) for part in (first.text, second.text, question)]
    final = network.write(np.vstack(memory), write_length(whole), task.rng())
    halves = prompt_features(first.text, "text1") | prompt_features(second.text, "text2")
    features = prompt_features(whole) | halves | {"reason": 0}
    return TaskOutput({"curr_task_feat": features, "final_answer": final})


def look(task: WorkloadTask) -> TaskOutput:
    """vlm_process: read the patches of every image, write about all of them."""
    (given,), network = task.inputs, Network.of_size(160, 4)
    memory = [network.read(network.project(patches(image))) for image in given.images]
    memory.append(network.read(network.embed(given.prompt)))
    features = vision_features(given)
    blocks = int(features["text_block_count"] * len(given.images))
    words = 16 + 12 * len(given.images) + 4 * min(40, blocks)
    written = network.write(np.vstack(memory)[-512:], words, task.rng())
    record = {"status": "success", "curr_task_feat": features}
    return TaskOutput(record, dict.fromkeys(task.successors, Input(written)))


def transcribe(task: WorkloadTask) -> TaskOutput:
    """speech_process: read the spectrum of the sound, write as many words as were spoken."""
    (given,), network = task.inputs, Network.of_size(160, 3)
    assert given.samples is not None
    # So that even a sound shorter than a frame has one.
    padded = np.pad(given.samples, (0, FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP]
    # 1e-3: the logarithm of silence would be infinite.
    spectrum = np.log(np.abs(np.fft.rfft(frames * np.hanning(FRAME))) + 1e-3).astype(np.float32)
    spoken = int(np.count_nonzero((frames**2).mean(axis=1) > 1e-5))
    words = network.write(network.read(network.project(spectrum)), 4 + spoken // 5, task.rng())
    text = f"{given.prompt}\n{words}"
    known = {name: text_features(text, reason(task, name)) for name in task.successors}
    features = extract.audio_features(given.samples, RATE)
    record = {"curr_task_feat": features, "succ_task_feat": known}
    return TaskOutput(record, dict.fromkeys(task.successors, Input(text, given.prompt)))


def write_length(text: str) -> int:
    """Words of an answer: grows with the variety of the text."""
    return 10 + len(set(extract.tokens(text))) * 2 // 5


def patches(image: Image) -> Array:
    """The image cut into patches, shape (patches, PATCH · PATCH · 3), values 0…1."""
    rows, columns = (side // PATCH for side in image.shape[:2])
    part = image[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, 3)
    return (part.swapaxes(1, 2).reshape(rows * columns, -1) / 255).astype(np.float32)


MODEL_TASKS: tuple[Perform, ...] = (answer, fuse, look, transcribe)
