"""What is built can be published, installed and read."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BIN = Path(sys.executable).parent


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a wheel and an sdist."""
    place = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", place)
    return place


def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_twine_finds_nothing_wrong(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


def test_the_readme_that_an_index_shows_has_absolute_links_alone(built: Path) -> None:
    with zipfile.ZipFile(wheel(built)) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("dist-info/METADATA"))
        said = BytesParser(policy=default).parsebytes(archive.read(name))
    text = str(said.get_payload())
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 20
    assert [link for link in links if not re.match(r"https://|#", link)] == []
    assert f"({PROJECT['urls']['Source']}/docs/images/version.png)" in text


def test_the_sdist_is_small_and_without_tests(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert tops <= {
        "malearn", "CHANGELOG.md", "README.md", "LICENSE", "PKG-INFO", "hatch_build.py",
        "pyproject.toml", ".gitignore",
    }  # fmt: skip
    assert file.stat().st_size < 1_000_000


def test_a_major_version_that_may_break_us_is_kept_out() -> None:
    """Of what is past version 1, an upper bound stands at a later major version than today's."""
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *extras["lifecycle"]]:
        name = re.split(r"[\[<>=]", line)[0]
        today = int(importlib.metadata.version(name).partition(".")[0])
        bound = re.search(r"<(\d+)", line)
        if bound:
            assert today <= int(bound[1]), line


def interpreters(version: str) -> Iterator[str]:
    """Those of `version` that run: on the path, or kept by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    kept = sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))
    for name in (f"python{version}", *map(str, kept)):
        path = shutil.which(name)  # pyenv's own on the path may stand for one that is not chosen
        if path and not subprocess.run([path, "-V"], capture_output=True, check=False).returncode:
            yield path


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_wheel_file_is_installed_and_predicts(version: str, built: Path, tmp_path: Path) -> None:
    """With the base dependencies alone, as the lock pins them for that Python."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        pytest.skip("tests/test_laws.py installs it with this Python")
    interpreter = next(interpreters(version), None)
    if interpreter is None:
        pytest.skip(f"no Python {version} here")
    uv, venv = BIN / "uv", tmp_path / "venv"
    run(uv, "venv", "--quiet", "--python", interpreter, venv)
    python = venv / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--python", python, "--constraint",
        ROOT / "requirements.lock", wheel(built))  # fmt: skip
    script = (
        "from malearn import DAGTaskPredictor\n"
        "p = DAGTaskPredictor('redis://127.0.0.1:1', 'http://127.0.0.1:1', cache_dir='.')\n"
        "print(p.predict('task1_llm_process', 'gpu', [])); p.close()"
    )
    done = subprocess.run(
        [python, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "15.0\n"), done.stderr


def test_licences_are_listed_of_every_package_in_the_lock() -> None:
    namespace: dict[str, Any] = {"__file__": str(ROOT / "docs" / "licences.py"), "__name__": "it"}
    exec((ROOT / "docs" / "licences.py").read_text("utf-8"), namespace)
    rows = namespace["table"]().splitlines()[2:]
    assert len(rows) == len(namespace["locked"]()) > 100
    (numpy, *_) = [row for row in rows if row.startswith("| numpy |")]
    assert "BSD" in numpy


def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Every link of every page leads somewhere, and a reader needs no network."""
    run(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path,
        NO_MKDOCS_2_WARNING="1")  # fmt: skip
    pages = {page.name for page in tmp_path.glob("*.html")}
    assert pages >= {f"{p.stem}.html" for p in (ROOT / "docs").glob("*.md")}
    loaded = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="(https?:)?//|<link[^>]*\shref="https?:')
    wrong = [
        f"{page.name}: {hit.group()}"
        for page in tmp_path.glob("*.html")
        for hit in loaded.finditer(page.read_text("utf-8"))
        if 'rel="canonical"' not in hit.group()
    ]
    assert wrong == []
    api = (tmp_path / "api.html").read_text("utf-8")
    assert "Seconds that tasks of a DAG will take" in api
    assert "DAGTaskPredictor" in (tmp_path / "search" / "search_index.json").read_text("utf-8")


def test_make_finds_what_it_runs() -> None:
    assert shutil.which("make")
    assert "mkdocs build" in run("make", "--dry-run", "site", "SITE_VERSION=0.1")
