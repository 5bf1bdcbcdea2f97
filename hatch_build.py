"""A hook of the build: the README as package indexes show it, with absolute links and pictures.

In the repository its links are relative, so that they work in a checkout of any version.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"(\]\()(?!\w+:|#)([^)\s]+\))")


class ReadmeHook(MetadataHookInterface):
    """Sets `readme` to README.md with its links led to the project's Source."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text("utf-8")
        source = metadata["urls"]["Source"]
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": RELATIVE.sub(rf"\g<1>{source}/\g<2>", text),
        }
