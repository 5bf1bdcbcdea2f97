"""A real PostgreSQL for tests, where Debian's package or another one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["serving"]

_LOG = "server.log"


@contextmanager
def serving(sql: str) -> Iterator[Path]:
    """The directory of its socket: it listens nowhere else. `sql` is what its owner has run."""
    programs = _programs()
    # Not pytest's own, which nobody but root may enter: PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(program: str, *words: object) -> None:
        command = [*user, programs / program, *words]
        # To a file: a server that is started here would keep a pipe open.
        with (folder / f"{program}.txt").open("w") as output:
            done = subprocess.run(
                [str(word) for word in command], stdout=output, stderr=output, cwd="/", check=False
            )
        if done.returncode:
            said = [file.read_text("utf-8", "replace") for file in folder.glob("*.[tl][xo]*")]
            raise RuntimeError("\n".join(said))

    data = folder / "data"
    options = f"-c listen_addresses= -c fsync=off -c unix_socket_directories={folder}"
    try:
        run("initdb", "--username", "owner", "--auth", "trust", "--no-sync", data)
        run("pg_ctl", "-D", data, "-l", folder / _LOG, "-o", options, "-w", "-t", 120, "start")
        try:
            for line in filter(None, sql.splitlines()):
                run("psql", "-h", folder, "-U", "owner", "-d", "postgres", "-c", line)
            yield folder
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Where `initdb` is; skips where it is nowhere, or nobody may run it."""
    if found := shutil.which("initdb"):
        place = Path(found).resolve().parent
    elif versions := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        place = versions[-1].parent
    else:
        pytest.skip("PostgreSQL is not installed")
    if os.getuid() == 0 and not (shutil.which("setpriv") and _is_user("postgres")):
        pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres")
    return place


def _is_user(name: str) -> bool:
    import pwd

    return any(one.pw_name == name for one in pwd.getpwall())
