"""Prefect in a real browser: who has the home's password gets in, and no foreign page does."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator

import pytest

from tests.browser.conftest import Page


@pytest.fixture
def foreign() -> Iterator[str]:
    """A page of another origin, as the operator might have open beside Prefect's."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<body>a foreign page</body>")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_prefects_pages_ask_for_the_password_and_then_work(page: Page, prefect_api: str) -> None:
    site = prefect_api.removesuffix("/api")
    page.log_in(site, os.environ["PREFECT_API_AUTH_STRING"])
    page.shows("Dashboard", "Automations")


def fetched(page: Page, url: str, **options: object) -> str:
    """What became of a request that the open page made."""
    page.run(
        f"document.body.innerText = 'asking'; fetch({json.dumps(url)}, {json.dumps(options)})"
        ".then(answer => document.body.innerText = `done: ${answer.type} ${answer.status}`)"
        ".catch(error => document.body.innerText = `done: blocked`)"
    )
    return page.shows("done:")


def test_a_foreign_page_neither_reads_nor_starts_anything(
    page: Page, prefect_api: str, foreign: str
) -> None:
    """Not even in a browser that is logged in: the password is sent by Prefect's pages alone."""
    from prefect.client.orchestration import get_client

    page.log_in(prefect_api.removesuffix("/api"), os.environ["PREFECT_API_AUTH_STRING"])
    page.open(foreign, "a foreign page")
    flows = f"{prefect_api}/flows/"
    body = json.dumps({"name": "made by a foreign page"})
    assert "blocked" in fetched(page, f"{prefect_api}/flows/filter", method="POST", body="{}")
    # Without CORS a browser sends it all the same, and hides the answer.
    assert "opaque" in fetched(page, flows, method="POST", mode="no-cors", body=body)
    with get_client(sync_client=True) as client:
        assert "made by a foreign page" not in {flow.name for flow in client.read_flows()}
