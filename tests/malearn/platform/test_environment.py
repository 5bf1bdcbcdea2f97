"""Whatever proxies and paths the caller has set, our servers and their clients find each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis, Platform, environment

NAMES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "both"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "a.example"}, "a.example,127.0.0.1"),
        ({"no_proxy": "a.example , b.example"}, "a.example,b.example,127.0.0.1"),
        ({"no_proxy": "a.example", "NO_PROXY": "127.0.0.1"}, "a.example,127.0.0.1"),
        ({"NO_PROXY": "*"}, "*"),
        ({"NO_PROXY": "*,a.example"}, "*"),
    ],
)
def test_both_spellings_of_no_proxy_name_this_machine(
    variables: dict[str, str], both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.reachable_directly(["127.0.0.1"]) == {"NO_PROXY": both, "no_proxy": both}


def test_every_loopback_name_is_reached_directly_by_pythons_client(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.request import proxy_bypass_environment

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Platform(home, redis=True):
        assert all(proxy_bypass_environment(name) for name in ("127.0.0.1", "localhost"))
        assert not proxy_bypass_environment("elsewhere.example")
        assert os.environ["HTTP_PROXY"] == "http://127.0.0.1:1"
    assert "no_proxy" not in os.environ


def test_a_socks_proxy_keeps_no_client_of_prefect_from_starting(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with Platform(home, redis=True), httpx.Client():
        assert "ALL_PROXY" not in os.environ
    assert os.environ["ALL_PROXY"] == "socks5://127.0.0.1:1"


def test_a_server_gets_no_proxy_and_paths_that_are_absolute(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("PYTHONPATH", f"src{os.pathsep}/opt{os.pathsep}")
    seen = EmbeddedRedis(home).environment(1)
    assert "https_proxy" not in seen
    assert seen["PYTHONPATH"].split(os.pathsep) == [f"{tmp_path}/src", "/opt", str(tmp_path)]
    assert environment.for_server(proxies=True)["https_proxy"] == "http://127.0.0.1:1"
