"""One embedded server of a home: its start or attachment, readiness, release and end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, ClassVar, Self

from malearn.kernel import hosts
from malearn.kernel.errors import PlatformError
from malearn.kernel.home import Home
from malearn.platform import port as ports
from malearn.platform import private
from malearn.platform.file_lock import FileLock
from malearn.platform.log import Log
from malearn.platform.reaper import GRACE

__all__ = ["Server"]

PING_TIMEOUT = 2.0  # seconds within which a server that is up answers
#: MLflow and Prefect need 20 to 40 s each on two idle cores, several times that on busy ones.
START_TIMEOUT = 180.0  # seconds a server may take until it answers, by default
POLL_INTERVAL = 0.05  # seconds between two pings of a server that is starting
MIN_FREE_BYTES = 32 * 2**20  # that must be free below the home


class Server(ABC):
    """A server of one home. Used as a context manager, or with `start` and `stop`.

    `port` is the port to listen on; None takes a free one, the same at every start where
    possible. When another process already runs this server for the same home, `start` attaches
    to it, whatever its port. `host` is the address to listen on. MLflow asks nobody for a password,
    so anything but loopback opens it to whoever reaches the machine.
    """

    name: ClassVar[str]  # as people write it: "Redis"
    setting: ClassVar[str]  # the environment variable that names a given one

    def __init__(self, home: Home, port: int | None = None, host: str = hosts.LOOPBACK) -> None:
        self.home, self.port = Home(home.root.absolute()), port  # children run elsewhere
        self.host = host
        self.start_timeout = START_TIMEOUT
        self.address = ""  # while it runs; `url` adds what its clients must present
        self._users: FileLock | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    # What each kind of server defines.

    @abstractmethod
    def url_at(self, port: int) -> str:
        """The address of a server that listens on `port`, without credentials."""

    @abstractmethod
    def command(self, port: int) -> Sequence[str | os.PathLike[str]]:
        """What to run; it stays in the foreground."""

    @abstractmethod
    def environment(self, port: int) -> Mapping[str, str]:
        """The environment to run it in."""

    @abstractmethod
    def directory(self) -> Path:
        """Where it keeps what it must not lose."""

    def with_credentials(self, address: str) -> str:
        """`address` with what clients of this home's server must present, if anything."""
        return address

    def client(self) -> dict[str, str]:
        """What the environment of its clients must hold beside the address."""
        return {}

    @staticmethod
    @abstractmethod
    def ping(url: str, seconds: float = PING_TIMEOUT) -> None:
        """Return when the server at `url` answers within `seconds`. Raises when it does not."""

    # What all of them share.

    @property
    def slug(self) -> str:
        return self.name.lower()

    @property
    def secret_file(self) -> Path:
        """Where the secret of this home's server is kept; see `private.secret`."""
        return self.home.state / "secrets" / self.slug

    @property
    def url(self) -> str:
        """The address that clients use, with credentials; "" while it does not run."""
        return self.with_credentials(self.address) if self.address else ""

    @property
    def log(self) -> Path:
        return self.home.logs / f"{self.slug}.log"

    @property
    def attached(self) -> bool:
        """Whether the server was there already."""
        return bool(self.address) and self._reaper is None

    def start(self) -> None:
        """Start the server, or attach to the one of this home, and wait until it answers.

        Started again after it died, it has its old address while nobody took the port.

        Raises:
            PlatformError: it cannot be started; nothing is left behind.
        """
        for _ in self.starting():
            time.sleep(POLL_INTERVAL)

    def starting(self) -> Iterator[None]:
        """`start` in steps, so that several can start at once: yields until it answers."""
        try:
            self._prepare()
            # Before a server is looked for: from now on its reaper keeps it up for us. One that the
            # supervisor starts again is still held.
            self._users = self._users or FileLock.shared(self._run_file("users"))
            yield from self._launch_or_attach()
        except OSError as error:
            self.stop()
            raise self._unusable(error) from error
        # Ctrl-C, SIGTERM as SystemExit, and GeneratorExit where a start is abandoned.
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server unless another process still uses it; returns when it is gone."""
        if self.release():
            self.wait_closed()

    def release(self) -> bool:
        """Stop using the server. True when it is ending, because no other process uses it."""
        users, self._users = self._users, None
        if users is None:
            return False
        try:
            ending = users.try_upgrade()
            # As its reaper does: without the state file nobody attaches to a server that is ending.
            if ending:
                self._run_file("json").unlink(missing_ok=True)
            else:
                self._leave_running()
            return ending
        finally:
            users.release()

    def wait_closed(self) -> None:
        """After `release` returned True: wait until server and reaper have exited."""
        # The reaper kills after `GRACE` seconds; the rest is for it to notice and to exit.
        deadline = time.monotonic() + GRACE + 5.0
        while time.monotonic() < deadline and not self._closed():
            time.sleep(0.02)
        if self._reaper is not None:
            self._reaper.kill()  # only reached alive when it hangs; the server follows it
            self._reaper.wait()
        self._reaper, self.address = None, ""

    def alive(self) -> bool:
        """Whether the server answers now."""
        return bool(self.address) and self._answers(self.url)

    def ended(self) -> bool:
        """Whether the server is gone, however it went; one that hangs is not."""
        if self._reaper is not None:
            return self._reaper.poll() is not None
        return not self.address or self._unlocked()

    def kill(self) -> None:
        """End the server at once, whoever uses it, because it hangs; `start` may follow."""
        # The reaper makes the server the leader of a process group of its own: same number.
        group = self._state().get("pid")
        if isinstance(group, int):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Steps of a start.

    def _prepare(self) -> None:
        for folder in (self.directory(), self.home.logs, self._run_file("lock").parent):
            private.make_directory(folder)
        with contextlib.suppress(PermissionError):  # another user's, who shares it on purpose
            self.home.state.chmod(0o700)  # 0.1.0 left it open to everybody
        free = shutil.disk_usage(self.home.state).free
        if free < MIN_FREE_BYTES:
            raise PlatformError(
                self.name,
                f"is not started because the disk is full: {free // 2**20} MB are free "
                f"below {self.home.root}, {MIN_FREE_BYTES // 2**20} MB are needed",
            )

    def _launch_or_attach(self) -> Iterator[None]:
        """Launch the server when this home has none, else wait for the one it has."""
        deadline = time.monotonic() + self.start_timeout
        # Held by a server or its reaper, or by another process that is about to start one.
        while (lock := FileLock.try_exclusive(self._run_file("lock"))) is None:
            if self._attach():
                return
            if time.monotonic() > deadline:
                raise PlatformError(self.name, self._unresponsive(), self.log)
            yield
        try:
            log = self._launch(lock)
        finally:
            lock.release()  # the server holds it now
        yield from self._wait_ready(log, deadline)

    def _attach(self) -> bool:
        state = self._state()
        address, host = str(state.get("url", "")), str(state.get("host", ""))
        if address and self._answers(self.with_credentials(address)):
            # Loopback is the default, hence no demand; any other address must be the same.
            if self.host not in (hosts.LOOPBACK, host):
                raise PlatformError(
                    self.name,
                    f"of this home already listens on {host}, for another command; end that",
                )
            self.address = address
            return True
        return False

    def _launch(self, lock: FileLock) -> Log:
        if self._reaper is not None:
            self._reaper.wait()  # of a server that died; the lock was free
        port = self._port()
        self.address = self.url_at(port)
        run_file, reaper = self._run_file, Path(__file__).with_name("reaper.py")
        reaper_arguments = (
            str(lock.descriptor),
            run_file("users"),
            run_file("json"),
            self.address,
            self.host,
        )
        with Log.begin(self.log) as log:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper, *reaper_arguments, *self.command(port)],
                stdin=subprocess.DEVNULL,
                stdout=log.file,
                stderr=log.file,
                cwd=self.directory(),
                env=dict(self.environment(port)),
                umask=private.UMASK,
                start_new_session=True,  # Ctrl-C at the terminal is ours to handle
                pass_fds=(lock.descriptor,),
            )
        return log

    def _wait_ready(self, log: Log, deadline: float) -> Iterator[None]:
        reaper = self._reaper
        while reaper is not None and not self._answers(self.url):
            if reaper.poll() is not None:
                last = log.last_line() or f"exit status {reaper.returncode}"
                raise PlatformError(self.name, f"ended while it started ({last})", self.log)
            if time.monotonic() > deadline:
                raise PlatformError(
                    self.name, f"gave no answer in {self.start_timeout:.0f} s", self.log
                )
            yield

    def _port(self) -> int:
        if self.port is None:
            return ports.find_free(f"{self.home.root}/{self.slug}", self.host)
        if not ports.is_free(self.port, self.host):
            raise PlatformError(
                self.name,
                f"cannot listen on {self.host}:{self.port} because the port is in use; "
                "end what uses it or choose another port",
            )
        return self.port

    def _closed(self) -> bool:
        if self._reaper is not None and self._reaper.poll() is None:
            return False
        # Locked again with a state file: another process has already started the next server.
        return self._unlocked() or self._run_file("json").exists()

    def _leave_running(self) -> None:
        """Leave the server to its other users, and collect our reaper whenever it ends."""
        if self._reaper is not None:
            # Nobody else waits for it: without this it would stay a zombie of this process.
            Thread(target=self._reaper.wait, daemon=True).start()
        self._reaper, self.address = None, ""

    # Files and answers.

    def _unlocked(self) -> bool:
        """Whether neither a server of this home nor its reaper runs."""
        lock = FileLock.try_exclusive(self._run_file("lock"))
        if lock is not None:
            lock.release()
        return lock is not None

    def _answers(self, url: str) -> bool:
        try:
            self.ping(url)
        except Exception:  # noqa: BLE001  whatever a client raises, it is not ready
            return False
        return True

    def _run_file(self, kind: str) -> Path:
        return self.home.state / "run" / f"{self.slug}.{kind}"

    def _state(self) -> dict[str, Any]:
        """What the reaper wrote down: url, host, pid, reaper; empty when there is none."""
        try:
            content: dict[str, Any] = json.loads(self._run_file("json").read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content

    def _unresponsive(self) -> str:
        pid = self._state().get("pid")
        which = f"as process {pid}" if pid else "as a process we do not know"
        return f"of this home already runs {which} but does not answer; end it and try again"

    def _unusable(self, error: OSError) -> PlatformError:
        place = error.filename or self.home.root
        return PlatformError(self.name, f"cannot use {place} ({error.strerror or error})")
