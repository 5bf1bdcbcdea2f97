"""A backup holds all of a home, or says what it lacks; what is restored is that home again."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from malearn.data.dataset import Dataset
from malearn.kernel import home_format, tool_types
from malearn.kernel.errors import BackupError, HomeTooNew
from malearn.kernel.home import Home
from malearn.operations import archive, snapshot
from malearn.operations.backup import backup
from malearn.operations.restore import restore
from malearn.platform import EmbeddedRedis

OLD = Path(__file__).parents[2] / "fixtures" / "home-0.1.0.tar.xz"
TYPES = tool_types.declared()
VERSION = "0.2.0"


@pytest.fixture(autouse=True)
def _embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("MALEARN_REDIS_URL", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(setting, raising=False)


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home of 0.1.0 whose Redis is up."""
    place = tmp_path_factory.mktemp("a home? #1", numbered=False)
    with tarfile.open(OLD) as packed:
        packed.extractall(place, filter="data")
    with closing(sqlite3.connect(place / "tuning.db")) as database:
        database.execute("create table studies (name)")
        database.execute("insert into studies values ('a search')")
        database.commit()
    with EmbeddedRedis(Home(place)):
        yield Home(place)


@pytest.fixture(scope="module")
def saved(lived_in: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("backups") / "home.tar"
    backup(lived_in, file, VERSION)
    return file


class Killed(Exception):
    """As if the process had been killed."""


def killed_at(step: str) -> Callable[[str], None]:
    def notify(sentence: str) -> None:
        if sentence == step:
            raise Killed

    return notify


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def limit(small_disk: Path) -> Callable[[int], None]:
    """Sets the size of the small disk, in KiB."""

    def resize(size: int) -> None:
        options = f"remount,size={size}k"
        subprocess.run(["mount", "-o", options, str(small_disk)], check=True)

    return resize


def test_a_restored_home_has_every_row_model_and_key(
    saved: Path, lived_in: Home, tmp_path: Path
) -> None:
    there = Home(tmp_path / "elsewhere")
    restore(saved, there)
    for tool_type in TYPES.values():
        assert Dataset.open(there, tool_type).read() == Dataset.open(lived_in, tool_type).read()
    counts = []
    for home in (lived_in, there):
        with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database:
            counts.append(database.execute("select count(*) from model_versions").fetchone())
        with EmbeddedRedis(home) as server, redis.Redis.from_url(server.url) as client:
            counts.append((client.dbsize(), client.xlen("malearn:executions")))
    assert counts[:2] == counts[2:]
    with closing(sqlite3.connect(there.root / "tuning.db")) as database:
        assert database.execute("select name from studies").fetchall() == [("a search",)]
    assert (there.state / "secrets" / "redis").read_text() == (
        lived_in.state / "secrets" / "redis"
    ).read_text()


def test_a_backup_and_what_is_restored_are_for_their_owner_alone(
    saved: Path, tmp_path: Path
) -> None:
    restore(saved, Home(tmp_path / "elsewhere"))
    places = [saved, *(tmp_path / "elsewhere").rglob("*")]
    assert {p for p in places if stat.S_IMODE(p.stat().st_mode) & 0o077} == set()


def test_it_leaves_nothing_in_the_home(saved: Path, lived_in: Home) -> None:
    assert not (lived_in.state / "backup").exists()
    assert not (lived_in.state / "redis" / "dump.rdb").exists()
    assert [p.name for p in saved.parent.iterdir()] == ["home.tar"]


def test_nothing_is_overwritten(saved: Path, lived_in: Home) -> None:
    with pytest.raises(BackupError, match=r"already exists; name another file"):
        backup(lived_in, saved, VERSION)
    with pytest.raises(BackupError, match=r"already has mlruns/mlflow.db, .*empty directory"):
        restore(saved, lived_in)


def test_an_empty_home_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="neither data nor models"):
        backup(Home(tmp_path), tmp_path / "backup.tar", VERSION)


