"""A real Chromium without a screen, driven over its own protocol; without one, tests skip."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
PATIENCE = 300.0  # seconds that a page may take to show what is waited for


class Page:
    """One tab: where it is sent, what a reader sees there, and a picture of it."""

    def __init__(self, socket: ClientConnection, width: int = 1400, height: int = 900) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._ask("Page.enable")
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str, *awaited: str) -> str:
        """The text of the page at `url`, once each of `awaited` can be read in it."""
        self._ask("Page.navigate", url="about:blank")
        self._ask("Page.navigate", url=url)
        return self.shows(*awaited)

    def shows(self, *awaited: str) -> str:
        """The text of this page, once each of `awaited` can be read in it."""
        deadline = time.monotonic() + PATIENCE
        text = self.text()
        while missing := [word for word in awaited if word not in text]:
            if time.monotonic() > deadline:
                pytest.fail(f"{missing} not on the page, which says:\n{text}")
            time.sleep(0.2)
            text = self.text()
        return text

    def text(self) -> str:
        """What a reader sees."""
        return str(self.run("document.body ? document.body.innerText : ''") or "")

    def click(self, words: str) -> None:
        """Press the mouse on what says exactly `words`."""
        place = self.run(f"""(() => {{
            const found = [...document.querySelectorAll('body *')].filter(it =>
                it.innerText?.trim() === {json.dumps(words)} && it.getClientRects().length);
            const box = found.at(-1)?.getBoundingClientRect();
            return box && {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }};
        }})()""")
        assert place, f"nothing says {words!r}"
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def log_in(self, site: str, password: str) -> None:
        """Open Prefect's pages at `site`, and answer should they ask for a password."""
        self.open(site, "Log")  # in or out
        if "Logout" not in self.text():
            self.shows("Login")
            self.run("document.querySelector('input').focus()")
            self._ask("Input.insertText", text=password)
            self.click("Login")
        self.shows("Logout")

    def run(self, script: str) -> Any:
        """What `script` comes to in the page."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def picture(self, file: Path) -> None:
        """The page as PNG."""
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, **parameters: object) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=PATIENCE))
            if said.get("id") == number:
                assert "error" not in said, said["error"]
                return said["result"]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's command."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    return found


@pytest.fixture(scope="session")
def page(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab of a browser with a profile of its own, which has seen no page yet."""
    profile = tmp_path_factory.mktemp("chromium")
    # Its sandbox wants rights that root in a container does not have.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    log = profile / "log"
    with log.open("w") as errors:
        command = [chromium, *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        browser = subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL)
    try:
        with connect(tab(address(browser, log)), max_size=None) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait(120)


def address(browser: subprocess.Popen[bytes], log: Path) -> str:
    """Where the browser listens, which it says once it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if said := re.search(r"DevTools listening on ws://([\d.:]+)/", log.read_text("utf-8")):
            return said.group(1)
        if browser.poll() is not None:
            pytest.skip(f"the browser does not start here: {log.read_text('utf-8')[-500:]}")
        time.sleep(0.1)
    raise TimeoutError("the browser did not say where it listens")


def tab(host: str) -> str:
    """The socket of its first tab."""
    with urllib.request.urlopen(f"http://{host}/json", timeout=120) as answer:
        tabs = json.load(answer)
    found = (one["webSocketDebuggerUrl"] for one in tabs if one["type"] == "page")
    return str(next(found))
