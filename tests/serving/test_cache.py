"""The disk cache keeps the last good model, and never hurts."""

from __future__ import annotations

import random
import resource
import signal
from pathlib import Path

import pytest

from benchmarks import hostile_models
from malearn.serving.cache import ModelCache, default_directory, open_cache


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "a cache", "http://mlflow:5000", "Production")


def test_what_was_written_last_is_read(cache: ModelCache) -> None:
    cache.write("malearn-a", 1, b"one")
    cache.write("malearn-a", 2, b"two")
    cache.write("malearn-b", 7, b"seven")
    assert cache.read("malearn-a") == (2, b"two", True)
    assert cache.read("malearn-b") == (7, b"seven", True)
    assert cache.read("malearn-c") is None
    assert len(list(cache.directory.iterdir())) == 2


def test_a_rollback_to_an_older_version_is_what_is_read(cache: ModelCache) -> None:
    cache.write("malearn-a", 2, b"two")
    cache.write("malearn-a", 1, b"one")
    assert cache.read("malearn-a") == (1, b"one", True)


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
    assert cache.read("malearn-a") == (1, b"one", True)
    assert len(list(cache.directory.iterdir())) == 1


def test_where_it_is_kept() -> None:
    assert default_directory({"MALEARN_CACHE": "/c"}) == Path("/c")
    assert default_directory({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/malearn")
    assert default_directory({"HOME": "/h"}) == Path("/h/.cache/malearn")


def test_without_a_home_there_is_no_cache_in_a_directory_that_all_share(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("MALEARN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert open_cache(None, "http://mlflow:5000", "Production") is None
    assert "set MALEARN_CACHE" in caplog.text


@pytest.mark.parametrize("mode", [0o777, 0o775])
@pytest.mark.parametrize("place", ["the directory", "the one above"])
def test_where_others_can_write_nothing_is_read_or_written(
    cache: ModelCache, mode: int, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write("malearn-a", 1, b"one")
    shared = cache.directory if place == "the directory" else cache.directory.parent
    shared.chmod(mode)
    assert cache.read("malearn-a") is None
    cache.write("malearn-a", 2, b"two")
    assert cache.failures == 1
    assert caplog.text.count("can be written by other users") == 1
    shared.chmod(0o700)
    assert cache.read("malearn-a") == (1, b"one", True)


def test_another_users_directory_is_not_used(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write("malearn-a", 1, b"one")
    monkeypatch.setattr("os.geteuid", lambda: cache.directory.stat().st_uid + 1)
    assert cache.read("malearn-a") is None
    assert "belongs to another user" in caplog.text


def test_its_directories_are_its_owners_alone(cache: ModelCache) -> None:
    cache.write("malearn-a", 1, b"one")
    for place in (cache.directory, cache.directory.parent):
        assert place.stat().st_mode & 0o777 == 0o700


def test_what_an_earlier_version_wrote_is_read_and_tried_again(cache: ModelCache) -> None:
    """0.1.0 kept a quarter of the digest in the name, of models that it had not tried."""
    cache.write("malearn-a", 1, b"one")
    (file,) = cache.directory.iterdir()
    file.rename(file.with_name(f"{file.name[:-53]}.onnx"))
    assert cache.read("malearn-a") == (1, b"one", False)
    assert cache.digest("malearn-a", 1) is None


def test_no_mutated_file_is_taken_for_what_was_written(cache: ModelCache) -> None:
    whole, source = bytes(range(256)) * 8, random.Random(11)
    cache.write("malearn-a", 1, whole)
    (file,) = cache.directory.iterdir()
    for _ in range(200):
        file.write_bytes(hostile_models.mutated(whole, source))
        assert cache.read("malearn-a") is None
    file.write_bytes(whole)
    assert cache.read("malearn-a") == (1, whole, True)
