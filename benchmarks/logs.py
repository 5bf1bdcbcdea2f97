"""Execution logs of any length, made up in the shape of real ones: runs of eleven tasks.

Seven tasks of a run are of the shipped tool types and know of one another by their successor
maps; four belong to nobody, as a third of a real log does. Each value is about 1 KB, most of
it the text of an answer that nobody wants.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from uuid import UUID

import redis

__all__ = ["fill", "tasks"]

#: What a value is padded to, in bytes of JSON.
SIZE = 1024

_WORDS = (
    'the answer is\n"forty-two", because of all rows in the table\tonly this one — 四十二 — has '
    "a total below 1,000 and a date in the last quarter of the year;\nsee also page 7.\n"
)
_CLOCK = 1_754_000_000.0


def tasks(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Task ids and the values of their `result:*`, `count` of them: the same for the same seed."""
    draw = random.Random(seed)
    made = 0
    run = 0
    while made < count:
        name = UUID(int=draw.getrandbits(128), version=4)
        for function, record in _run(draw, _CLOCK + 10.0 * run):
            if made < count:
                yield f"{name}-{function}", _padded(record, draw)
                made += 1
        run += 1


def fill(client: redis.Redis, count: int) -> None:
    """Put `count` tasks into Redis as `result:<task_id>`."""
    part: dict[str, bytes] = {}
    for task_id, value in tasks(count):
        part[f"result:{task_id}"] = value
        if len(part) == 5_000:
            client.mset(part)
            part = {}
    if part:
        client.mset(part)


def _run(draw: random.Random, clock: float) -> Iterator[tuple[str, dict[str, object]]]:
    text, image, sound = _text(draw), _image(draw), _sound(draw)
    fused = {"prompt_length": 300, "prompt_token_count": 80, "reason": 0}
    halves = [
        {f"text{n}_{name}": value for name, value in _pair(_text(draw)).items()} for n in (1, 2)
    ]
    steps: list[tuple[str, float, object, dict[str, object]]] = [
        ("task0_init", 0.01, None, {}),
        ("task1_read_file", 0.05, {"num_images": 4}, {"task1_speech_process": sound}),
        (
            "task2_file_process",
            0.4,
            None,
            {"task3a_vlm_process": image, "task3b_vlm_process": image},
        ),
        ("task1_speech_process", 29.0, sound, {"task4_llm_process_qwen": text}),
        ("task3a_vlm_process", 127.0, image | {"text_length": 138}, {}),
        ("task3b_vlm_process", 110.0, image, {"task4_llm_process_deepseek": text}),
        ("task3_llm_process", 51.0, text, {}),
        ("task4_llm_process_qwen", 48.0, text, {"task5_llm_fuse_answer": halves[0] | fused}),
        ("task4_llm_process_deepseek", 44.0, text, {"task5_llm_fuse_answer": halves[1] | fused}),
        ("task5_llm_fuse_answer", 66.0, halves[0] | halves[1] | fused, {}),
        ("task6_output", 0.02, None, {}),
    ]
    for function, usual, features, successors in steps:
        seconds = usual * draw.lognormvariate(0.0, 0.3)
        record: dict[str, object] = {
            "dag_id": f"query-{int(clock) % 300}",
            "status": "success",
            "start_time": clock,
            "end_time": clock + seconds,
        }
        if features is not None:
            record["curr_task_feat"] = features
        if successors:
            record["succ_task_feat"] = successors
        clock += seconds
        yield function, record


def _padded(record: dict[str, object], draw: random.Random) -> bytes:
    bare = json.dumps(record)
    start = draw.randrange(len(_WORDS))
    answer = (_WORDS * (SIZE // len(_WORDS) + 2))[start : start + SIZE]
    room = max(0, SIZE - len(bare) - len(', "final_answer": ""'))
    text = json.dumps(answer)[1:-1][:room]
    # Cut where no escape sequence is cut in two.
    text = text[: text.rfind(" ") + 1]
    return f'{bare[:-1]}, "final_answer": "{text}"}}'.encode()


def _text(draw: random.Random) -> dict[str, object]:
    length = draw.randrange(20, 4_000)
    return {"text_length": length, "token_count": length // 4, "reason": draw.randrange(2)}


def _pair(text: dict[str, object]) -> dict[str, object]:
    return {"length": text["text_length"], "token_count": text["token_count"]}


def _sound(draw: random.Random) -> dict[str, object]:
    return {
        "duration": draw.uniform(1.0, 300.0),
        "audio_entropy": draw.uniform(2.0, 9.0),
        "audio_energy": draw.uniform(0.0, 1.0),
    }


def _image(draw: random.Random) -> dict[str, object]:
    height, width = draw.uniform(200.0, 2_000.0), draw.uniform(200.0, 2_000.0)
    return {
        "image_height": height,
        "image_width": width,
        "image_area": height * width,
        "image_aspect_ratio": width / height,
        "image_entropy": draw.uniform(2.0, 7.5),
        "edge_density": draw.uniform(0.0, 0.4),
        "text_area_ratio": draw.random(),
        "text_block_count": float(draw.randrange(200)),
        "avg_brightness": 120.0,
        "brightness_variance": draw.uniform(0.0, 6_000.0),
        "prompt_length": 138,
        "prompt_token_count": 29,
    }
