"""How soon does the page show an answer, and does a long wall scroll smoothly?

``python bench/page.py`` opens the page in Chromium against a server of this machine. Searches and thumbnails are
answered here, with 20 to 5,000 hits of mixed kinds, so that only the page is measured: the time from the whole answer
to the first painted frame with results, to the last card built, and between frames while the wall is scrolled: by 60
pixels a frame, as a quick wheel does it, and by 400, as a hand does that pulls the bar. Frames are slower on a busy
machine; the time of the page's own thread for a frame is not.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from sightline.testing import ToyEmbedder, ToyReranker

COUNTS = (20, 100, 1000, 5000)
KINDS = ("image", "page", "moment", "text")
WORDS = "A long evening beside the river, with the bridge, two boats and a bicycle that leans against a wall. " * 3

MARKS = """
() => Object.fromEntries(["painted", "built"].map((name) => [name,
  performance.getEntriesByName(`sightline-${name}`).at(-1).startTime
  - performance.getEntriesByName("sightline-answer").at(-1).startTime]))
"""
PIXELS = (60, 400)
"""Of scrolling in a frame."""
SCROLL = """
(pixels) => new Promise((done) => {
  const gaps = [];
  let last = performance.now();
  const step = (now) => {
    gaps.push(now - last);
    last = now;
    scrollBy({ top: pixels, behavior: "instant" });
    if (scrollY + innerHeight >= document.body.scrollHeight - 4 || gaps.length > 240) done(gaps);
    else requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})
"""


def answer(count: int) -> str:
    """The answer of a search, as the server writes it."""
    hits = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        picture = None if kind == "text" else f"/v1/libraries/default/items/{number:032x}/thumbnail"
        hits.append(
            {
                "id": f"{number:032x}", "rank": number + 1, "recall_rank": number + 1,
                "score": 0.9, "recall_score": 0.8, "rerank_score": 0.9,
                "kind": kind, "title": f"result {number}", "path": f"/files/result-{number}",
                "page": 1 if kind == "page" else None, "start_s": 4.0 if kind == "moment" else None,
                "end_s": 12.0 if kind == "moment" else None, "snippet": WORDS, "matches": [[7, 14], [26, 31]],
                "thumbnail": picture, "preview": picture, "media": None, "label": 0,
            }
        )  # fmt: skip
    return json.dumps(
        {"library": "default", "hits": hits, "took_ms": {"total": 1, "embed": 1, "recall": 0, "rerank": 0}}
    )


def thumbnail(seed: int) -> bytes:
    """A picture of the size that the server sends."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    data = io.BytesIO()
    coarse.resize((320, 240), Image.Resampling.BICUBIC).save(data, "JPEG", quality=85)
    return data.getvalue()


class Answers:
    """The server, but for searches and thumbnails, which are answered here: what they cost it is not asked.

    Attributes:
        body: of the next answers to a search.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.body = b""
        self.thumbnails = [thumbnail(seed) for seed in range(32)]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        path = scope.get("path", "")
        if path == "/v1/search":
            while (await receive()).get("more_body"):
                pass
            await self.reply(send, b"application/json", self.body)
        elif path.endswith("/thumbnail"):
            await self.reply(send, b"image/jpeg", self.thumbnails[int(path.split("/")[-2], 16) % len(self.thumbnails)])
        else:
            await self.app(scope, receive, send)

    async def reply(self, send: Any, kind: bytes, body: bytes) -> None:
        """Send a whole answer."""
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def measure(page: Page, address: str, count: int, repeats: int) -> dict[str, Any]:
    """Milliseconds, the middle of ``repeats``."""
    rows = []
    gaps: dict[int, list[float]] = {pixels: [] for pixels in PIXELS}
    work_s = dict.fromkeys(PIXELS, 0.0)
    inspector = page.context.new_cdp_session(page)
    inspector.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked_s() -> float:
        found = inspector.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    for _ in range(repeats):
        for pixels in PIXELS:
            page.goto(f"{address}/?q=words&k={count}")
            while not page.evaluate(
                "['painted', 'built'].every(name => performance.getEntriesByName('sightline-' + name).length)"
            ):
                page.wait_for_timeout(50)
            rows.append(page.evaluate(MARKS))
            start_s = worked_s()
            gaps[pixels] += page.evaluate(SCROLL, pixels)
            work_s[pixels] += worked_s() - start_s
    inspector.detach()
    middle = {name: statistics.median(one[name] for one in rows) for name in ("painted", "built")}
    row: dict[str, Any] = {
        "engine": "page",
        "task": f"show {count} hits",
        "items_s": round(count / max(middle["built"], 0.1) * 1000),
        "first_paint_ms": round(middle["painted"], 1),
        "all_built_ms": round(middle["built"], 1),
    }
    for pixels, found in gaps.items():
        found.sort()
        row |= {
            f"frame_ms_p50_{pixels}": round(found[len(found) // 2], 1),
            f"frame_ms_p95_{pixels}": round(found[int(len(found) * 0.95)], 1),
            f"frames_over_50_ms_{pixels}": round(sum(gap > 51 for gap in found) / len(found), 3),
            f"frame_work_ms_{pixels}": round(work_s[pixels] * 1000 / len(found), 1),
        }
    return row


def main() -> int:
    """Print a row for each number of hits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="hits in an answer")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("there is no Chromium on PATH", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Services.of(Settings(library=f"{folder}/library.sightline"), ToyEmbedder(), ToyReranker()))
        answers = Answers(app)
        server = uvicorn.Server(uvicorn.Config(answers, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(120_000)
            rows = []
            for count in options.counts:
                answers.body = answer(count).encode()
                rows.append(measure(page, address, count, options.repeats))
            browser.close()
        server.should_exit = True
        thread.join(timeout=30)
    for row in rows:
        print(f"{row['task']}: first paint {row['first_paint_ms']} ms, all built {row['all_built_ms']} ms")
        for pixels in PIXELS:
            print(
                f"    scrolled by {pixels:3}: a frame {row[f'frame_ms_p50_{pixels}']:5.1f} ms "
                f"(p95 {row[f'frame_ms_p95_{pixels}']:5.1f}, over 50: {row[f'frames_over_50_ms_{pixels}']:4.0%}), "
                f"of work {row[f'frame_work_ms_{pixels}']:5.1f} ms"
            )
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
