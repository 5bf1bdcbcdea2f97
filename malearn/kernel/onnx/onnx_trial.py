"""The first load and run of a model, in a process of its own with little time and memory.

`onnx_file.check` has looked at the file by then; what it cannot know, onnxruntime's own
optimisations and faults, shows here: where a model crashes, hangs or takes all memory,
it is this process that ends, and the model is refused. Once per file is enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import numpy as np

from malearn.kernel import late_imports
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.model_metadata import INPUT, OUTPUT

if TYPE_CHECKING:
    import subprocess

__all__ = ["CPU_SECONDS", "MEMORY", "Trial", "main"]

#: Seconds of CPU for one model. Ours take a hundredth of that.
CPU_SECONDS = 0.4
#: Bytes of address space beyond what Python and onnxruntime take.
MEMORY = 512 * 1024 * 1024
#: Seconds until Python and onnxruntime are loaded, and until an answer must be there however
#: busy the machine is.
_START, _ANSWER = 60.0, 30.0
#: Rows asked for: one, and as many as a long queue of tasks.
_ROWS = (1, 2048)
#: Not `-m`, which would find modules of a user's by our names: it imports what we imported.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from malearn.kernel.onnx import onnx_trial; onnx_trial.main()"
)
_READY, _PASSED = b"ready", b"passed"
_LENGTH = struct.Struct("<Q")


class Trial:
    """A process that tries models, started when the first one comes. Not thread-safe.

    It ends with the `with` statement, or with a model that ends it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def check(self, artifact: bytes) -> None:
        """Load and run a model there. Raises `ValueError`, with the reason it is refused for."""
        process = self._process or self._started()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then its end says why
            process.stdin.write(_LENGTH.pack(len(artifact)) + artifact)
            process.stdin.flush()
        answer = _line(process, _ANSWER)
        # The process goes on to the next model after a pass alone: what a failed one did to its
        # memory nobody knows.
        if answer == _PASSED:
            return
        self.close()
        if answer is None:
            raise ValueError(f"its test run takes longer than {_ANSWER:.0f} s")
        raise ValueError(answer.decode(errors="replace") or _end(process.returncode))

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self._process.wait()
        self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        with late_imports.uninterrupted():
            import subprocess  # a start from the cache does without

        # -I: no variable and no directory chooses what is imported; -B: it may not write files.
        command = [sys.executable, "-I", "-B", "-c", _PROGRAM, json.dumps(sys.path)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is not for it
            )
        except OSError as error:
            raise ValueError(f"the process that tests it cannot be started ({error})") from error
        if _line(self._process, _START) != _READY:
            self.close()
            raise ValueError("the process that tests it does not start")
        return self._process


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """The next line that the process writes, b"" when it ended; None when that takes too long."""
    assert process.stdout is not None
    # select and read, since `readline` would wait for a process that hangs.
    until, answer, stream = time.monotonic() + seconds, b"", process.stdout.fileno()
    while not answer.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            return None
        part = os.read(stream, 4096)
        if not part:
            return b""
        answer += part
    return answer[:-1]


def _end(status: int) -> str:
    """What it means that the process ended so."""
    if status == -signal.SIGPROF:
        return f"loading and running it takes more than {CPU_SECONDS} s of CPU time"
    what = signal.Signals(-status).name if status < 0 else f"status {status}"
    return f"it crashes onnxruntime ({what})"


def main() -> None:
    """The process: read models from the standard input, load and run each, say what came of it."""
    onnx_model.runtime()  # loaded before the limits hold
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever onnxruntime prints is no answer of ours
    _answer(answers, _READY)
    while length := sys.stdin.buffer.read(_LENGTH.size):
        artifact = sys.stdin.buffer.read(*_LENGTH.unpack(length))
        # Not RLIMIT_CPU, which counts whole seconds. SIGPROF without a handler ends the process at
        # once, also within onnxruntime, where Python's handlers do not run.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            _try(artifact)
        except MemoryError:
            _answer(answers, f"it needs more than {MEMORY // 2**20} MiB of memory".encode())
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
            _answer(answers, f"onnxruntime cannot run it ({type(error).__name__})".encode())
        else:
            _answer(answers, _PASSED)
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _try(artifact: bytes) -> None:
    session = onnx_model.session(artifact)
    (given,) = session.get_inputs()
    for rows in _ROWS:
        session.run([OUTPUT], {INPUT: np.zeros((rows, given.shape[1]), np.float32)})


def _answer(stream: IO[bytes], text: bytes) -> None:
    stream.write(text.replace(b"\n", b" ") + b"\n")


def _limit_memory() -> None:
    """Let the process grow by `MEMORY` at most, write no file and dump no core."""
    import resource

    size = 0
    with contextlib.suppress(OSError, ValueError):
        # What is mapped by now, since the limit is one of all address space, used or not.
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with contextlib.suppress(OSError, ValueError):  # not everywhere can it be limited
        if size:
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
