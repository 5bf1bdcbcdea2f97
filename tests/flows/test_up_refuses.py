"""What `malearn up` says in one sentence, on machines that cannot carry it."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

from malearn.kernel.home import Home
from tests.flows.conftest import MALEARN, Cli, clean, processes


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence of a refusal."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    *_, sentence = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    return sentence


def mounted(folder: Path, options: str) -> subprocess.CompletedProcess[str]:
    """`malearn up` on a small file system of its own, mounted at `folder` for it alone."""
    folder.mkdir()
    script = 'mount -t tmpfs -o "$1" none "$2" && exec "$3" up --home "$2/home"'
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        probe = subprocess.run(
            [*alone, 'mount -t tmpfs none "$1"', "sh", folder], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if probe.returncode:
        pytest.skip("nobody may mount here")
    return subprocess.run(
        [*alone, script, "sh", options, folder, MALEARN],
        cwd=folder.parent,
        env=clean(folder.parent),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_full_disk(tmp_path: Path) -> None:
    sentence = refused(mounted(tmp_path / "small", "size=8m"))
    assert re.search(r"is not started because the disk is full: [78] MB are free", sentence)


def test_a_home_that_can_only_be_read(tmp_path: Path) -> None:
    sentence = refused(mounted(tmp_path / "fixed", "ro"))
    assert sentence == f"malearn: {tmp_path}/fixed/home: Read-only file system."


def test_an_occupied_port_ends_what_had_started(cli: Cli, home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = refused(cli("up", "--home", home.root, "--mlflow-port", port))
    assert f"MLflow cannot listen on 127.0.0.1:{port} because the port is in use" in sentence
    assert processes(home) == set()


def test_a_given_server_that_is_not_there(cli: Cli, home: Home) -> None:
    sentence = refused(cli("up", "--home", home.root, MALEARN_REDIS_URL="redis://127.0.0.1:1"))
    assert sentence.startswith("malearn: Redis at redis://127.0.0.1:1 cannot be reached")


def test_a_host_that_is_none(cli: Cli, home: Home) -> None:
    done = cli("up", "--home", home.root, "--host", "everywhere")
    assert done.returncode == 2
    assert "'everywhere' is not an IPv4 address" in done.stderr
