"""A small real workload, executed on this machine, for when there are no logs yet.

What is real: every task computes, for as long as its own input makes it. A language
task runs a transformer over the tokens of its text and decodes an answer token by
token; a vision task attends over the patches of its images; a speech task transforms
the frames of its audio and steps a recurrent network through them; a fuse task encodes
two answers that two earlier tasks decoded. The text is English from the standard
library, images are drawn, audio is synthesised, all from a seed. Start and end are the
worker's clock around that work; features are `extract`'s, of those very inputs.

What is not: the weights are random, so the answers mean nothing, and the models are
tiny, so a task takes tenths of a second. Nothing sleeps and no duration is invented.

The workflows are those of Maze's own logs (same functions, same edges, same record
keys), so the records need no special case anywhere: each worker leaves
`result:<run>-<function>` in Redis, as a Maze worker does.
"""

from __future__ import annotations

from malearn.workload.executor import execute

__all__ = ["execute"]
