"""The tasks that run a model, and so teach."""

from __future__ import annotations

import numpy as np

from malearn.data import extract
from malearn.workload.ear import Ear
from malearn.workload.eye import glance
from malearn.workload.features import batch_features, prompt_features, reasons, vision_features
from malearn.workload.inputs import RATE
from malearn.workload.job import Job, Material, Outcome
from malearn.workload.transformer import Transformer

__all__ = ["MODEL_ACTS", "answer", "fuse", "look", "transcribe"]


def language_model(function: str) -> Transformer:
    """The model behind a language function: each has its own size."""
    if "deepseek" in function:
        return Transformer.of(288, 5)
    return Transformer.of(224, 5) if "qwen" in function else Transformer.of(192, 4)


def answer_length(text: str, reason: int) -> int:
    """Words of an answer: grows with the variety of the text, and threefold by reasoning."""
    distinct = len(set(extract.tokens(text)))
    return (10 + distinct * 2 // 5) * (3 if reason else 1)


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
        half = 1 + job.run.workflow.step(fuses[0]).after.index(job.function)
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


MODEL_ACTS = (answer, fuse, look, transcribe)
