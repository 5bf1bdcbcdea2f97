"""Records that nobody should write and somebody will: the same for the same seed.

Each is a good record with one thing wrong: a type, a number, an encoding, a depth, a size, a
name. They come in the form of each entrance: values of `result:*`, entries of the stream,
lines of a run log, rows of a CSV file, and calls of `collect_data_for_task`. `python -m
benchmarks hostile` takes 100,000 through each: all must be accounted for by reason.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from benchmarks.figure import Figure

__all__ = ["HUGE", "entries", "figures", "lines", "results", "rows"]

#: Bytes of a huge value.
HUGE = 50 * 2**20

_FUNCTIONS = (
    "task2_llm_process_qwen",
    "task3_vlm_process",
    "task1_speech_process",
    "task5_llm_fuse_answer",
    "task0_init",
)
#: What may stand where a number, a text or an object should, as JSON; not all of it is JSON.
_VALUES = (
    b"null",
    b"true",
    b"false",
    b'""',
    b'"12"',
    b'"NaN"',
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"1e-999",
    b"-0.0",
    b"1e308",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"1" + b"0" * 400,
    b"1" + b"0" * 5_000,
    b"0x10",
    b"01",
    b"1_000",
    b".5",
    b"[]",
    b"{}",
    b"[1, 2]",
    b'{"a": 1}',
    b'{"": {"": {"": null}}}',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"' + "任务".encode() + b'"',
    b"[" * 2_000 + b"]" * 2_000,
    b"[" * 50_000,
    b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
)
_NAMES = (b"", b"\\ud800", b"\\u0000", b"text_length", b"x" * 2_000, b"\xff", b"serve", b"task_id")
_STATUSES = (
    b'"failed"',
    b'" Skipped "',
    b'"ERROR"',
    b"0",
    b'"\\ud83d"',
    b'"' + b"z" * 9_000 + b'"',
)
#: Keys of a record, and of an entry, in this order: start, end, status, query, own features,
#: features said.
_RECORD = (b"start_time", b"end_time", b"status", b"dag_id", b"curr_task_feat", b"succ_task_feat")
_ENTRY = (b"start", b"end", b"status", b"query", b"ran", b"serve")

_Fields = dict[bytes, bytes]


def figures(count: int = 100_000) -> Iterator[Figure]:
    """How many of `count` hostile records an entrance are unaccounted for."""
    from benchmarks import ingest  # which reads what this module writes

    yield from ingest.hostile_figures(count)


def results(count: int, seed: int = 0, huge: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """`count` different task ids with values; `huge` of them of `HUGE` bytes."""
    draw = random.Random(seed)
    for number in range(count):
        task_id = _task_id(draw, number)
        every = count // huge if huge else count + 1
        if number % every == every - 1:
            yield task_id, _huge(number // every)
        else:
            yield task_id, _object(_spoilt(draw, _RECORD), draw)


def entries(count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` entries of the stream, field `e`."""
    draw = random.Random(seed)
    for number in range(count):
        fields = _spoilt(draw, _ENTRY)
        task_id = _text(_task_id(draw, number))
        names = {b"task_id": task_id, b"function": _text(draw.choice(_FUNCTIONS).encode())}
        names[b"tool_type"] = draw.choice((b'"llm_process"', b'"vlm_process"', b"null", b'"none"'))
        if draw.random() < 0.2:
            names[draw.choice((b"task_id", b"function", b"tool_type"))] = draw.choice(_VALUES)
        if draw.random() < 0.1:
            names[b"rejected"] = draw.choice(
                (b'{"reason": "skipped"}', b'{"reason": "no such"}', b'{"reason": {}}', b"1")
            )
        if draw.random() < 0.2:
            names[draw.choice((b"predicted", b"model_version"))] = draw.choice(_VALUES)
        yield _object(names | fields, draw)


