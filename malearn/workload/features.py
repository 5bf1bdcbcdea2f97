"""What the scheduler is told about a task's inputs: `extract`'s numbers of those very inputs."""

from __future__ import annotations

import numpy as np

from malearn.data import extract
from malearn.workload.job import Job, Material

__all__ = ["Features", "batch_features", "prompt_features", "reasons", "vision_features"]

Features = dict[str, float]

HARD = 0.3  # share of queries that every model must reason about


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


def reasons(job: Job, function: str) -> int:
    """1 if `function` reasons before it answers: DeepSeek's model always, any on a hard query."""
    hard = np.random.default_rng(job.run.seed).random() < HARD
    return int("deepseek" in function or hard)
