"""What the documents say is so: links lead somewhere, commands parse, snippets import, nothing is
out of date."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

ROOT = Path(__file__).parents[1]
PAGES = {
    str(file.relative_to(ROOT)): file
    for file in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as those who show Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", file.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page, broken = PAGES[name], []
    for target in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_figures_in_the_readme_are_those_of_the_page_on_accuracy() -> None:
    accuracy = PAGES["docs/accuracy.md"].read_text("utf-8")
    head = PAGES["README.md"].read_text("utf-8").partition("## ")[0]
    rows = re.findall(r"^\| `([\w ]+)`, ([\d,]*)[^|]*\|(.*)\|$", head, re.MULTILINE)
    assert len(rows) == 4
    for name, tasks, numbers in rows:
        (line,) = re.findall(rf"^\| {name} \|.*\*\*.*$", accuracy, re.MULTILINE)
        ours, best, fixed = (number.strip() for number in numbers.split("|"))
        cells = [cell.strip().partition(",")[0] for cell in line.split("|")[3:-1]]
        assert tasks in line
        assert (cells[0], cells[-1]) == (ours, fixed)
        assert best in cells[1:-1]


def test_pictures_are_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    text = "".join(file.read_text("utf-8") for file in PAGES.values())
    assert [file.name for file in pictures if f"images/{file.name})" not in text] == []
    assert [file.name for file in pictures if file.stat().st_size > 150_000] == []


def commands(text: str) -> Iterator[str]:
    """What a reader may type after `malearn`: lines of blocks, and code within lines."""
    blocks = BLOCK.findall(text)
    for language, block in blocks:
        if language in ("", "sh", "bash", "console"):
            yield from (
                line.partition(" malearn ")[2] if "$(" in line else line.strip()[8:]
                for line in block.splitlines()
                if line.strip().startswith("malearn ")
            )
    yield from (code[8:] for code in re.findall(r"`(malearn [a-z-][^`]*)`", BLOCK.sub("", text)))


def words(command: str) -> list[str]:
    """Its words, with the brackets of optional ones gone and an example for each placeholder."""
    bare = re.sub(r"[\[\]…]", " ", command.replace(r"\|", "|").partition(" #")[0])
    examples = {
        "VERSION": "3",
        "N": "3",
        "NAME=VALUE": "a=1",
        "TASK_ID": "an-id",
        "V1": "1",
        "V2": "2",
    }
    return [examples.get(word, word) for word in shlex.split(bare)]


@pytest.mark.parametrize(
    "command",
    sorted({line for file in PAGES.values() for line in commands(file.read_text("utf-8"))}),
)
def test_commands_parse_with_the_real_command_line(command: str) -> None:
    from malearn.flows.commands import app

    found, rest = typer.main.get_command(app), words(command)
    while hasattr(found, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in found.commands, f"there is no command {rest[0]}"
        found, rest = found.commands[rest[0]], rest[1:]
    if rest and not hasattr(found, "commands"):
        found.make_context("malearn", rest)  # raises for what it does not understand


@pytest.mark.parametrize("name", PAGES)
def test_targets_of_make_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = PAGES[name].read_text("utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("name", PAGES)
def test_snippets_compile_and_what_they_import_is_there(name: str) -> None:
    for language, block in BLOCK.findall(PAGES[name].read_text("utf-8")):
        if language != "python" or block.lstrip().startswith(">>>"):
            continue  # the latter are run
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    found = hasattr(module, alias.name)
                    assert found or importlib.util.find_spec(f"{node.module}.{alias.name}")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """docs/reference.py, which writes the page of that name."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(reference: ModuleType) -> None:
    assert reference.text() == PAGES["docs/reference.md"].read_text("utf-8"), "make docs"


def test_the_reference_names_every_variable_that_is_read(reference: ModuleType) -> None:
    packages = ("malearn", "serving", "expectations", "flows")
    code = "".join(f.read_text("utf-8") for name in packages for f in (ROOT / name).rglob("*.py"))
    read = set(re.findall(r"\b(?:MALEARN_[A-Z_]+|MLFLOW_TRACKING_[A-Z_]+|PREFECT_API_URL)\b", code))
    assert read == set(reference.VARIABLES) - {"XDG_CACHE_HOME", "MAZE_WORKSPACE_DIR"}
