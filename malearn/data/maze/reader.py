"""Batches of outcomes from the runs of Maze stores, whole runs in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from malearn.data.maze import outcomes, run, store
from malearn.data.maze.cursor import Cursor
from malearn.data.maze.store import RunFolder
from malearn.kernel import generic, tool_types
from malearn.kernel.home import Home
from malearn.kernel.records import Execution, Rejected
from malearn.kernel.tool_types import ToolTypes

__all__ = ["announced", "known_types", "read", "with_announced"]

#: Outcomes of a batch, about.
_SIZE = 20_000

Batch = list[Execution | Rejected]


def announced(folders: Sequence[RunFolder], types: ToolTypes) -> list[str]:
    """The features of tasks that only the generic tool type claims: see `kernel.generic`."""
    names: dict[str, None] = {}
    for folder in folders:
        names |= dict.fromkeys(outcomes.announced(run.read(folder), types))
    return list(names)


def known_types(home: Home, folders: Sequence[RunFolder]) -> ToolTypes:
    """The declared tool types and, where there are runs, a generic one.

    What their tasks announce for unclaimed functions becomes its features, for good.
    Raises `DeclarationError`.
    """
    types = generic.declared(home)
    if not folders:
        return types
    types = generic.with_generic(types)
    found = generic.with_generic(types, announced(folders, types))
    # Kept for good: a table's column, or a model's input, must not come and go with the runs.
    if found.generic is not None and found.generic != generic.declared(home).generic:
        generic.keep(home, found.generic)
    return found


def with_announced(stores: Sequence[Path], types: ToolTypes | None = None) -> ToolTypes:
    """`types`, those declared unless given, and, where there are `stores`, a generic one as they
    have it.

    Raises `DeclarationError` and `InputError`.
    """
    types = tool_types.declared() if types is None else types
    if not stores:
        return types
    types = generic.with_generic(types)
    return generic.with_generic(types, announced(store.find(stores), types))


def read(
    folders: Sequence[RunFolder],
    types: ToolTypes,
    cursor: Cursor | None = None,
    size: int = _SIZE,
) -> Iterator[tuple[Batch, Callable[[], None]]]:
    """Batches of what became of the tasks in `folders`.

    With a `cursor`, of those that it has not seen. Each batch comes with what to call once it is
    in the datasets, which moves the cursor.
    """
    batch: Batch = []
    notes: list[tuple[RunFolder, tuple[int, ...], int]] = []

    def done(noted: list[tuple[RunFolder, tuple[int, ...], int]]) -> Callable[[], None]:
        def note() -> None:
            # Called after the commit: a cursor ahead of the datasets would lose tasks.
            if cursor is not None and noted:
                for one in noted:
                    cursor.note(*one)
                cursor.save()

        return note

    for folder in folders:
        fingerprint = folder.fingerprint  # before it is read: what comes later is read next time
        found = run.read(folder)
        after = 0 if cursor is None else cursor.line(folder)
        if after > found.lines:  # the file is another one
            after = 0
        batch += outcomes.of_run(found, types, after=after)
        notes.append((folder, fingerprint, found.lines))
        if len(batch) >= size:
            yield batch, done(notes)
            batch, notes = [], []
    if batch or notes:
        yield batch, done(notes)
