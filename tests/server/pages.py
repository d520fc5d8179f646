"""A browser for the tests of the page, and files to look for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.library import Library
from tests.cli.toys import Judge, Seeing
from tests.search.corpus import pdf

DEADLINE_MS = 120_000  # the machine may be busy; nothing here is about time
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RED, GREEN, BLUE = (220, 30, 30), (30, 170, 60), (40, 60, 220)

WATCH = """
window.__violations = [];
window.__ran = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("there is no Chromium on PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One window of a browser, and what went wrong in it.

    Attributes:
        page: Playwright's page.
        wrong: dialogs, errors of scripts and of the console, breaches of the content policy.
    """

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 860}} | options
        self.context = browser.new_context(base_url=address, **options)
        self.context.set_default_timeout(DEADLINE_MS)
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.wrong.append(message.text)

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def go(self, path: str = "/") -> Any:
        """Open an address and wait for its scripts."""
        self.page.goto(path)
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def search(self, words: str) -> None:
        """Type words and wait for the answer."""
        self.page.fill("#q", words)
        with self.page.expect_response("**/v1/search"):
            self.page.press("#q", "Enter")
        self.settle()

    def until(self, expression: str) -> None:
        """Wait until something holds. Playwright's own way needs ``eval``, which the page's policy forbids."""
        end = time.monotonic() + DEADLINE_MS / 1000
        while not self.page.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never came true: {expression}"
            self.page.wait_for_timeout(25)

    def settle(self) -> None:
        """Wait until a search is over, one way or the other."""
        self.until(
            "document.querySelector('#count').textContent !== 'Searching…'"
            " && !document.querySelector('#wall[aria-busy]')"
        )

    @property
    def titles(self) -> list[str]:
        """Titles on the wall, in order."""
        found: list[str] = self.page.locator("#wall .card .title").all_text_contents()
        return found

    @property
    def kinds(self) -> list[str]:
        """Kinds on the wall, in order."""
        found: list[str] = self.page.eval_on_selector_all(
            "#wall .card", "cards => cards.map(card => card.dataset.kind)"
        )
        return found

    def close(self) -> None:
        """Close the window; whatever went wrong in it is an error here."""
        for page in self.context.pages:
            self.wrong += page.evaluate("window.__violations ?? []")
            self.wrong += page.evaluate("window.__ran ?? []")
        self.context.close()
        assert self.wrong == [], self.wrong


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (96, 72)) -> Path:
    """A plain picture."""
    Image.new("RGB", size, colour).save(path)
    return path


def clip(path: Path, colours: list[tuple[int, int, int]], part_s: int = 8, fps: int = 4) -> None:
    """Plain colours, one after the other, as browsers play it."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for colour in colours:
            pixels = np.full((72, 96, 3), colour, np.uint8)
            for _ in range(part_s * fps):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def make_files(folder: Path) -> None:
    """Photos of three colours, a PDF, a clip of two moments and more, notes; and a file that cannot be read."""
    for name in ("photos", "papers"):
        (folder / name).mkdir(parents=True)
    for name, colour in {"rose": RED, "meadow": GREEN, "lake": BLUE}.items():
        picture(folder / "photos" / f"{name}.png", colour)
    picture(folder / "photos" / "tomato.png", (200, 20, 20))
    pdf(folder / "papers" / "manual.pdf", ["How to repair a bicycle chain", "How to paint a fence"])
    clip(folder / "photos" / "signal.webm", [RED, BLUE])
    (folder / "papers" / "bees.txt").write_text("The bees swarm in May. A bicycle is of no use to them.\n")
    (folder / "papers" / "bread.md").write_text("# Bread\n\nBake the bread at 240 degrees.\n")
    (folder / "papers" / "empty.txt").write_text("")


def index(place: Path, folder: Path) -> None:
    """An index of a folder, made with toys."""
    with Library.open(place, embedder=Seeing(model="toy"), reranker=Judge()) as library:
        library.add([folder])
