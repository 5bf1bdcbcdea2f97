"""The deployment kit holds together: every file parses, and every command and metric exists.

Nothing here is deployed; `make bench ARGS=stack` runs the stack that compose.yaml describes.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from malearn.operations.metrics import METRICS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.*r*"))
PASSWORDS = {
    "REDIS_PASSWORD": "r",
    "POSTGRES_PASSWORD": "p",
    "PREFECT_PASSWORD": "f",
    "MALEARN_HTTP_TOKEN": "t",
}
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


def filled(text: str) -> str:
    """`text` with Compose's variables as a user with three passwords has them."""
    return VARIABLE.sub(lambda m: PASSWORDS.get(m[1], m[3] if m[2] == "-" else ""), text)


# Compose.


def test_what_a_compose_service_names_is_there() -> None:
    volumes = set(COMPOSE["volumes"])
    for name, service in SERVICES.items():
        assert "image" in service, name
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
        for mount in service.get("volumes", ()):
            assert mount.partition(":")[0] in volumes, f"{name}: {mount}"
        for dependency in service.get("depends_on", ()):
            assert "healthcheck" in SERVICES[dependency], f"{name} waits for {dependency}'s health"
        for value in service.get("environment", {}).values():
            assert isinstance(value, str), f"{name}: a number or a boolean would be rewritten"
    used = {m.partition(":")[0] for s in SERVICES.values() for m in s.get("volumes", ())}
    assert volumes == used


def test_ports_are_published_on_loopback_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_every_variable_of_compose_stands_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    names = {match[1] for match in VARIABLE.finditer(text)}
    example = (DEPLOY / "env.example").read_text("utf-8")
    assert names == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_targets_of_the_dockerfile_exist() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    named = [name for _, name in stages]
    assert {"scheduler", "lifecycle"} <= set(named)
    for base, _ in stages:
        assert base in named or base.startswith("python:"), base
    assert SERVICES["worker"]["build"]["target"] == "lifecycle"
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert [name for name in source.split() if not (ROOT / name).exists()] == []
    # What hadolint asks for: no root at run time, no latest tag, no cache kept.
    assert "USER 10001" in text
    assert ":latest" not in text
    assert all("--no-cache" in line for line in text.splitlines() if " pip install " in line)


# Kubernetes.


def documents(file: Path) -> Iterator[dict[str, Any]]:
    yield from (d for d in yaml.safe_load_all(file.read_text("utf-8")) if d)


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_a_manifest_follows_its_schema(file: Path) -> None:
    import kubernetes_validate

    for document in documents(file):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, "1.31", strict=True)


