"""A Prometheus of the deployment kit on loopback, and the dashboards whose queries it is asked."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Board", "Prometheus", "boards"]

DEPLOY = Path(__file__).parents[1] / "deploy"
#: What stands in `deploy/prometheus/prometheus.yml` for each job.
_TARGETS = {"malearn": "127.0.0.1:9464", "malearn-predictor": "127.0.0.1:9465"}


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard of deploy/grafana, as its file has it."""

    name: str
    title: str
    panels: list[dict[str, Any]]

    @property
    def queries(self) -> list[str]:
        return [target["expr"] for panel in self.panels for target in panel["targets"]]


def boards() -> list[Board]:
    found = []
    for file in sorted((DEPLOY / "grafana").glob("*.json")):
        content = json.loads(file.read_text("utf-8"))
        found.append(Board(file.stem, content["title"], content["panels"]))
    return found


class Prometheus:
    """Debian's Prometheus with the kit's configuration, scraping `targets` each second.

    `targets` are addresses by job; a job that is not named is left out.
    """

    def __init__(self, place: Path, targets: Mapping[str, str]) -> None:
        shutil.copytree(DEPLOY / "prometheus", place)
        file = place / "prometheus.yml"
        config = yaml.safe_load(file.read_text("utf-8"))
        config["global"]["scrape_interval"] = config["global"]["evaluation_interval"] = "1s"
        jobs = [job for job in config["scrape_configs"] if job["job_name"] in targets]
        for job in jobs:
            assert job["static_configs"] == [{"targets": [_TARGETS[job["job_name"]]]}]
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        config["scrape_configs"] = jobs
        file.write_text(yaml.safe_dump(config), "utf-8")
        self._place, self._began = place, time.time()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        address = self.url.removeprefix("http://")
        options = {
            "config.file": self._place / "prometheus.yml",
            "storage.tsdb.path": self._place / "data",
            "web.listen-address": address,
        }
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        with (self._place / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 120.0
        while not self.values("malearn_service_up"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._place / "log").read_text("utf-8", "replace")[-2000:]
                self.__exit__()
                raise RuntimeError(f"Prometheus scrapes nothing:\n{said}")
            time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def values(self, query: str) -> list[dict[str, Any]]:
        """The series that `query` returns now; none where Prometheus refuses it."""
        return self._result(f"query?query={urllib.parse.quote(query)}")

    def history(self, query: str, points: int = 120) -> list[dict[str, Any]]:
        """The series of `query` since the start, each with up to `points` of time and value."""
        now = time.time()
        asked = {"query": query, "start": self._began, "end": now}
        asked["step"] = max((now - self._began) / points, 1.0)
        return self._result(f"query_range?{urllib.parse.urlencode(asked)}")

    def empty(self) -> list[str]:
        """The dashboards' queries that return nothing."""
        return [query for board in boards() for query in board.queries if not self.values(query)]

    def broken_rules(self) -> list[str]:
        """The alert rules whose evaluation failed, each with the error."""
        groups: Any = self._get("rules")
        rules = [rule for group in groups["data"]["groups"] for rule in group["rules"]]
        assert rules
        return [f"{r['name']}: {r.get('lastError')}" for r in rules if r["health"] != "ok"]

    def _result(self, path: str) -> list[dict[str, Any]]:
        answer: Any = self._get(path)
        return list(answer["data"]["result"]) if answer else []

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=30) as answer:
                return json.load(answer)
        except OSError:
            return None
