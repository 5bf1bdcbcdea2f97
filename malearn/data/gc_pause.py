"""A pause of Python's cycle collector while many objects are built that all stay alive."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["gc_paused"]


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the cycle collector inside the block; what was disabled before stays so.

    A batch's objects form no cycles, and scanning them again and again costs half the
    time of building them.
    """
    # Nested pauses, and callers who disabled it themselves: only the outermost enables it again.
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
