"""Takes the pictures of the page in docs/pictures: a real server on the demo library, a real browser.

``python docs/make_pictures.py`` (some minutes: it makes and indexes the demo files). ``--demo DIR`` takes a demo that
was made before with ``sightline demo --out DIR``. Needs the extras ``serve`` and ``demo``, Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import sightline
from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings

PICTURES: Final = Path(__file__).parent / "pictures"
MOST_BYTES: Final = 300_000
DEADLINE_MS: Final = 300_000
WIDE: Final = {"viewport": {"width": 1280, "height": 800}}
PHONE: Final = {
    "viewport": {"width": 390, "height": 780},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


@contextmanager
def server(demo: Path) -> Iterator[str]:
    """A server on the library of a demo; gives its address."""
    services = Services.of(
        Settings(library=str(demo / "index.sightline"), rerank=20, serve_timeout_s=600.0),
        sightline.Embedder.load("builtin"),
        sightline.Reranker.load("builtin"),
    )
    running = uvicorn.Server(uvicorn.Config(create_app(services), port=0, log_level="warning"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        if not thread.is_alive():
            raise SystemExit("the server did not start")
        time.sleep(0.05)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(timeout=60)


def until(page: Page, expression: str) -> None:
    """Wait until something holds in the page."""
    end = time.monotonic() + DEADLINE_MS / 1000
    while not page.evaluate(f"Boolean({expression})"):
        if time.monotonic() > end:
            raise SystemExit(f"never came true: {expression}")
        page.wait_for_timeout(40)


def answered(page: Page) -> None:
    """Wait for results and for the pictures of those in sight."""
    until(page, "document.querySelector('#wall .card:not(.skeleton)')")
    until(
        page,
        "[...document.querySelectorAll('#wall img')].every(image => image.classList.contains('here')"
        " || image.getBoundingClientRect().top > innerHeight)",
    )
    # how long it took says something about the machine that takes the pictures, not about Sightline
    page.evaluate(
        "document.querySelector('#count').textContent = document.querySelector('#count').textContent.split(' in ')[0]"
    )
    page.mouse.move(2, 400)
    page.wait_for_timeout(600)


def keep(page: Page, name: str) -> None:
    """A screenshot with at most 256 colours, which is what keeps it small."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    target = PICTURES / f"{name}.png"
    shot.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)
    size = target.stat().st_size
    sys.stdout.write(f"{target}: {size / 1000:.0f} kB\n")
    if size > MOST_BYTES:
        raise SystemExit(f"{target} has over {MOST_BYTES} bytes")


def take(browser: Any, address: str, demo: Path) -> None:
    """All four pictures."""

    def window(path: str, **options: Any) -> Page:
        page: Page = browser.new_context(base_url=address, color_scheme="light", **options).new_page()
        page.set_default_timeout(DEADLINE_MS)
        page.goto(path)
        return page

    page = window("/?q=a+red+circle", **WIDE)
    answered(page)
    keep(page, "search")

    page = window("/?q=removing+lime+with+citric+acid&kind=page", **WIDE)
    answered(page)
    page.locator("#wall .open").first.click()
    until(page, "document.querySelector('#stage img:not(.small)')?.naturalWidth > 400")
    until(page, "document.querySelector('#words').textContent.length > 40")
    page.wait_for_timeout(400)
    keep(page, "preview")

    page = window("/", **WIDE)
    page.evaluate(
        "fetch('/v1/libraries', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({id: 'pictures-of-the-docs'})})"
    )
    page.goto("/?library=pictures-of-the-docs")
    page.get_by_role("button", name="Add files").last.click()
    page.fill("#path", str(demo / "files"))
    page.press("#path", "Enter")
    until(page, "/(scene|film|slides)/.test(document.querySelector('#jobs').textContent)")
    keep(page, "indexing")
    page.get_by_role("button", name="Stop").click()
    until(page, "!document.querySelector('#jobs li[data-status=running]')")
    page.evaluate("fetch('/v1/libraries/pictures-of-the-docs', {method: 'DELETE'})")

    page = window("/?q=bar+chart+of+umbrellas+sold", **PHONE)
    answered(page)
    keep(page, "phone")


def main() -> int:
    """Make the demo where none is given, then the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, help="a folder made by sightline demo --out")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("there is no Chromium on PATH")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = f"{folder}/data"
        demo = options.demo
        if demo is None:
            demo = Path(folder) / "demo"
            command = [sys.executable, "-m", "sightline", "demo", "--out", str(demo)]
            subprocess.run(command, check=True)  # noqa: S603 - of this program, with a folder of our own
        with server(demo.resolve()) as address, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
            take(browser, address, demo.resolve())
            browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
