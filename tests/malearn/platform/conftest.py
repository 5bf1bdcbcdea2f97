"""Tests of the servers start their own, whatever servers other tests have in the environment."""

from __future__ import annotations

import pytest

from malearn.platform import EmbeddedRedis, MLflowServer, PrefectServer


@pytest.fixture(autouse=True)
def _none_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for server in (EmbeddedRedis, MLflowServer, PrefectServer):
        monkeypatch.delenv(server.setting, raising=False)
