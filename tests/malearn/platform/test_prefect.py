"""The embedded Prefect server."""

from __future__ import annotations

import json
import re
from urllib.request import Request, urlopen

import pytest


def ask(url: str, **headers: str) -> str:
    with urlopen(Request(url, headers=headers), timeout=120) as answer:
        content: bytes = answer.read()
    return content.decode()


def test_answers(prefect_api: str) -> None:
    assert json.loads(ask(f"{prefect_api}/health")) is True


def test_its_pages_find_their_api_and_their_scripts(prefect_api: str) -> None:
    root = prefect_api.removesuffix("/api")
    assert json.loads(ask(f"{root}/ui-settings"))["api_url"] == prefect_api
    scripts = re.findall(r'src="(/[^"]+\.js)"', ask(root))
    assert scripts
    assert all(ask(f"{root}{script}") for script in scripts)


@pytest.mark.usefixtures("prefect_api")
def test_a_flow_of_this_process_reports_to_it(prefect_api: str) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    @flow
    def answer() -> int:
        return 42

    state = answer(return_state=True)
    with get_client(sync_client=True) as client:
        assert str(client.api_url).rstrip("/") == prefect_api
        assert client.read_flow_run(state.state_details.flow_run_id).state.is_completed()
