"""What an installation of the lock is made of: an SBOM (CycloneDX) and a table of licences.

    python docs/licences.py DIRECTORY

writes `sbom.cdx.json` and `licences.md` there, of all packages in `requirements.lock`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"


def locked() -> dict[str, str]:
    """Name and version of every package in the lock."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK.read_text("utf-8"), re.MULTILINE))


def licence(package: str) -> str:
    """The licence that `package` declares; "" where it is not installed here or says nothing."""
    try:
        said = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return ""  # for another platform or Python
    classifiers = [c for c in said.get_all("Classifier", []) if c.startswith("License :: ")]
    words = said.get("License-Expression") or ""
    words = words or ", ".join(c.rpartition(" :: ")[2] for c in classifiers)
    words = words or (said.get("License") or "")
    return " ".join(words.splitlines()[0].split())[:60] if words.strip() else ""


def table() -> str:
    """The packages of the lock with their licences, in Markdown."""
    lines = ["| Package | Version | Licence |", "| --- | --- | --- |"]
    for name, version in sorted(locked().items()):
        lines.append(f"| {name} | {version} | {licence(name) or 'see the package'} |")
    return "\n".join(lines) + "\n"


def sbom(file: Path) -> int:
    """Write CycloneDX of the lock to `file`, by its own tool; returns the number of packages."""
    project = ["--pyproject", LOCK.with_name("pyproject.toml"), "--output-reproducible"]
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", *project, "-o", file, LOCK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return len(json.loads(file.read_text("utf-8"))["components"])


def main(folder: str) -> None:
    place = Path(folder)
    place.mkdir(exist_ok=True)
    (place / "licences.md").write_text(table(), "utf-8")
    print(f"{sbom(place / 'sbom.cdx.json')} packages in {place}/sbom.cdx.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
