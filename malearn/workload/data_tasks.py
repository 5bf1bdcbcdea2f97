"""The tasks between the models: open the inputs, deal, gather and conclude."""

from __future__ import annotations

import json

from malearn.data import extract
from malearn.workload.features import batch_features, reasons, vision_features
from malearn.workload.inputs import RATE, drawing, english, sound
from malearn.workload.job import Job, Material, Outcome

__all__ = [
    "conclude",
    "conclude_vision",
    "deal_pictures",
    "gather_pictures",
    "load_questions",
    "open_audio",
    "open_file",
    "open_picture",
    "pass_on",
    "prepare_batches",
    "read_document",
    "read_pictures",
    "receive",
]


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
    query = json.loads(json.dumps({"id": job.run.query_id, "workflow": job.run.workflow.name}))
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