def test_the_kustomization_names_every_manifest() -> None:
    (one,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    assert {f.name for f in MANIFESTS} == {*one["resources"], "kustomization.yaml"}


def test_a_pod_has_probes_limits_and_no_rights_and_its_secrets_exist() -> None:
    example = (DEPLOY / "kubernetes" / "secrets.env.example").read_text("utf-8")
    secrets, used = set(re.findall(r"^(\w+)=", example, re.MULTILINE)), set()
    pods = [
        (d["metadata"]["name"], d["spec"]["template"]["spec"])
        for file in MANIFESTS
        for d in documents(file)
        if d["kind"] == "Deployment"
    ]
    assert len(pods) >= 3
    for name, pod in pods:
        (container,) = pod["containers"]
        probes = {"startupProbe", "readinessProbe", "livenessProbe"}
        assert probes <= set(container), name
        assert container["resources"]["limits"]["memory"], name
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not container["securityContext"]["allowPrivilegeEscalation"], name
        for variable in container["env"]:
            if "valueFrom" in variable:
                used.add(variable["valueFrom"]["secretKeyRef"]["key"])
    assert used == secrets


# Commands.


def commands() -> dict[str, list[str]]:
    """The command of every container and unit."""
    found = {}
    for name, service in SERVICES.items():
        if "malearn" in service["image"]:
            found[f"compose {name}"] = [filled(word) for word in service["command"]]
    for file in MANIFESTS:
        for document in documents(file):
            if document["kind"] == "Deployment":
                (container,) = document["spec"]["template"]["spec"]["containers"]
                found[f"kubernetes {file.stem}"] = container["command"]
    for unit in UNITS:
        for line in re.findall(r"^ExecStart=(.+)$", unit.read_text("utf-8"), re.MULTILINE):
            words = shlex.split(line)
            if words[0] == "/bin/sh":
                words = shlex.split(words[2].removeprefix("exec "))
            found[f"systemd {unit.name}"] = [Path(words[0]).name, *words[1:]]
    return found


@functools.cache
def helped(*words: str) -> str:
    """What a command says of its options, run with nothing but PATH in its environment."""
    place = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [place / words[0], *words[1:], "--help"],
            env={"PATH": f"{place}{os.pathsep}/usr/bin:/bin", "HOME": folder},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", commands())
def test_a_command_is_understood_in_a_clean_environment(name: str) -> None:
    """Each of its options is one that the command, asked there, says it has."""
    words = commands()[name]
    first = next((n for n, w in enumerate(words) if w.startswith(("-", "/"))), len(words))
    known = set(re.findall(r"--[a-z][a-z-]+", helped(*words[:first])))
    assert {word for word in words if word.startswith("--")} <= known


# systemd.


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_passes_systemd_analyze(unit: Path, tmp_path: Path) -> None:
    """With the command in a place that exists here."""
    for each in UNITS:
        text = each.read_text("utf-8").replace("/opt/malearn/bin", str(Path(sys.executable).parent))
        (tmp_path / each.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "malearn" in line]
    assert ours == []


# Dashboards and alerts.


def exposed() -> set[str]:
    """The names of all metrics, of the platform and of a predictor, as Prometheus stores them."""
    from malearn.serving import prometheus

    names = {name + "_total" * (kind == "counter") for name, (kind, _) in METRICS.items()}
    source = Path(prometheus.__file__).read_text("utf-8")
    ours = {f"malearn_{name}" for name, _, _ in prometheus._COUNTERS}
    ours |= set(re.findall(r'"(malearn_\w+)"', source))
    histogram = {f"malearn_call_seconds_{part}" for part in ("bucket", "sum", "count")}
    return names | ours | {f"{name}_total" for name in ours} | histogram


def queries() -> dict[str, str]:
    found = {}
    for file in sorted((DEPLOY / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                found[f"{file.stem}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_dashboards_and_alerts_use_metrics_that_exist() -> None:
    known = exposed()
    expressions = [*queries().values(), *(rule["expr"] for rule in rules())]
    used = {name for text in expressions for name in re.findall(r"\bmalearn_\w+", text)}
    assert used - known == set()
    shown = {name for text in queries().values() for name in re.findall(r"\bmalearn_\w+", text)}
    platform = {name + "_total" * (kind == "counter") for name, (kind, _) in METRICS.items()}
    beside = {"malearn_source_up", "malearn_drifted_inputs", "malearn_production_version"}
    times = {name for name in platform if name.endswith("timestamp_seconds")}
    assert platform - shown <= beside | times, "a metric that no dashboard shows"


def test_every_alert_has_its_paragraph_in_the_runbook() -> None:
    from tests.test_docs import anchors

    known = anchors(ROOT / "docs" / "runbook.md")
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor in known) == ("docs/runbook.md", True), rule["alert"]
        assert rule["annotations"]["summary"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool here")
def test_prometheus_accepts_its_configuration_and_every_query() -> None:
    _promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    rule = {"groups": [{"name": "dashboards", "rules": []}]}
    rule["groups"][0]["rules"] = [  # type: ignore[assignment]
        {"record": f"query_{n}", "expr": text} for n, text in enumerate(queries().values())
    ]
    _promtool("check", "rules", "/dev/stdin", content=json.dumps(rule))


def _promtool(*words: object, content: str = "") -> None:
    done = subprocess.run(
        ["promtool", *map(str, words)], input=content, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
