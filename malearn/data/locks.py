"""Locks: one writer of the datasets of a home, one retraining of a tool type.

On one machine they are file locks, which the operating system releases when their holder dies.
Datasets in object storage may have writers on several machines, so that theirs are locks in Redis:
each lasts half a minute, and is renewed while its holder lives. They spare work; that no row is
lost or doubled where one expires is for the commits to see to.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from malearn.data import redis_client, storage
from malearn.data.storage import ObjectFolder
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.kernel.tool_types import ToolType

__all__ = ["check", "dataset_lock", "retrain_lock"]

_log = logging.getLogger(__name__)

# Long enough for a pause of a process, short enough to wait for after a machine has died.
_SECONDS = 30.0  # for which a lock in Redis lasts unless it is renewed
#: What a client raises, also that of a cluster none of whose nodes can be reached.
_FAILURES = (redis.RedisError, redis.exceptions.RedisClusterException)
_ASK_AGAIN = 0.1  # seconds between two tries to get one


def check(home: Home, *, redis: bool = False) -> None:
    """Raise the `InputError` that locking datasets of `home` would raise for want of a setting.

    `redis`: one will be running by then. Call it before any server is started.
    """
    folder = storage.root(home)
    if isinstance(folder, ObjectFolder) and not redis:
        _redis_url(folder)


@contextmanager
def dataset_lock(home: Home, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock that every writer of the datasets of `home` takes; calls `waiting` where it
    must wait.
    """
    with _locked(home, "datasets", ".lock", waiting):
        yield


@contextmanager
def retrain_lock(
    home: Home, tool_type: ToolType, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock for training and promoting `tool_type`; calls `waiting` where it must wait."""
    name = tool_type.name
    with _locked(home, f"retrain:{name}", f".retrain-{name}.lock", waiting):
        yield


@contextmanager
def _locked(home: Home, name: str, file: str, waiting: Callable[[], None]) -> Iterator[None]:
    folder = storage.root(home)
    lock = (
        _redis_lock(name, folder, waiting)
        if isinstance(folder, ObjectFolder)
        else _file_lock(folder, file, waiting)
    )
    with lock:
        yield


@contextmanager
def _file_lock(folder: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    # The file is never removed: a new one of the same name would be another lock to whoever holds
    # the old one open.
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Tried without waiting first, so that a caller can say what it waits for.
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _redis_lock(name: str, folder: ObjectFolder, waiting: Callable[[], None]) -> Iterator[None]:
    with redis_client.connected(_redis_url(folder)) as client:
        # Not thread-local: another thread renews it with the same token.
        lock = client.lock(
            Names.find().locks + name, timeout=_SECONDS, sleep=_ASK_AGAIN, thread_local=False
        )
        if not lock.acquire(blocking=False):
            waiting()
            lock.acquire()
    # Outside of `connected`, which would take any OSError of the caller's block for Redis's.
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lock, done), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        _release(lock)


def _redis_url(folder: ObjectFolder) -> str:
    """Where the locks of datasets in `folder` are."""
    url = os.environ.get(redis_client.REDIS_SETTING)
    if not url:
        raise InputError(
            redis_client.REDIS_SETTING,
            f"must be set where datasets are in object storage ({folder}): writers on several "
            "machines take turns by locks in Redis",
        )
    return url


def _renew(lock: redis.lock.Lock, done: threading.Event) -> None:
    # Three renewals may fail before it expires.
    while not done.wait(_SECONDS / 4.0):
        try:
            lock.reacquire()
        except _FAILURES as error:
            # Not raised: a commit that meets another writer's is tried again anyway.
            _log.warning("Could not renew the lock %s (%s)", lock.name, error)


def _release(lock: redis.lock.Lock) -> None:
    try:
        lock.release()
    except _FAILURES as error:  # it expired, or will
        _log.warning("Could not release the lock %s (%s); it expires by itself", lock.name, error)
