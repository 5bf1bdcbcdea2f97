"""A pause for Python's cycle collector while many objects, all of them kept, come into being."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept"]


@contextmanager
def kept() -> Iterator[None]:
    """Look for no cycles meanwhile: among a batch's objects there are none, and looking
    through them again and again costs half the time of building them."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
