"""The short form of `make soak`: seconds instead of hours, and no models."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import figures_of, soak


def test_what_is_reported_while_redis_is_restarted_is_all_in_the_datasets(tmp_path: Path) -> None:
    """And every answer is a time. Nothing here depends on how fast the machine is."""
    seen = soak(4.0, tmp_path, rate=200.0, models=False, every=2.0)
    assert seen.redis_restarts >= 1
    assert seen.samples[-1]["collected"] > 0
    found = {figure.figure.partition(",")[0]: figure for figure in figures_of(seen)}
    for name in (
        "answers that are no time",
        "failures of malearn's own",
        "reports neither sent nor counted",
        "reports neither in a dataset nor kept out with a reason",
    ):
        assert found[name].met, found[name]
