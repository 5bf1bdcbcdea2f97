"""The names that one installation uses on servers it shares: Redis keys, models, experiments.

All begin with one prefix, `$MALEARN_PREFIX` or `malearn`, which keeps several installations apart.
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass

from malearn.kernel.errors import InputError

__all__ = ["MOST_STREAMS", "PREFIX_SETTING", "STREAMS_SETTING", "Names", "stream_count"]

PREFIX_SETTING = "MALEARN_PREFIX"
#: How many streams schedulers spread executions over, and how many there may be.
STREAMS_SETTING, MOST_STREAMS = "MALEARN_STREAMS", 64
_DEFAULT = "malearn"
# It stands in patterns of SCAN and in filters of MLflow: no `*`, `?`, `[`, `%` or quotes.
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of the installation with this prefix.

    >>> Names("team-a").stream, Names("team-a").registered_model("llm_process")
    ('team-a:executions', 'team-a-llm_process')
    """

    prefix: str = _DEFAULT

    @classmethod
    def find(cls, prefix: str | None = None) -> Names:
        """Those of `prefix`, else of `$MALEARN_PREFIX`. Raises `InputError` for what is none."""
        given = prefix or os.environ.get(PREFIX_SETTING) or _DEFAULT
        if not _PREFIX.fullmatch(given):
            raise InputError(
                "prefix" if prefix else PREFIX_SETTING,
                "must begin with a letter and hold at most 64 letters, digits, '_', '.' and '-', "
                f"not '{given[:80]}'",
            )
        return cls(given)

    @property
    def is_default(self) -> bool:
        return self.prefix == _DEFAULT

    @property
    def stream(self) -> str:
        """The Redis stream of executions; the first where there are several."""
        return f"{self.prefix}:executions"

    def streams(self, count: int = MOST_STREAMS) -> list[str]:
        """The keys of the first `count` streams."""
        # The first has no number: it is the one of installations that have never had another.
        return [self.stream, *(f"{self.stream}:{number}" for number in range(1, count))]

    def stream_of(self, run_id: str, count: int) -> int:
        """In which of `count` streams the executions of a run are: all of them in one."""
        # Not `hash`, which differs from process to process: schedulers must agree.
        return zlib.crc32(run_id.encode("utf-8", "replace")) % count if count > 1 else 0

    @property
    def history(self) -> str:
        """What a function's name follows in the key of its recent observations."""
        return f"{self.prefix}:history:"

    @property
    def functions(self) -> str:
        """The sorted set of functions, by how much each is used."""
        return f"{self.prefix}:functions"

    @property
    def in_several_slots(self) -> tuple[str, ...]:
        """Keys that no node of a Redis Cluster answers for at once: they are in several slots."""
        # Three, as two may by chance be in one slot with somebody's prefix.
        return self.stream, self.functions, self.workflow_scores

    @property
    def workflow(self) -> str:
        """What a run id follows in the key of its status."""
        return f"{self.prefix}:workflow:"

    @property
    def workflow_scores(self) -> str:
        return f"{self.prefix}:workflow_scores"

    @property
    def workflow_hints(self) -> str:
        """The list of what followed the hints of workflows."""
        return f"{self.prefix}:workflow_hints"

    @property
    def workflow_shapes(self) -> str:
        """The list of what workflows became whose shape was discovered while they ran."""
        return f"{self.prefix}:workflow_shapes"

    @property
    def workflow_outcomes(self) -> str:
        """The list of how tasks ended of functions that have failed."""
        return f"{self.prefix}:workflow_outcomes"

    @property
    def locks(self) -> str:
        """What a lock's name follows in its key."""
        return f"{self.prefix}:lock:"

    @property
    def models(self) -> str:
        """What all registered models begin with."""
        return f"{self.prefix}-"

    def registered_model(self, tool_type: str) -> str:
        """The name of a tool type's models in the MLflow registry."""
        return f"{self.prefix}-{tool_type}"

    def experiment(self, what: str) -> str:
        """An MLflow experiment that belongs to no tool type."""
        return f"{self.prefix}-{what}"

    def deployment(self, name: str) -> str:
        """A Prefect deployment; as it is declared in an installation without a prefix."""
        return name if self.is_default else f"{self.prefix}-{name}"

    def tool_type_resource(self, tool_type: str) -> str:
        """The Prefect resource that events about a tool type name."""
        return f"{self.prefix}.tool-type.{tool_type}"


def stream_count() -> int:
    """Over how many streams executions are spread. Raises `InputError` for what is no number."""
    given = os.environ.get(STREAMS_SETTING) or "1"
    # `isdigit` alone accepts '²' as well, of which `int` makes no number.
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= MOST_STREAMS:
        raise InputError(
            STREAMS_SETTING, f"must be a number of streams from 1 to {MOST_STREAMS}, not '{given}'"
        )
    return int(given)
