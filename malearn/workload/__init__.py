"""A small real workload, executed on this machine, for when there are no logs yet.

Every task computes, for as long as its own input makes it: a language task reads the tokens of
its text and writes an answer word by word, a vision task reads the patches of its images, a
speech task the spectrum of its audio, a fuse task two earlier answers. The text is English from
the standard library, images are drawn, audio is synthesised, all from a seed. Start and end are
the worker's clock around that work; features are `extract`'s, of those very inputs.

What is not real: the networks' weights are random, so answers mean nothing, and the networks are
tiny, so a task takes tenths of a second. Nothing sleeps and no duration is invented.

The workflows are those of Maze's own logs (same functions, same edges, same record keys): each
worker leaves `result:<run>-<function>` in Redis, as a Maze worker does.
"""

from __future__ import annotations

from malearn.workload.executor import execute

__all__ = ["execute"]