def test_a_database_is_whole_though_it_is_being_written(tmp_path: Path) -> None:
    home, done = Home(tmp_path / "home"), threading.Event()
    home.mlruns.mkdir(parents=True)
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("create table pairs (a, b)")
        database.commit()

    def write() -> None:
        with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database:
            n = 0
            while not done.is_set():
                n += 1
                database.executemany("insert into pairs values (?, ?)", [(n, "x"), (n, "y")])
                database.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        restore_of = tmp_path / "b.tar"
        backup(home, restore_of, VERSION)
    finally:
        done.set()
        writer.join()
    restore(restore_of, Home(tmp_path / "there"))
    with closing(sqlite3.connect(tmp_path / "there" / "mlruns" / "mlflow.db")) as database:
        odd = "select count(*) from (select a from pairs group by a having count(*) != 2)"
        assert database.execute(odd).fetchone() == (0,)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.995])
def test_an_interrupted_backup_is_refused_and_continued(
    share: float, saved: Path, lived_in: Home, tmp_path: Path
) -> None:
    file = tmp_path / "home.tar"

    part = file.with_name("home.tar.part")
    with pytest.raises(Killed):
        backup(lived_in, file, VERSION, killed_at("Verifying data"))
    os.truncate(part, int(part.stat().st_size * share))
    with pytest.raises(BackupError, match=r"interrupted|cut"):
        restore(part, Home(tmp_path / "there"))
    said: list[str] = []
    backup(lived_in, file, VERSION, said.append)
    assert "Continuing the backup that was interrupted" in said
    restore(file, Home(tmp_path / "there"))


def test_what_changed_in_an_interrupted_backup_is_written_again(
    lived_in: Home, tmp_path: Path
) -> None:
    file = tmp_path / "home.tar"
    with pytest.raises(Killed):
        backup(lived_in, file, VERSION, killed_at("Verifying data"))
    part = file.with_name("home.tar.part")
    with tarfile.open(part) as archived:
        first = next(member for member in archived if member.size)
        content = archived.extractfile(first)
        assert content is not None
        right = content.read()
    with part.open("r+b") as damaged:
        damaged.seek(first.offset_data)
        damaged.write(bytes([right[0] ^ 1]))
    os.truncate(part, int(part.stat().st_size * 0.7))
    backup(lived_in, file, VERSION)
    with tarfile.open(file) as archived:
        content = archived.extractfile(first.name)
        assert content is not None
        assert content.read() == right


def test_an_interrupted_restoration_is_continued(saved: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "there")
    count = len(archive.read_manifest(saved).files)

    with pytest.raises(Killed):
        restore(saved, home, killed_at("Restoring mlruns"))
    assert not home.data.exists()  # nothing is in its place before all of it is there
    assert len(restore(saved, home).files) == count
    assert {p.name for p in home.root.iterdir()} == {"data", "mlruns", "tuning.db", ".malearn"}


