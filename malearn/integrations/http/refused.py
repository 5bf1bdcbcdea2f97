"""A request that is refused: its HTTP status, and a sentence for whoever sent it."""

from __future__ import annotations

__all__ = ["RequestRefused"]


class RequestRefused(Exception):
    """Answered with `status` and `sentence`; never leaves the HTTP service."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status, self.sentence = status, sentence
        super().__init__(sentence)
