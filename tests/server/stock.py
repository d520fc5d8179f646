"""A few files of every kind, and an application around a library that holds them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from sightline.library import Library
from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing
from tests.search import corpus

TEXTS = {
    "bike.txt": "A red bicycle leans on the wall of the old mill.",
    "cat.txt": "A black cat sleeps all day under the stairs.",
    "sea.txt": "Waves, wind and a small boat far out at sea.",
}


def fill(folder: Path) -> Path:
    """Three texts, two pictures, a PDF of two pages, a video of 12 seconds, and a file that is damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    corpus.picture(folder / "first.png", 1)
    corpus.picture(folder / "second.png", 4)
    corpus.pdf(folder / "paper.pdf", ["Rivers of the north", "Mountains of the south"])
    corpus.video(folder / "clip.mp4", [1, 4, 7])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    return folder


def index(library: Path, folder: Path, model: str = "toy") -> None:
    """Index a folder with the toys."""
    with Library.open(library, embedder=Seeing(model=model)) as made:
        made.add([folder])


@contextmanager
def opened(
    tmp_path: Path, monkeypatch: Any, *, bulk: Seeing | None = None, **settings: Any
) -> Iterator[tuple[TestClient, Services]]:
    """A client of an application with the library in ``tmp_path``, and what the application works with."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    known = Settings(**{"library": str(tmp_path / "library.sightline"), **settings})
    services = Services.of(known, Seeing(model="toy"), Judge(), bulk=bulk)
    with TestClient(create_app(services), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client, services


def search(client: TestClient, text: str | None = None, **request: Any) -> list[dict[str, Any]]:
    """Hits of a search by recall alone, unless it says otherwise."""
    answer = client.post("/v1/search", json={"rerank": 0, **({"text": text} if text else {}), **request})
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def finished(client: TestClient, job: dict[str, Any], limit_s: float = 120.0) -> dict[str, Any]:
    """A job once it has ended."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        if found["status"] in {"done", "failed", "cancelled"}:
            return found
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def error(answer: Any) -> tuple[int, str | None, str | None]:
    """(status, code, param) of an error in the one shape."""
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["message"] and "Traceback" not in found["message"]
    return answer.status_code, found["code"], found["param"]