def lines(count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` lines of a run log, none of them blank."""
    for number, (task_id, value) in enumerate(results(count, seed)):
        value = value.replace(b"\n", b" ").replace(b"\r", b" ")
        whole = b'{"task_id": %b, "func_name": null, "data": %b}' % (_text(task_id), value)
        yield whole if number % 5 else value.strip() or b"?"


def rows(count: int, features: Sequence[str], seed: int = 0) -> Iterator[list[str]]:
    """A header and `count` rows of a CSV file with these `features`."""
    draw = random.Random(seed)
    header = ["task_id", "timestamp", *features, "execution_time"]
    yield header
    for number in range(count):
        task_id = _task_id(draw, number).decode("utf-8", "replace").replace("\0", "?")
        row = [task_id, repr(1e9 + number), *("1" for _ in features), "5.5"]
        for _ in range(draw.choice((0, 1, 1, 2))):
            cell = draw.choice(_VALUES)[:1_000].decode("utf-8", "replace")
            row[draw.randrange(len(row))] = cell
        yield row[: draw.randrange(1, len(row))] if draw.random() < 0.05 else row


def _task_id(draw: random.Random, number: int) -> bytes:
    """A different one for each number."""
    run = str(UUID(int=number // 7, version=4)).encode()
    kind = draw.random()
    if kind < 0.9:
        return b"%b-%b_%d" % (run, draw.choice(_FUNCTIONS).encode(), number)
    odd = (b"", b"\xff\xfe", b"\x00", b"\n", "任务".encode(), b"x" * 20_000, b"-" * 50, b"*?[a]")
    return draw.choice(odd) + b"%d" % number


def _spoilt(draw: random.Random, names: Sequence[bytes]) -> _Fields:
    start, end, status, query, own, said = names
    features: _Fields = {b"text_length": b"%d" % draw.randrange(5_000), b"token_count": b"30"}
    features |= {b"image_height": b"300.5", b"duration": b"12.25", b"prompt_length": b"80"}
    fields = {
        start: b"%d.25" % (1_754_000_000 + draw.randrange(10**6)),
        status: b'"success"',
        query: b'"q"',
        b"final_answer": b'"' + b"y" * 300 + b'"',
    }
    fields[end] = fields[start][:-3] + b".%d" % draw.randrange(30, 99)
    spoil = draw.choice(_SPOILERS)
    other = dict(features)
    spoil(draw, names, fields, features if draw.random() < 0.7 else other)
    fields.setdefault(own, _map(features))
    to = [draw.choice(_FUNCTIONS).encode() for _ in range(2)]
    nested = _map({name: _map(other) for name in to})
    fields.setdefault(said, nested if said == _RECORD[5] and draw.random() < 0.7 else _map(other))
    return fields


def _nothing(*_: object) -> None:
    """A good one among them."""


def _a_field(draw: random.Random, names: Sequence[bytes], fields: _Fields, _: _Fields) -> None:
    fields[draw.choice(names)] = draw.choice(_VALUES)


def _a_feature(draw: random.Random, _: Sequence[bytes], __: _Fields, features: _Fields) -> None:
    features[draw.choice(list(features))] = draw.choice(_VALUES)


def _a_name(draw: random.Random, _: Sequence[bytes], fields: _Fields, features: _Fields) -> None:
    draw.choice((fields, features))[draw.choice(_NAMES)] = draw.choice(_VALUES)


def _a_time(draw: random.Random, names: Sequence[bytes], fields: _Fields, _: _Fields) -> None:
    fields[names[1]] = draw.choice((b"0", b"-5", b"1e18", b"9e99", fields[names[0]], b"1"))


def _a_status(draw: random.Random, names: Sequence[bytes], fields: _Fields, _: _Fields) -> None:
    fields[names[2]] = draw.choice(_STATUSES)


def _out_of_bounds(draw: random.Random, _: Sequence[bytes], __: _Fields, features: _Fields) -> None:
    features[draw.choice(list(features))] = draw.choice((b"-1", b"1e12", b"1e300", b"-1e300"))


def _many(draw: random.Random, _: Sequence[bytes], __: _Fields, features: _Fields) -> None:
    features |= {b"f%d" % number: b"1" for number in range(draw.choice((10, 1_000)))}


def _less(draw: random.Random, names: Sequence[bytes], fields: _Fields, features: _Fields) -> None:
    if draw.random() < 0.5:
        features.clear()
    else:
        del fields[draw.choice(names[:4])]


_SPOILERS: tuple[Callable[..., None], ...] = (
    _nothing,
    _nothing,
    _a_field,
    _a_field,
    _a_feature,
    _a_feature,
    _a_name,
    _a_time,
    _a_status,
    _out_of_bounds,
    _many,
    _less,
)


def _object(fields: _Fields, draw: random.Random) -> bytes:
    """`fields` as JSON, or something that only begins as such."""
    whole = _map(fields)
    damage = draw.random()
    if damage < 0.9:
        return whole
    at = draw.randrange(len(whole))
    return draw.choice(
        (
            b"",
            whole[:at],
            whole[:at] + b"\xff" + whole[at:],
            whole[:at] + b"\x00" + whole[at + 1 :],
            b"\xef\xbb\xbf" + whole,
            whole + whole,
            whole[:-1] + b"," + whole[1:],  # every key twice
            draw.choice(_VALUES),
            draw.randbytes(draw.randrange(200)),
        )
    )


def _map(fields: _Fields) -> bytes:
    return b"{" + b", ".join(b'"%b": %b' % item for item in fields.items()) + b"}"


def _text(raw: bytes) -> bytes:
    """As a JSON string, half a surrogate pair for each byte that is not UTF-8."""
    return json.dumps(raw.decode("utf-8", "surrogateescape")).encode()


def _huge(number: int) -> bytes:
    """Good, but for its size; or one large lie."""
    good = b'"start_time": 1754000000.5, "end_time": 1754000009.5'
    kinds = (
        (b'{%b, "final_answer": "' % good, b"y", b'"}'),
        (b'{%b, "curr_task_feat": {"text_length": 1, "x": "' % good, b"z", b'"}}'),
        (b'{%b, "curr_task_feat": {"a": ' % good, b"[", b""),
        (b'{%b, "succ_task_feat": {"a": {' % good, b'"b": 1, ', b'"c": 1}}}'),
        (b'{%b, "message": NaN, "curr_task_feat": {"a": [' % good, b"1, ", b"1]}}"),
    )
    head, body, tail = kinds[number % len(kinds)]
    return head + body * ((HUGE - len(head) - len(tail)) // len(body)) + tail
