"""What holds for the whole repository, whoever adds to it."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Directories of ours beside `malearn`, and the name below which they are imported.
BESIDE = ("serving", "expectations", "flows")
MALEARN = Path(sys.executable).with_name("malearn")

#: What each package may import of ours: itself, and these.
ALLOWED = {
    "kernel": set[str](),
    "data": {"kernel"},
    "learning": {"data", "kernel"},
    "lifecycle": {"learning", "data", "kernel"},
    "local": {"learning", "data", "kernel"},
    "platform": {"kernel"},
    "operations": {"platform", "lifecycle", "learning", "data", "kernel"},
    "workload": {"data", "kernel"},
    "serving": {"kernel"},
    "integrations": {"serving", "data", "kernel"},
    "maze": {"integrations"},
    "expectations": {"lifecycle", "learning", "data", "kernel"},
    "flows": {
        "expectations",
        "serving",
        "local",
        "lifecycle",
        "learning",
        "data",
        "operations",
        "platform",
        "workload",
        "integrations",
        "kernel",
    },
}
#: Where alone a library may be imported.
HOMES = {
    "great_expectations": {"malearn.expectations"},
    "pandas": {
        "malearn.expectations",
        "malearn.lifecycle.logged_models",
        "malearn.lifecycle.runs",
        "malearn.lifecycle.seconds_model",
    },
    "prefect": {"malearn.flows"},
    "yaml": {"malearn.flows.deployments"},
    "mlflow": {
        "malearn.lifecycle.comparing",
        "malearn.lifecycle.evaluation_runs",
        "malearn.lifecycle.logged_models",
        "malearn.lifecycle.mlflow_connection",
        "malearn.lifecycle.mlflow_pages",
        "malearn.lifecycle.registry",
        "malearn.lifecycle.runs",
        "malearn.lifecycle.seconds_model",
        "malearn.lifecycle.tuning",
        "malearn.platform",
    },
    "deltalake": {"malearn.data.delta"},
    "pyarrow": {"malearn.data.delta"},
    "xgboost": {"malearn.learning.families"},
    "sklearn": {"malearn.learning.families"},
    # MLflow takes a parsed model
    "onnx": {
        "malearn.learning.families",
        "malearn.learning.export",
        "malearn.lifecycle.seconds_model",
    },
    "scipy": {"malearn.learning.version_comparison", "malearn.lifecycle.drift"},
    "shap": {"malearn.learning.contributions"},
    "lightgbm": {"malearn.learning.families"},
    "catboost": {"malearn.learning.families"},
    "optuna": {"malearn.learning.tuning"},
    "skl2onnx": {"malearn.learning.families"},
    "onnxmltools": {"malearn.learning.families"},
    "onnxruntime": {"malearn.kernel.onnx.onnx_model"},
    "matplotlib": {
        "malearn.learning.comparison_plots",
        "malearn.learning.explanation_plots",
        "malearn.learning.state_plots",
        "malearn.learning.plots",
        "malearn.learning.scheduling_plots",
        "malearn.learning.titled_figure",
        "malearn.lifecycle.runs",
    },
    "simpy": {"malearn.learning.simulation"},
    "prometheus_client": {
        "malearn.operations.metrics",
        "malearn.serving.prometheus",
        "malearn.integrations.http.metrics",
    },
    "fastapi": {"malearn.integrations.http.app"},
    "starlette": {"malearn.integrations.http"},
    "uvicorn": {"malearn.integrations.http", "malearn.platform.database"},
    "typer": {"malearn.flows.commands"},
    "rich": {"malearn.flows.console", "malearn.flows.plain_console", "malearn.flows.report"},
    "hiredis": {"malearn.serving.resp"},
}
#: What every installation has, beside the standard library.
BASE = {"hiredis", "msgspec", "numpy", "onnxruntime"}


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    places = {"malearn": ROOT / "malearn"} | {f"malearn.{name}": ROOT / name for name in BESIDE}
    found = {}
    for package, place in places.items():
        for file in place.rglob("*.py"):
            parts = file.relative_to(place).with_suffix("").parts
            name = ".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))
            found[name] = file
    return dict(sorted(found.items()))


MODULES = modules()


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


@functools.cache
def imports(module: str, *, at_run_time: bool = False) -> tuple[str, ...]:
    """The full names that `module` imports anywhere, or only those that it needs to run."""
    return tuple(_imports(parsed(module), at_run_time))


def _imports(tree: ast.AST, at_run_time: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if at_run_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole way"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node, at_run_time)


def within(name: str, homes: set[str]) -> bool:
    return any(name == home or name.startswith(f"{home}.") for home in homes)


def part(module: str) -> str:
    """The package of ours that `module` is in; "" for `malearn` itself and `python -m malearn`."""
    inner = module.removeprefix("malearn").strip(".").partition(".")[0]
    return "" if inner == "__main__" else inner


@pytest.mark.parametrize("module", [name for name in MODULES if part(name)])
def test_dependencies_point_one_way(module: str) -> None:
    allowed = {part(module), *ALLOWED[part(module)]}
    ours = {name for name in imports(module) if name.partition(".")[0] == "malearn"}
    offered = ("DAGTaskPredictor", "ExecTimePredictor", "Prediction", "__version__")
    top = {f"malearn.{name}" for name in offered}
    wrong = {name for name in ours if part(name) not in allowed and name not in top}
    if part(module) != "flows":  # the doors open onto what these are made of
        wrong |= ours & top
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_malearn_is_imported_below_it(name: str) -> None:
    link = ROOT / "malearn" / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name
    wrong = {
        module for module in MODULES for used in imports(module) if used.partition(".")[0] == name
    }
    assert not wrong, f"{wrong} import {name} by a name that a user's own module may bear"


@pytest.mark.parametrize(
    "module", [name for name in MODULES if part(name) in ("kernel", "serving")]
)
def test_serving_needs_the_kernel_and_nothing_else(module: str) -> None:
    wrong = {
        name
        for name in imports(module)
        if not within(name, {"malearn.kernel", "malearn.serving"} | BASE)
        and name.partition(".")[0] not in sys.stdlib_module_names
        and module not in HOMES.get(name.partition(".")[0], ())
    }
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("library", HOMES)
def test_each_heavy_library_has_one_home(library: str) -> None:
    users = {
        module
        for module in MODULES
        for name in imports(module)
        if name.partition(".")[0] == library and not within(module, HOMES[library])
    }
    assert not users, f"{library} is imported by {users}; its home is {HOMES[library]}"
    assert any(
        name.partition(".")[0] == library
        for module in MODULES
        if within(module, HOMES[library])
        for name in imports(module)
    ), f"{library} is used nowhere any more: take it from the table"


@pytest.mark.parametrize("module", MODULES)
def test_all_names_what_a_module_offers(module: str) -> None:
    """Every name in `__all__` is there, is defined there, and is listed in order, once."""
    tree = parsed(module)
    loaded = importlib.import_module(module)
    offered = list(getattr(loaded, "__all__", []))
    assert len(offered) == len(set(offered))
    assert [name for name in offered if not hasattr(loaded, name)] == []
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    }
    hidden = {"main"} if MODULES[module].name in ("reaper.py", "database.py") else set()
    if offered:
        used = {name for other in MODULES if other != module for name in imports(other)}
        borrowed = {name for name in defined if f"{module}.{name}" in used}
        assert borrowed - hidden <= set(offered), "used elsewhere, but not offered"


def test_importing_does_no_work(tmp_path: Path) -> None:
    """No file is written, no connection made, no process started by importing all of ours."""
    names = [
        name
        for name in MODULES
        if part(name) != "flows" or within(name, {"malearn.flows.cli", "malearn.flows.commands"})
    ]
    script = f"""
