"""Which names features may have: each becomes a column, of datasets and among a model's inputs."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["problem", "usable"]


def problem(features: Iterable[str], context: Iterable[str] = ()) -> str:
    """What is wrong with these names of one tool type, or ""."""
    reserved, seen = _reserved(), dict[str, str]()
    features = list(features)
    for name in features:
        if name in reserved:
            return (
                f"feature {name} has the name of an input that malearn computes for every model "
                f"({', '.join(reserved)}); rename it"
            )
    for name in (*features, *context):
        key = name.casefold()
        if (other := seen.get(key)) is not None:
            what = "twice" if other == name else f"and {other}, which differ in case alone"
            return f"declares {name} {what}; rename one"
        seen[key] = name
    return ""


def usable(names: Iterable[str], known: Iterable[str] = ()) -> list[str]:
    """Those of `names` that may be features beside `known` ones, the first of equal ones."""
    reserved, found = _reserved(), dict[str, str]()
    taken = {name.casefold() for name in known}
    for name in names:
        key = name.casefold()
        if name not in reserved and key not in taken:
            found.setdefault(key, name)
    return list(found.values())


def _reserved() -> tuple[str, ...]:
    # Late: the declaration is also read where nothing is estimated, as by `malearn --help`.
    from malearn.kernel.estimation import history

    return history.FEATURES
