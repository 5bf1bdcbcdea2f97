"""A real Chromium without a screen, driven by Playwright; without one, tests skip.

`MALEARN_PICTURES=docs/images` makes the tests take the documents' screenshots.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Error, Playwright, sync_playwright
from playwright.sync_api import Page as Tab

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Its sandbox wants rights that root in a container does not have.
SANDBOX = os.geteuid() != 0
PATIENCE = 300.0  # seconds that a page may take to show what is waited for
PICTURES = "MALEARN_PICTURES"

T = TypeVar("T")


class Page:
    """One tab: where it is sent, what a reader sees there, and a picture of it.

    Playwright runs an event loop, which Prefect would take for its own: it has a thread to itself.
    """

    def __init__(self, tab: Tab, thread: ThreadPoolExecutor) -> None:
        self._tab, self._thread = tab, thread

    def open(self, url: str, *awaited: str) -> str:
        """The text of the page at `url`, once each of `awaited` can be read in it."""
        # A page that only changes its fragment would not be loaded anew.
        self._do(lambda: self._tab.goto("about:blank"))
        self._do(lambda: self._tab.goto(url, wait_until="commit", timeout=PATIENCE * 1e3))
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
        try:
            return str(self.run("document.body ? document.body.innerText : ''") or "")
        except Error:  # it is on its way to another page
            return ""

    def click(self, words: str) -> None:
        """Press the mouse on what says exactly `words`."""
        self._do(
            lambda: self._tab.get_by_text(words, exact=True).last.click(timeout=PATIENCE * 1e3)
        )

    def click_part(self, words: str) -> None:
        """Press the mouse on the first place that holds `words`."""
        self._do(lambda: self._tab.get_by_text(words).first.click(timeout=PATIENCE * 1e3))

    def log_in(self, site: str, password: str) -> None:
        """Open Prefect's pages at `site`, and answer should they ask for a password."""
        self.open(site, "Log")  # in or out
        if "Logout" not in self.text():
            self.shows("Login")
            self._do(lambda: self._tab.locator("input").first.fill(password))
            self.click("Login")
        self.shows("Logout")

    def run(self, script: str) -> Any:
        """What `script` comes to in the page."""
        return self._do(lambda: self._tab.evaluate(script))

    def picture(self, name: str, height: int = 900) -> None:
        """The page as `name`.png among the documents' images, where these are asked for."""
        if folder := os.environ.get(PICTURES):
            file = Path(folder) / f"{name}.png"
            self._do(lambda: self._tab.set_viewport_size({"width": 1400, "height": height}))
            time.sleep(2.0)  # charts move until they stand
            self._do(lambda: self._tab.screenshot(path=file))
            self._do(lambda: self._tab.set_viewport_size({"width": 1400, "height": 900}))
            _shrink(file)

    def _do(self, action: Callable[[], T]) -> T:
        return self._thread.submit(action).result()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's command."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    return found


@pytest.fixture(scope="session")
def page(chromium: str) -> Iterator[Page]:
    """A tab of a browser with a profile of its own, which has seen no page yet."""
    with ThreadPoolExecutor(1) as thread:
        playwright: Playwright = thread.submit(sync_playwright().start).result()
        try:
            try:
                browser = thread.submit(
                    lambda: playwright.chromium.launch(
                        executable_path=chromium,
                        chromium_sandbox=SANDBOX,
                        args=["--disable-dev-shm-usage", "--hide-scrollbars"],
                        timeout=PATIENCE * 1e3,
                    )
                ).result()
            except Error as error:
                pytest.skip(f"the browser does not start here: {str(error)[-500:]}")
            size = {"width": 1400, "height": 900}
            tab = thread.submit(lambda: browser.new_page(viewport=size)).result()
            yield Page(tab, thread)
            thread.submit(browser.close).result()
        finally:
            thread.submit(playwright.stop).result()


def quoted(text: str) -> str:
    """`text` inside a script."""
    return json.dumps(text)


def _shrink(file: Path) -> None:
    """Few colours are enough for a page, and make its picture small."""
    from PIL import Image

    with Image.open(file) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
