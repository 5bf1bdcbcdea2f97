"""A Redis with TLS and a user of its own: schedulers report to it, and ingestion reads it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.stream import Stream
from malearn.kernel.errors import Unreachable
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from tests.own_redis import free_port

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[str]:
    """The address of a server that speaks TLS alone, with the password of its only user."""
    server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if server is None or openssl is None:
        pytest.skip("a redis-server with TLS, such as Debian's, or openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    make += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out"]
    subprocess.run([*make, str(certificate)], check=True, capture_output=True)
    port = free_port()
    given = {
        "port": 0, "tls-port": port, "bind": "127.0.0.1", "dir": tmp_path, "save": "",
        "tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate,
        "tls-auth-clients": "no", "user": "default off",
    }  # fmt: skip
    words = [w for name, value in given.items() for w in (f"--{name}", *_words(name, value))]
    words += ["--user", "team", "on", ">secret", "~*", "+@all"]
    process = subprocess.Popen([server, *words], stdout=subprocess.PIPE, text=True)
    try:
        _wait(process, port)
        yield f"rediss://team:secret@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    finally:
        process.kill()
        process.communicate()


def _words(name: str, value: object) -> list[str]:
    return str(value).split() if name == "user" else [str(value)]


def _wait(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        if process.poll() is not None:
            said = process.communicate()[0]
            if "TLS" in said or "tls" in said:
                pytest.skip(f"this redis-server has no TLS: {said.splitlines()[-1]}")
            raise AssertionError(said)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("redis-server does not listen")


def test_a_scheduler_reports_over_it_and_ingestion_reads_it(
    tls: str, predictor: Callable[..., Any], record: Any, home: Home, eventually: Any
) -> None:
    p = predictor(tls, budget=60.0)
    assert p.wait_until_ready()
    p.collect_data_for_task(f"{RUN}-task2_llm_process", "task2_llm_process", record())
    eventually(lambda: p.stats().sent == 1)
    types = declared()
    with Stream(tls, types) as stream:
        report = sum(Ingest(home, types).drain(stream), IngestReport())
    assert report.records == 1


def test_a_certificate_of_nobody_we_know_is_refused(tls: str) -> None:
    with pytest.raises(Unreachable) as refused, Stream(tls.partition("?")[0], declared()) as stream:
        stream.state()
    assert "secret" not in str(refused.value)
