"""A hook of MkDocs: links from a page to a file that the site does not hold lead to the source."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: `](../deploy)`, `](tour.py)`: files of the repository, not pages.
OUTSIDE = re.compile(r"\]\((?P<path>\.\./[^)#\s]+|[\w./-]+\.(?:py|ipynb))(?P<anchor>#[^)\s]*)?\)")


def source() -> str:
    """Where files of the repository can be read, as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["urls"]["Source"])


def on_page_markdown(markdown: str, **_: Any) -> str:
    def lead(match: re.Match[str]) -> str:
        place = (ROOT / "docs" / match["path"]).resolve().relative_to(ROOT)
        return f"]({source()}/{place.as_posix()}{match['anchor'] or ''})"

    return OUTSIDE.sub(lead, markdown)