import socket, subprocess, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"work at import: {{args}}")
socket.socket.connect = refuse
import importlib
for name in {names!r}:
    importlib.import_module(name)
"""
    env = os.environ | {"HOME": str(tmp_path), "MALEARN_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    ours = [p for p in tmp_path.rglob("*") if ".cache" not in p.parts and ".config" not in p.parts]
    assert ours == []


def test_nothing_in_the_repository_names_a_machine() -> None:
    """No path and no package index of whoever wrote it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git clone")
    places = "|".join(("/wo" + "rk/", "/ro" + "ot/", "/ho" + r"me/\w", "/Use" + "rs/"))
    indexes = "|".join(("index-" + "url", "find-" + "links", "pypi" + r"\.org"))
    wrong = []
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if not file.is_file():
            continue
        text = file.read_text("utf-8", errors="replace")
        wrong += [f"{name}: {hit.group()}" for hit in re.finditer(f"{places}|{indexes}", text)]
    assert not wrong


# The command.


def commands() -> dict[str, str]:
    """Every subcommand with the first line of its help."""
    import typer

    from malearn.flows.commands import app

    def below(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for name, sub in getattr(command, "commands", {}).items():
            if hasattr(sub, "commands"):
                yield from below(sub, (*words, name))
            else:
                yield " ".join((*words, name)), sub.help or ""

    return dict(below(typer.main.get_command(app), ()))


@pytest.mark.parametrize("command", commands())
def test_every_command_answers_help(command: str) -> None:
    from typer.testing import CliRunner

    from malearn.flows.commands import app

    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert commands()[command].split("\n")[0].split()[0] in done.output


def test_every_command_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in commands() if f"malearn {name}" not in readme] == []


