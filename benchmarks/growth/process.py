"""What a process of its own costs, and what the parts say while they run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["answer", "ask", "peak", "resident", "say", "timed"]

_ROOT = Path(__file__).parents[2]


def say(text: str) -> None:
    """Progress, on stderr: stdout holds the figures."""
    print(f"  {time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def ask(module: str, *words: object) -> Any:
    """What `python -m benchmarks.growth.MODULE WORDS` answers."""
    command = [sys.executable, "-m", f"benchmarks.growth.{module}", *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    return json.loads(done.stdout)


def answer(value: object) -> None:
    """Answer the process that asked."""
    print(json.dumps(value))


def peak() -> float:
    """The most memory that this process has used, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def resident() -> float:
    """The memory that this process uses now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def timed(command: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of `command`, whose output is dropped; what it started included."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment}, cwd=_ROOT
    )
    after = os.times()
    used = after.children_user + after.children_system
    return time.perf_counter() - began, used - before.children_user - before.children_system
