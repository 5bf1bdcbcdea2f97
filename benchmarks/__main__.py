"""Every figure beside its target: `python -m benchmarks [MODULE…]`, also as `make bench`.

A module of this package that offers `figures()` is a benchmark; what its figures were
measured against stands in their names and in the head of its docstring. They also go to
`benchmarks/results.json`. A figure that falls short is reported, not hidden. Of a module that
offers `PARTS`, `--part NAME` measures one of them; it may be given several times.
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
    parser.add_argument(
        "--part", action="append", default=[], metavar="NAME", help="of a module, only this part"
    )
    given = parser.parse_args(arguments)
    chosen = given.modules or names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"there is no module {', '.join(unknown)} in benchmarks")
    chosen_ones = list(_benchmarks(chosen, given.part))
    if given.part and not chosen_ones:
        parser.error(f"no module has a part {', '.join(given.part)}")
    found: list[Figure] = []
    for title, figures in chosen_ones:
        print(f"{title}\n", flush=True)
        for figure in figures():  # one by one: some take minutes
            print(table([figure]), flush=True)
            found.append(figure)
        print(flush=True)
        if found:
            write(found, RESULTS)
    if not found:  # parts that print tables: what was kept before stays
        return
    met = sum(figure.met for figure in found)
    print(f"{met} of {len(found)} figures reach their target; all are in {RESULTS}")


def write(figures: Iterable[Figure], file: Path) -> None:
    """Keep `figures` as JSON, in one piece or not at all."""
    values = [asdict(f) | {"value": float(f.value), "target": float(f.target)} for f in figures]
    temporary = file.with_suffix(".tmp")
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    temporary.write_text(f"{text}\n", encoding="utf-8")
    temporary.replace(file)


def _benchmarks(
    names: Iterable[str], parts: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Iterable[Figure]]]]:
    """Of the modules `names`, those that offer figures, each with the head of its docstring.

    With `parts`, only these of a module that has them.
    """
    for name in names:
        module = import_module(f"benchmarks.{name}")
        title = inspect.getdoc(module) or name
        known = getattr(module, "PARTS", {})
        figures = getattr(module, "figures", None)
        if parts:
            yield from (
                (f"{title}\n\nPart: {part}", known[part]) for part in parts if part in known
            )
        elif figures is not None:
            yield title, figures


if __name__ == "__main__":
    main()
