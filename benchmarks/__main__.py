"""Every figure beside its target: `python -m benchmarks [MODULE…]`, also as `make bench`.

A module of this package that offers `figures()` is a benchmark; what its figures were
measured against stands in their names and in the head of its docstring. They also go to
`benchmarks/results.json`. A figure that falls short is reported, not hidden.
"""

from __future__ import annotations

import argparse
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import benchmarks
from benchmarks.figure import Figure, table

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the modules named in `arguments`, or all; print and keep what they found."""
    modules = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    names = [name for name in modules if not name.startswith("_")]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="which; without any, all")
    chosen = parser.parse_args(arguments).modules or names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"there is no module {', '.join(unknown)} in benchmarks")
    found: list[Figure] = []
    for title, figures in _benchmarks(chosen):
        print(f"{title}\n", flush=True)
        measured = list(figures())
        print(f"{table(measured)}\n", flush=True)
        found += measured
        write(found, RESULTS)
    met = sum(figure.met for figure in found)
    print(f"{met} of {len(found)} figures reach their target; all are in {RESULTS}")


def write(figures: Iterable[Figure], file: Path) -> None:
    """Keep `figures` as JSON, in one piece or not at all."""
    values = [asdict(f) | {"value": float(f.value), "target": float(f.target)} for f in figures]
    temporary = file.with_suffix(".tmp")
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    temporary.write_text(f"{text}\n", encoding="utf-8")
    temporary.replace(file)


def _benchmarks(names: Iterable[str]) -> Iterator[tuple[str, Callable[[], Iterable[Figure]]]]:
    """Of the modules `names`, those that offer figures, each with the head of its docstring."""
    for name in names:
        module = import_module(f"benchmarks.{name}")
        figures = getattr(module, "figures", None)
        if figures is not None:
            yield inspect.getdoc(module) or name, figures


if __name__ == "__main__":
    main()
