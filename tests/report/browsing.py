"""A page of the report in a real browser."""

import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


class Opened:
    """The page in a browser window, with what the console said and what was asked of the network."""

    def __init__(self, browser: Any, page: Path, width: int = 1280, **options: Any) -> None:
        self.window = browser.new_page(viewport={"width": width, "height": 1000}, **options)
        self.said: list[str] = []
        self.requests: list[str] = []
        self.window.on("console", lambda message: self.said.append(message.text))
        self.window.on("pageerror", lambda error: self.said.append(str(error)))
        self.window.on("request", lambda request: self.requests.append(request.url))
        self.window.goto(page.as_uri())

    def open_all(self) -> None:
        self.window.wait_for_selector("html[data-ready=yes]")
        self.window.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        # Charts are drawn when they come into sight.
        self.window.evaluate(
            "(async () => { for (let y = 0; y < document.body.scrollHeight; y += 800) { scrollTo(0, y);"
            " await new Promise(requestAnimationFrame); await new Promise((done) => setTimeout(done, 20)); } })()"
        )
        self.window.wait_for_function(
            "[...document.querySelectorAll('[data-chart]')].every((each) => each.querySelector('svg'))"
        )