def test_a_changed_byte_is_found_and_nothing_is_restored(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    with tarfile.open(saved) as tar:
        member = next(m for m in tar if m.name.endswith(".parquet"))
    content[member.offset_data + 100] ^= 1
    (tmp_path / "bad.tar").write_bytes(content)
    home = Home(tmp_path / "there")
    with pytest.raises(BackupError, match=r"parquet is not what was written"):
        restore(tmp_path / "bad.tar", home)
    assert not home.data.exists()


def test_of_a_damaged_backup_nothing_stays_and_another_can_be_restored(
    saved: Path, tmp_path: Path
) -> None:
    content = bytearray(saved.read_bytes())
    with tarfile.open(saved) as tar:
        member = next(m for m in tar if m.name.endswith("mlflow.db"))
    content[member.offset_data + 100] ^= 1
    (tmp_path / "bad.tar").write_bytes(content)
    home = Home(tmp_path / "there")
    with pytest.raises(BackupError, match="is damaged"):
        restore(tmp_path / "bad.tar", home)
    assert list(home.root.iterdir()) == []
    restore(saved, home)


def test_two_restorations_into_one_home_do_not_meet(saved: Path, tmp_path: Path) -> None:
    home, said = Home(tmp_path / "there"), list[str]()

    def meanwhile(_: str) -> None:
        if not said:
            with pytest.raises(BackupError) as refused:
                restore(saved, home)
            said.append(str(refused.value))

    restore(saved, home, meanwhile)
    assert said == [f"{home.root}: is being restored by another process."]


def test_what_appears_in_a_home_that_is_being_restored_is_not_overwritten(
    saved: Path, tmp_path: Path
) -> None:
    """As by a scheduled ingestion that nobody stopped."""
    home = Home(tmp_path / "there")

    def meanwhile(_: str) -> None:
        home.data.mkdir(exist_ok=True)

    with pytest.raises(BackupError, match="got data of its own while it was restored"):
        restore(saved, home, meanwhile)
    home.data.rmdir()
    restore(saved, home)
    assert Dataset.open(home, TYPES["llm_process"]).rows == 156


def test_a_disk_that_fills_up_is_named_and_the_same_call_continues(
    saved: Path, lived_in: Home, tmp_path: Path, small_disk: Path, limit: Callable[[int], None]
) -> None:
    file, there = small_disk / "home.tar", Home(small_disk / "there")
    limit(1500)
    with pytest.raises(BackupError, match=r"cannot be written \(No space left on device\)"):
        backup(lived_in, file, VERSION)
    limit(16_000)
    backup(lived_in, file, VERSION)
    archive.verify(file, lambda _: None)
    file.unlink()
    limit(archive.read_manifest(saved).size // 1024 + 16)  # room for the bytes, not for the blocks
    with pytest.raises(BackupError, match=r"cannot be restored \(No space left on device\)"):
        restore(saved, there)
    limit(16_000)
    assert restore(saved, there).files == archive.read_manifest(saved).files


@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 10240])
def test_what_is_no_backup_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(BackupError, match="is no backup"):
        restore(tmp_path / "x.tar", Home(tmp_path / "there"))


def test_a_file_outside_of_the_home_is_refused(tmp_path: Path) -> None:
    manifest = archive.Manifest(1, VERSION, 0.0, files={"../x": archive.Entry(1, "")})
    (tmp_path / "snapshot").mkdir()
    archive.write(tmp_path / "snapshot", tmp_path / "evil.tar", manifest, lambda _: None)
    with pytest.raises(BackupError, match=r"outside of a home \(\.\./x\)"):
        restore(tmp_path / "evil.tar", Home(tmp_path / "there"))


def test_a_backup_of_a_newer_malearn_is_refused_by_name(saved: Path, tmp_path: Path) -> None:
    newer = archive.Manifest(home_format.FORMAT + 1, "9.1.0", 0.0)
    (tmp_path / "snapshot").mkdir()
    archive.write(tmp_path / "snapshot", tmp_path / "new.tar", newer, lambda _: None)
    with pytest.raises(HomeTooNew, match=r"of malearn 9\.1\.0"):
        restore(tmp_path / "new.tar", Home(tmp_path / "there"))


@pytest.mark.parametrize(
    ("setting", "address", "what"),
    [
        ("MLFLOW_TRACKING_URI", "http://mlflow:5000", "MLflow"),
        ("MALEARN_DATA", "s3://bucket/malearn", "Data"),
    ],
)
def test_what_lies_outside_of_the_home_is_named(
    setting: str, address: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, address)
    (sentence,) = snapshot.left_out(Home(Path()))
    assert sentence.startswith(f"{what} outside the home ({setting})")


def test_the_list_of_files_can_be_read_without_malearn(saved: Path) -> None:
    with tarfile.open(saved) as tar:
        content = tar.extractfile("manifest.json")
        assert content is not None
        files = json.load(content)["files"]
    assert {"size", "sha256"} == set(files["mlruns/mlflow.db"])