def test_help_is_quick() -> None:
    """Nothing heavy is loaded to answer it."""
    script = (
        "import sys; from malearn.flows import cli; sys.argv = ['malearn', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        f"print(*(name for name in {sorted(HOMES)} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert set(done.stderr.split()) <= {"typer"}


# An installation without the extras.


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the base dependencies alone, as locked, and malearn; its Python."""
    place = tmp_path_factory.mktemp("bare")
    uv = Path(sys.executable).with_name("uv")
    python = place / "venv" / "bin" / "python"
    wheels = place / "wheels"
    _run(uv, "venv", "--quiet", "--python", sys.executable, place / "venv")
    (place / "base.txt").write_text(_locked(uv, place))
    _run(uv, "pip", "install", "--quiet", "--python", python, "--require-hashes",
         "-r", place / "base.txt")  # fmt: skip
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels)
    (wheel,) = wheels.glob("*.whl")
    _run(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    return python


def _locked(uv: Path, place: Path) -> str:
    """The part of `requirements.lock` that the base dependencies need, with its hashes."""
    return _run(
        uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-header", "--no-annotate",
        "--constraint", ROOT / "requirements.lock", ROOT / "pyproject.toml",
    )  # fmt: skip


def _run(*command: object, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A project of somebody else's with modules named as the directories of ours are."""
    for name in ("serving", "expectations", "flows", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} is not ours')\n")
    script = """
from malearn import DAGTaskPredictor
with DAGTaskPredictor("redis://127.0.0.1:1", "http://127.0.0.1:1", cache_dir="cache") as p:
    print(p.predict("task1_llm_process", "gpu", []))
"""
    (tmp_path / "scheduler.py").write_text(script)
    return tmp_path


@pytest.mark.parametrize("installed", ["wheel", "editable"])
def test_a_scheduler_with_modules_of_our_directories_names_predicts(
    installed: str, request: pytest.FixtureRequest, crowded: Path
) -> None:
    """With the base dependencies alone, too: that is what the wheel's venv has."""
    python = request.getfixturevalue("bare") if installed == "wheel" else sys.executable
    done = subprocess.run(
        [python, "scheduler.py"], cwd=crowded, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "15.0\n"), done.stderr


def test_the_command_runs_where_a_project_has_flows_of_its_own(crowded: Path) -> None:
    done = subprocess.run(
        [MALEARN, "data", "quarantine", "--json"],
        cwd=crowded,
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"count": 0' in done.stdout


def test_the_wheel_holds_every_module_and_an_sdist_builds_the_same(
    bare: Path, tmp_path: Path
) -> None:
    def names(wheel: Path) -> dict[str, int]:
        with zipfile.ZipFile(wheel) as archive:
            return {i.filename: i.CRC for i in archive.infolist() if "dist-info" not in i.filename}

    (wheel,) = bare.parents[2].glob("wheels/*.whl")
    ours = {name.replace(".", "/") for name in MODULES}
    files = [name.removesuffix(".py") for name in names(wheel) if name.endswith(".py")]
    assert {name.removesuffix("/__init__") for name in files} == ours
    data = {name for name in names(wheel) if not name.endswith(".py")}
    assert data == {"malearn/py.typed", "malearn/tool_types.toml", "malearn/flows/prefect.yaml"}
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")  # which refuses links that lead outside
    (source,) = tmp_path.glob("malearn-*/")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    (again,) = tmp_path.glob("*.whl")
    assert names(again) == names(wheel)


def test_type_checkers_know_the_types_of_an_installed_malearn(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "from malearn import DAGTaskPredictor\n"
        "p = DAGTaskPredictor()\n"
        "reveal_type(p)\n"
        "reveal_type(p.predict('f', 'gpu', []))\n"
        "reveal_type(p.estimate('f', 'gpu', []).low)\n"
        "reveal_type(p.stats())\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", bare]
    done = subprocess.run(
        [*mypy, "--cache-dir", tmp_path / "cache", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert revealed == [
        "malearn.serving.predictor.DAGTaskPredictor",
        "float",
        "float",
        "malearn.serving.stats.Stats",
    ]


def test_the_base_installation_says_what_the_command_needs(bare: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [bare.with_name("malearn"), "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    sentence = "malearn: this command needs typer, which malearn[lifecycle] brings; "
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{sentence}pip install 'malearn[lifecycle]'.\n"
