"""The stack of deploy/compose.yaml without containers: from zero to a served model, and back again.

Each service's own command, in an environment of nothing but the variables that the file gives it,
on PostgreSQL and a Redis with TLS (Debian's packages postgresql and redis-server). Then all of it
is backed up, destroyed, restored and upgraded, and the same task is asked for again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import yaml

from benchmarks import logs
from benchmarks.figure import Figure, at_least, at_most

__all__ = ["Stack", "figures"]

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
TASKS = 2_000
TOOL = "llm_process"
SECRETS = {
    "REDIS_PASSWORD": "r3d1s",
    "POSTGRES_PASSWORD": "p0st",
    "PREFECT_PASSWORD": "pr3f",
    "MALEARN_HTTP_TOKEN": "0123456789abcdef",
}
#: Ports within the containers, by service.
_PORTS = {"mlflow": "5000", "prefect": "4200", "worker": "9464", "serve": "8470"}
PATIENCE = 600.0


def figures() -> Iterator[Figure]:
    """What was still there after the stack had been destroyed and restored."""
    missing = [name for name in ("redis-server", "openssl") if not shutil.which(name)]
    missing += [] if any(Path("/usr/lib/postgresql").glob("*/bin")) else ["postgresql"]
    if missing:
        print(f"not run: {', '.join(missing)} is not installed here")
        return
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        stack.start()
        stack.fill(TASKS)
        ingested = stack.malearn("ingest")
        stack.malearn("train", TOOL, "--family", "linear")
        stack.malearn("promote", TOOL, "1")
        before, began = stack.ask(), time.monotonic()
        stack.back_up()
        stack.destroy()
        stack.restore()
        took = time.monotonic() - began
        after, status = stack.ask(), stack.malearn("status")
        rows = sum(row["rows"] for row in status.values())
        services = stack.health()["services"]
    accepted = sum(counts["accepted"] for counts in ingested["tool_types"].values())
    yield at_least("a model served after a start from zero", before["model_version"] or 0, "", 1)
    yield at_most("difference of its answer, restored", _apart(before, after), "s", 1e-6)
    yield at_most(f"rows lost, of {accepted:,}", accepted - rows, "rows", 0)
    yield at_most("services down", sum(not s["up"] for s in services.values()), "", 0)
    yield at_most("backed up, destroyed and restored", took, "s", 600.0)


class Stack:
    """PostgreSQL, Redis with TLS, and the services of compose.yaml, as processes on loopback."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ports = {
            name: _free_port()
            for name in ("postgres", "redis", "mlflow", "prefect", "worker", "serve")
        }
        self._services: dict[str, Any] = yaml.safe_load(
            (DEPLOY / "compose.yaml").read_text("utf-8")
        )["services"]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._certificate = place / "redis.crt"
        key = place / "redis.key"
        _run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
             "-out", self._certificate)  # fmt: skip

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Everything, in the order that `depends_on` has."""
        if "postgres" not in self._processes:
            self._start_postgres()
        self._start_redis()
        for name, path in (
            ("mlflow", "/health"),
            ("prefect", "/api/health"),
            ("worker", "/live"),
            ("serve", "/health"),
        ):
            self._start(name)
            self._await(name, lambda n=name, p=path: self._get(n, p) is not None)  # type: ignore[misc]

    def stop(self) -> None:
        for process in reversed(list(self._processes.values())):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def destroy(self) -> None:
        """All that the services kept: containers, volumes, databases."""
        self.stop()
        for name in ("postgres", "redis", "home", "mlflow", "prefect"):
            shutil.rmtree(self.place / name)

    def back_up(self) -> None:
        """As docs/operating.md says: Redis, PostgreSQL, artifacts, the home."""
        kept = self.place / "backup"
        kept.mkdir()
        with self._redis() as client:
            client.save()
        shutil.copy(self.place / "redis" / "dump.rdb", kept)
        for database in ("mlflow", "prefect"):
            dump = self._postgres("pg_dump", "--format=custom", database)
            (kept / f"{database}.dump").write_bytes(dump)
        shutil.copytree(self.place / "mlflow" / "artifacts", kept / "artifacts")
        self.malearn("backup", kept / "home.tar")

    def restore(self) -> None:
        """Into new servers; the home is marked as one of 0.1.0, so that it is upgraded, too."""
        kept = self.place / "backup"
        (self.place / "redis").mkdir()
        shutil.copy(kept / "dump.rdb", self.place / "redis")
        self._start_postgres()
        for database in ("mlflow", "prefect"):
            dump = (kept / f"{database}.dump").read_bytes()
            self._postgres("pg_restore", "--no-owner", "--dbname", database, content=dump)
        shutil.copytree(kept / "artifacts", self.place / "mlflow" / "artifacts")
        self.malearn("restore", kept / "home.tar")
        (self.place / "home" / ".malearn" / "format.json").unlink()
        url = self._environment("mlflow")["MLFLOW_BACKEND_STORE_URI"]
        _run(BIN / "mlflow", "db", "upgrade", url, environment=self._environment("mlflow"))
        self.start()

    def malearn(self, *words: object) -> Any:
        """What a command prints as JSON, in the worker's environment."""
        command = [BIN / "malearn", *words, "--json"]
        text = _run(*command, environment=self._environment("worker"))
        return json.loads(text)

    def fill(self, count: int) -> None:
        with self._redis() as client:
            logs.fill(client, count)

    def ask(self) -> dict[str, Any]:
        """What a scheduler in an environment of its own gets for one task."""
        script = f"""
import json
from malearn import DAGTaskPredictor
with DAGTaskPredictor({self._redis_url()!r}, "http://127.0.0.1:{self._ports["mlflow"]}",
                      cache_dir={str(self.place / "cache" / str(time.time()))!r}) as p:
    p.refresh()
    features = {{"text_length": 900, "token_count": 250, "reason": 0}}
    a = p.estimate("task_of_nobody_{TOOL}", "gpu", [], features=features)
print(json.dumps({{"seconds": a.seconds, "model_version": a.model_version, "source": a.source}}))
"""
        answer: dict[str, Any] = json.loads(_run(sys.executable, "-c", script, environment={}))
        return answer

    def health(self) -> dict[str, Any]:
        self._await("worker", lambda: (self._get("worker", "/health") or b"").startswith(b"{"))
        found: dict[str, Any] = json.loads(self._get("worker", "/health") or b"{}")
        return found

    # Servers.

    def _start_postgres(self) -> None:
        folder = self.place / "postgres"
        folder.mkdir()
        password = folder / "password"
        password.write_text(SECRETS["POSTGRES_PASSWORD"])
        if os.getuid() == 0:
            self.place.chmod(0o755)
            shutil.chown(folder, "postgres")
            shutil.chown(password, "postgres")
        data = folder / "data"
        self._postgres("initdb", "--username", "malearn", "--pwfile", password, "--auth",
                       "scram-sha-256", "--encoding", "UTF8", data)  # fmt: skip
        port = str(self._ports["postgres"])
        words = [
            _postgres_bin() / "postgres",
            "-D",
            data,
            "-p",
            port,
            "-h",
            "127.0.0.1",
            "-k",
            folder,
        ]
        self._spawn("postgres", [*_as_postgres(), *words], {})
        self._await("postgres", lambda: _answers(self._ports["postgres"]))
        for database in ("mlflow", "prefect"):
            statement = f"CREATE DATABASE {database} OWNER malearn"
            self._await(database, lambda s=statement: self._sql(s))  # type: ignore[misc]

    def _sql(self, statement: str) -> bool:
        try:
            self._postgres("psql", "--dbname", "postgres", "--command", statement)
        except RuntimeError:
            return False  # it is still starting
        return True

    def _postgres(self, tool: str, *words: object, content: bytes | None = None) -> bytes:
        where = [] if tool == "initdb" else ["-h", "127.0.0.1", "-U", "malearn", "-p"]
        where += [str(self._ports["postgres"])] if where else []
        done = subprocess.run(
            [*_as_postgres(), _postgres_bin() / tool, *where, *map(str, words)],
            input=content,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"]},
            cwd="/",
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{tool}: {done.stderr.decode()}")
        return done.stdout

    def _start_redis(self) -> None:
        folder = self.place / "redis"
        folder.mkdir(exist_ok=True)
        options = {
            "port": 0, "tls-port": self._ports["redis"], "bind": "127.0.0.1", "dir": folder,
            "tls-cert-file": self._certificate, "tls-key-file": self.place / "redis.key",
            "tls-ca-cert-file": self._certificate, "tls-auth-clients": "no",
            "requirepass": SECRETS["REDIS_PASSWORD"],
        }  # fmt: skip
        words = [str(w) for key, value in options.items() for w in (f"--{key}", value)]
        self._spawn("redis", ["redis-server", *words], {})
        self._await("redis", lambda: _answers(self._ports["redis"]))

    def _redis_url(self) -> str:
        secret, port = SECRETS["REDIS_PASSWORD"], self._ports["redis"]
        return f"rediss://:{secret}@127.0.0.1:{port}/0?ssl_ca_certs={self._certificate}"

    @contextmanager
    def _redis(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self._redis_url()) as client:
            yield client

    def _start(self, name: str) -> None:
        self._home(name).mkdir(exist_ok=True)
        tool, *words = [self._here(name, word) for word in self._services[name]["command"]]
        self._spawn(name, [BIN / tool, *words], self._environment(name))

    def _home(self, name: str) -> Path:
        return self.place / ("home" if name == "worker" else name)

    def _environment(self, name: str) -> dict[str, str]:
        given = self._services[name]["environment"]
        return {key: self._here(name, value) for key, value in given.items()}

    def _here(self, name: str, text: str) -> str:
        """A word of compose.yaml with secrets filled in, and containers' names and places here."""
        filled = re.sub(r"\$\{(\w+)[^}]*\}", lambda m: SECRETS.get(m[1], ""), text)
        if filled.startswith("redis://"):
            return self._redis_url()
        filled = filled.replace("@postgres/", f"@127.0.0.1:{self._ports['postgres']}/")
        for service, port in _PORTS.items():
            filled = filled.replace(f"{service}:{port}", f"127.0.0.1:{self._ports[service]}")
            filled = filled.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self._ports[service]}")
            if filled == port:
                filled = str(self._ports[service])
        filled = filled.replace("/var/lib/malearn", str(self._home(name)))
        return filled.replace("0.0.0.0", "127.0.0.1")

    def _spawn(self, name: str, command: list[Any], environment: dict[str, str]) -> None:
        kept = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.place)} | environment
        with (self.place / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(word) for word in command], env=kept, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd="/" if name == "postgres" else self.place,
            )  # fmt: skip

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            process = self._processes.get(name)
            if (process and process.poll() is not None) or time.monotonic() > deadline:
                text = (self.place / f"{name}.log").read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"{name} does not start:\n{text}")
            time.sleep(0.5)

    def _get(self, name: str, path: str) -> bytes | None:
        url = f"http://127.0.0.1:{self._ports[name]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=15) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            return None


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    same = one["model_version"] == other["model_version"]
    return abs(one["seconds"] - other["seconds"]) if same else float("inf")


def _run(*command: object, environment: dict[str, str] | None = None) -> str:
    place = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": tempfile.gettempdir()}
    done = subprocess.run(
        [str(word) for word in command],
        env=None if environment is None else place | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout[-500:]}{done.stderr}")
    return done.stdout


def _postgres_bin() -> Path:
    """Where PostgreSQL's programs are, with Debian's package installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"))


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] * (
        os.getuid() == 0
    )


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
