"""The disk cache keeps the last good model, and never hurts."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from malearn.serving.cache import ModelCache, default_directory


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "a cache", "http://mlflow:5000", "Production")


def test_what_was_written_last_is_read(cache: ModelCache) -> None:
    cache.write("malearn-a", 1, b"one")
    cache.write("malearn-a", 2, b"two")
    cache.write("malearn-b", 7, b"seven")
    assert cache.read("malearn-a") == (2, b"two")
    assert cache.read("malearn-b") == (7, b"seven")
    assert cache.read("malearn-c") is None
    assert len(list(cache.directory.iterdir())) == 2


def test_a_rollback_to_an_older_version_is_what_is_read(cache: ModelCache) -> None:
    cache.write("malearn-a", 2, b"two")
    cache.write("malearn-a", 1, b"one")
    assert cache.read("malearn-a") == (1, b"one")


def test_a_file_that_was_changed_is_not_there(cache: ModelCache) -> None:
    cache.write("malearn-a", 1, b"one")
    (file,) = cache.directory.iterdir()
    file.write_bytes(b"onf")
    assert cache.read("malearn-a") is None


def test_what_is_forgotten_is_gone(cache: ModelCache) -> None:
    cache.write("malearn-a", 1, b"one")
    cache.forget("malearn-a")
    assert cache.read("malearn-a") is None


def test_registries_and_aliases_do_not_mix(tmp_path: Path) -> None:
    ModelCache(tmp_path, "http://one", "Production").write("malearn-a", 1, b"one")
    assert ModelCache(tmp_path, "http://two", "Production").read("malearn-a") is None
    assert ModelCache(tmp_path, "http://one", "Candidate").read("malearn-a") is None


def test_a_disk_without_room_is_counted_and_leaves_the_old_one(cache: ModelCache) -> None:
    cache.write("malearn-a", 1, b"one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        cache.write("malearn-a", 2, b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert cache.failures == 1
    assert cache.read("malearn-a") == (1, b"one")
    assert len(list(cache.directory.iterdir())) == 1


def test_where_it_is_kept() -> None:
    assert default_directory({"MALEARN_CACHE": "/c"}) == Path("/c")
    assert default_directory({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/malearn")
    assert default_directory({"HOME": "/h"}) == Path("/h/.cache/malearn")
