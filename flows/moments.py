"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

from malearn.kernel.errors import InputError

__all__ = ["seconds"]


def seconds(moment: str | float | None) -> float | None:
    """A date, or a date and a time, as seconds since the epoch; UTC unless it says otherwise.

    Such seconds themselves are left as they are. Raises `InputError` for what is neither.
    """
    if moment is None or not isinstance(moment, str):
        return moment
    try:
        known = datetime.fromisoformat(moment)
    except ValueError:
        raise InputError(moment, "must be a date such as 2026-03-01, or 2026-03-01T12:00") from None
    return (known if known.tzinfo else known.replace(tzinfo=UTC)).timestamp()
