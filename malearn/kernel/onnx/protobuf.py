"""A bounded reader of protobuf messages: parts by number, nothing trusted.

A scheduler looks into an ONNX file before onnxruntime does, and the `onnx` package is
not part of its installation. What a message may contain is named by the caller;
whatever else it holds is an error. Long runs of numbers are decoded at once by numpy.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Budget",
    "MalformedMessage",
    "UnacceptedField",
    "integers",
    "octets",
    "parse",
    "reals",
    "text",
]

Numbers = npt.NDArray[Any]
#: Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
_CHUNK = 256 * 1024  # bytes decoded at once; each takes ten times as much memory meanwhile


class MalformedMessage(ValueError):
    """The bytes are no such message, or hold a part that is not accepted."""


class UnacceptedField(MalformedMessage):
    """A message holds a field that the caller did not name."""

    def __init__(self, what: str, number: int) -> None:
        self.number = number
        super().__init__(f"{what} has a part that is not accepted (field {number})")


class Budget:
    """How many more parts may be read of one file: what bounds the time that reading takes."""

    __slots__ = ("left",)

    def __init__(self, parts: int) -> None:
        self.left = parts

    def spend(self, parts: int = 1) -> None:
        self.left -= parts
        if self.left < 0:
            raise MalformedMessage("it has too many parts")


def parse(
    data: memoryview, accepted: Container[int], what: str, budget: Budget
) -> dict[int, list[Any]]:
    """The parts of one message, by field number, in their order.

    A part is an int, a `memoryview` or, for a run of numbers, an array of int64 or
    of float32. Raises `UnacceptedField`, naming `what`, for a field not `accepted`.
    """
    parts: dict[int, list[Any]] = {}
    at, end, last = 0, len(data), -1
    while at < end:
        budget.spend()
        start = at
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number not in accepted:
            raise UnacceptedField(what, number)
        value: Any
        if wire == _VARINT:
            if number == last:
                # ONNX's attributes are unpacked lists: each number of a tree has a tag of its own.
                value, at = _varint_run(data, start, tag)
            else:
                value, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif wire in _WIDTH:
            # A tag of one byte and four of the number: rows of five, which numpy reads at once.
            run = number == last and wire == _FIXED32 and tag < 0x80
            if run:
                value, at = _fixed_run(data, start, tag)
            else:
                value, at = data[at : at + _WIDTH[wire]], at + _WIDTH[wire]
        else:
            raise MalformedMessage(f"{what} is not a protobuf message")
        if at > end:
            raise MalformedMessage(f"{what} is cut short")
        if number != last and wire != _BYTES and number in parts:
            # Nobody writes so; and reading it would take time that grows with the square.
            raise MalformedMessage(f"{what} repeats a part that must occur once (field {number})")
        parts.setdefault(number, []).append(value)
        last = number
    return parts


def integers(parts: list[Any]) -> npt.NDArray[np.int64]:
    """The numbers of a repeated integer field, whether packed or not."""
    return _joined([_integers(part) for part in parts], np.int64)


def reals(parts: list[Any]) -> npt.NDArray[np.float32]:
    """The numbers of a repeated float field, whether packed or not."""
    return _joined([_reals(part) for part in parts], np.float32)


def octets(part: Any) -> bytes:
    """The bytes of a field that holds some; of a number there are none."""
    if not isinstance(part, memoryview):
        raise MalformedMessage("it has a number where a text should be")
    return bytes(part)


def text(part: Any) -> str:
    """The text of a string field."""
    try:
        return octets(part).decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage("it has a name that is not UTF-8") from error


def _joined(arrays: list[Numbers], kind: type[Any]) -> Numbers:
    return np.concatenate(arrays) if arrays else np.empty(0, kind)


def _integers(part: Any) -> Numbers:
    if isinstance(part, int):
        # Negative numbers are written as their two's complement in 64 bits.
        return np.array([part], np.uint64).view(np.int64)
    if isinstance(part, memoryview):
        return _decoded(part)
    return np.asarray(part, np.int64)


def _reals(part: Any) -> Numbers:
    if isinstance(part, memoryview) and len(part) % 4 == 0:
        return np.frombuffer(part, "<f4")
    if isinstance(part, np.ndarray) and part.dtype == np.float32:
        return part
    raise MalformedMessage("it has a malformed list of floats")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise MalformedMessage("it has a number that is cut short or too long")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            # Ten bytes hold 70 bits, of which protobuf keeps the lower 64.
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _varint_run(data: memoryview, at: int, tag: int) -> tuple[Numbers, int]:
    """The numbers from `at` on that each stand behind `tag`, and where they end."""
    found: list[Numbers] = []
    while True:
        chunk = np.frombuffer(data[at : at + _CHUNK], np.uint8)
        values, starts = _varints(chunk)
        pairs = len(values) // 2
        other = np.flatnonzero(values[: 2 * pairs : 2].view(np.uint64) != tag)
        count = int(other[0]) if len(other) else pairs
        if not count:
            if not found:
                raise MalformedMessage("it has a number that is cut short or too long")
            return np.concatenate(found), at
        found.append(values[1 : 2 * count : 2])
        at += int(starts[2 * count])


def _decoded(data: memoryview) -> Numbers:
    """A packed list of varints."""
    found, at = [np.empty(0, np.int64)], 0
    while at < len(data):
        values, starts = _varints(np.frombuffer(data[at : at + _CHUNK], np.uint8))
        if not len(values):
            raise MalformedMessage("it has a number that is cut short or too long")
        found.append(values)
        at += int(starts[-1])
    return np.concatenate(found)


def _varints(chunk: npt.NDArray[np.uint8]) -> tuple[Numbers, Numbers]:
    """The whole varints that `chunk` begins with, as int64; where each starts and the last ends."""
    starts = np.concatenate(([0], np.flatnonzero(chunk < 0x80) + 1))
    lengths = np.diff(starts)
    if len(longer := np.flatnonzero(lengths > 10)):  # what follows are no numbers
        starts, lengths = starts[: longer[0] + 1], lengths[: longer[0]]
    if not len(lengths):
        return np.empty(0, np.int64), starts
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    bits = (chunk[: starts[-1]] & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    # The bits of one number do not overlap, so their sum puts them together.
    return np.add.reduceat(bits, starts[:-1]).view(np.int64), starts


def _fixed_run(data: memoryview, at: int, tag: int) -> tuple[Numbers, int]:
    """The floats from `at` on that each stand behind the one byte `tag`, and where they end."""
    rest = np.frombuffer(data[at:], np.uint8)
    rows = rest[: len(rest) // 5 * 5].reshape(-1, 5)
    other = np.flatnonzero(rows[:, 0] != tag)
    count = int(other[0]) if len(other) else len(rows)
    if not count:
        raise MalformedMessage("it has a number that is cut short")
    return rows[:count, 1:].copy().view("<f4").ravel(), at + 5 * count
