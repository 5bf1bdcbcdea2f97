"""The cycle collector pauses, and is afterwards as it was before."""

from __future__ import annotations

import gc

import pytest

from malearn.data import gc_pause


def test_no_cycles_are_looked_for_meanwhile_whatever_happens() -> None:
    with pytest.raises(KeyError), gc_pause.gc_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with gc_pause.gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
