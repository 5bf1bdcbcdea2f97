"""A Redis URL says where, which database, and who asks; the password stays unseen."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from malearn.kernel.errors import InputError
from malearn.kernel.redis_address import Address, Tls
from malearn.platform.redis import binary
from malearn.serving.connector import Connector
from malearn.serving.resp import ResponseError, pack


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address()),
        ("redis://cache", Address("cache")),
        ("redis://cache:7000/3", Address("cache", 7000, database=3)),
        ("redis://[::1]:7000?db=4", Address("::1", 7000, database=4)),
        ("redis://ann:p%40ss@cache", Address("cache", user="ann", password="p@ss")),
        ("redis://ann:p%23s@cache", Address("cache", user="ann", password="p#s")),
        ("redis://ann@cache", Address("cache", user="ann")),
        ("redis://cache?username=ann&password=%2523", Address("cache", user="ann", password="%23")),
        ("redis://ann@cache?password=p", Address("cache", user="ann", password="p")),
        ("unix:///tmp/redis.sock?db=1", Address(path="/tmp/redis.sock", database=1)),
        ("rediss://cache", Address("cache", tls=Tls())),
        ("rediss://c?ssl_cert_reqs=none", Address("c", tls=Tls("none", False))),
        ("rediss://c?ssl_check_hostname=False", Address("c", tls=Tls(check_hostname=False))),
        ("rediss://c?ssl_cert_reqs=OPTIONAL", Address("c", tls=Tls("optional"))),
    ],
)
def test_addresses_are_read_as_redis_py_reads_them(url: str, address: Address) -> None:
    assert Address.parse(url) == address
    theirs = redis.connection.parse_url(url)
    assert theirs.get("username", "") == address.user
    assert theirs.get("password", "") == address.password


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must begin with redis://, rediss:// or unix://"),
        ("cache:6379", "must begin with"),
        ("http://c", "must begin with"),
        ("redis+sentinel://c/mymaster", "Sentinel is not supported"),
        ("redis://u:secret@c:x", "its host or port cannot be read"),
        ("redis://u:secret#1@c", "it has a #.*%23"),
        ("redis://u:12#secret@c", "it has a #.*%23"),
        ("redis://u:secret/1@c", "its host or port cannot be read; .*%2F"),
        ("redis://u:12?secret@c", "an @ after its .*%3F"),
        ("redis://c/x", "its database is not a number"),
        ("redis://c?db=-1", "its database is not a number"),
        ("redis://c?db=", "'db' has no value"),
        ("redis://c?db=1&db=2", "'db' is given twice"),
        ("redis://c?socket_timeout=5", "'socket_timeout' is not one of its options"),
        ("redis://c?ssl_cert_reqs=required", "'ssl_cert_reqs' needs rediss://"),
        ("rediss://c?ssl_cert_req=required", "'ssl_cert_req' is not one of its options"),
        ("rediss://c?ssl_cert_reqs=CERT_REQUIRED", "'ssl_cert_reqs' must be one of"),
        ("rediss://c?ssl_check_hostname=on", "'ssl_check_hostname' must be true or false"),
        ("rediss://c?ssl_cert_reqs=none&ssl_check_hostname=1", "needs a certificate"),
        ("rediss://c?ssl_keyfile=k", "'ssl_keyfile' needs 'ssl_certfile'"),
        ("rediss://c?password=secret&ssl=no", "'ssl' is not one of its options"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(url: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        Address.parse(url)
    assert "is not a usable Redis URL" in str(error.value)
    assert "secret" not in str(error.value)


def test_no_password_is_shown() -> None:
    assert "secret" not in repr(Address.parse("redis://ann:secret@cache"))


@pytest.fixture
def guarded(tmp_path: Path, request: Any) -> Any:
    """A server that wants a password, on a port and on a socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "s/cret"]
    path = Path("/tmp") / f"malearn-{port}.sock"
    command = [str(binary()), *words, "--unixsocket", str(path), "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    yield port, path
    process.kill()
    process.wait()
    path.unlink(missing_ok=True)


def test_a_password_and_a_database_are_given_on_connecting(guarded: Any) -> None:
    port, path = guarded
    for url in (f"redis://:s%2Fcret@127.0.0.1:{port}/2", f"unix://:s%2Fcret@{path}?db=2"):
        connection = Connector(url, 60.0)()
        (info,) = connection.call(pack("CLIENT", "INFO"), 1, time.perf_counter() + 60)
        assert b" db=2 " in info
        connection.close()


def test_a_wrong_password_is_a_refusal(guarded: Any) -> None:
    with pytest.raises(ResponseError, match="WRONGPASS"):
        Connector(f"redis://:wrong@127.0.0.1:{guarded[0]}", 2.0)()


@pytest.fixture
def secured(tmp_path: Path, redis_url: str) -> Iterator[tuple[int, Path]]:
    """A port that speaks TLS in front of a real Redis, and the certificate it shows.

    The embedded server is built without TLS.
    """
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    words += " -addext subjectAltName=DNS:localhost -keyout"
    command = ["openssl", *words.split(), str(key), "-out", str(certificate)]
    if shutil.which("openssl") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    behind = Address.parse(redis_url)
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def carry(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(60)
            with (
                context.wrap_socket(connection, server_side=True) as outer,
                socket.create_connection((behind.host, behind.port)) as inner,
            ):
                outer.settimeout(0.01)
                inner.settimeout(0.01)
                while not stop.is_set():
                    for one, other in ((outer, inner), (inner, outer)):
                        with contextlib.suppress(TimeoutError):
                            if not (some := one.recv(65536)):
                                return
                            other.settimeout(60)
                            other.sendall(some)
                            other.settimeout(0.01)

    def accept() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                threads.append(threading.Thread(target=carry, args=(listener.accept()[0],)))
                threads[-1].start()

    with socket.create_server(("localhost", 0)) as listener:
        listener.settimeout(0.05)
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield listener.getsockname()[1], certificate
        stop.set()
        for thread in threads:
            thread.join()


def test_redis_is_spoken_to_through_tls(secured: Any, redis_url: str, redis_client: Any) -> None:
    port, certificate = secured
    values = ["x" * 300_000, "short"]
    redis_client.mset(dict(zip("ab", values, strict=True)))
    password = urlsplit(redis_url).password
    url = f"rediss://:{password}@localhost:{port}?ssl_ca_certs={certificate}"
    connection = Connector(url, 5.0)()
    for _ in range(2):
        first, second, none = connection.get_many(["a", "b", "c"], time.perf_counter() + 5)
        assert [bytes(first or b"").decode(), bytes(second or b"").decode()] == values
        assert none is None
    connection.close()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_server_that_nobody_vouches_for_is_not_spoken_to(secured: Any, name: str) -> None:
    port, certificate = secured
    trusted = "" if name == "localhost" else f"?ssl_ca_certs={certificate}"  # of another name
    with pytest.raises(ssl.SSLCertVerificationError):
        Connector(f"rediss://:secret@{name}:{port}{trusted}", 5.0)()
    unchecked = f"rediss://{name}:{port}?ssl_cert_reqs=none"
    Connector(unchecked, 5.0)().close()
