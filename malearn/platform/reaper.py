"""Stands between malearn and one server, and ends the server when nobody uses it.

Run by its path with `-I -S`, so it starts in milliseconds and imports nothing of ours:

    reaper.py LOCK_FD USERS_FILE STATE_FILE URL HOST COMMAND...

The server gets a process group of its own, which is ended as a whole. `LOCK_FD` is the open
lock that means "a server of this home runs"; server and reaper both hold it, so it is free
only once both are gone. Should the reaper itself be killed, Linux sends the server SIGTERM.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

GRACE = 10.0  # seconds from SIGTERM to SIGKILL
TICK = 0.25  # seconds between two checks of who still uses the server
PR_SET_PDEATHSIG = 1  # of prctl(2): Python has no name for it


def main(arguments: list[str]) -> int:
    lock, users, place, url, host, *command = arguments
    state = Path(place)
    wakeups, asked = signals()
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        pass_fds=(int(lock),),
        preexec_fn=die_with_parent(),  # safe: this process has one thread
    )
    write(state, {"url": url, "host": host, "pid": server.pid, "reaper": os.getpid()})
    with Path(users).open("rb") as users_file:
        while server.poll() is None and not asked and not unused(users_file.fileno(), state):
            select.select([wakeups], [], [], TICK)
            drain(wakeups)
    # Before the server ends, so that nobody attaches to it meanwhile.
    state.unlink(missing_ok=True)
    end(server)
    # Popen has minus the signal's number, a shell 128 plus it.
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def signals() -> tuple[int, list[int]]:
    """A descriptor that wakes `select` on any signal, and the requests to end so far."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    # `set_wakeup_fd` demands it: a full pipe must not block a signal handler.
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: asked.append(received))
    # Only a signal with a Python handler is written to the pipe; by default SIGCHLD is ignored.
    signal.signal(signal.SIGCHLD, lambda received, frame: None)
    return reading, asked


def drain(wakeups: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(wakeups, 4096)


def die_with_parent() -> Callable[[], None] | None:
    """What a child does between fork and exec to get SIGTERM with its parent's end."""
    if sys.platform != "linux":
        return None
    # Looked up before the fork: as little as possible may run between fork and exec.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def unused(users_file: int, state: Path) -> bool:
    """Whether no process holds a shared lock on the users file.

    The state file is removed while this process holds the exclusive lock, so that nobody finds
    it and attaches to a server that is about to end.
    """
    try:
        fcntl.flock(users_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    state.unlink(missing_ok=True)
    # Given back at once: a newcomer waits for its shared lock here, then for `LOCK_FD`, and then
    # starts a server of its own.
    fcntl.flock(users_file, fcntl.LOCK_UN)
    return True


def write(state: Path, content: dict[str, object]) -> None:
    # Renamed into place, so that no reader sees half of it.
    fresh = state.with_suffix(".new")
    fresh.write_text(json.dumps(content), "utf-8")
    fresh.replace(state)


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server's group, with SIGTERM first; also what its leader left behind."""
    deadline = time.monotonic() + GRACE
    alive = send(server, signal.SIGTERM)
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        # Reaps the leader: as a zombie it would still count as a process of its group.
        server.poll()
        alive = send(server, 0)
    if alive:
        send(server, signal.SIGKILL)
    server.wait()


def send(server: subprocess.Popen[bytes], number: int) -> bool:
    """Signal the server's group; whether there is one."""
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS, when only a zombie is left
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
