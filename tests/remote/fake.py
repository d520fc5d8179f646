"""A server on this machine that speaks the three dialects around toys, and remembers what it was asked."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from sightline.media.reader import Reader
from sightline.settings import Settings
from sightline.testing import ToyEmbedder, ToyReranker, toy_card
from sightline.types import Item, VideoFrames


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


Planned = tuple[int, dict[str, str], Any]
"""Status, headers and JSON of an answer that was planned instead of the right one."""


@dataclass
class Fake:
    """Answers right unless told otherwise.

    Attributes:
        asked: what came in, in order.
        plan: takes the request; gives an answer in place of the right one, or None.
    """

    asked: list[Asked] = field(default_factory=list)
    plan: Callable[[Asked], Planned | None] = lambda asked: None
    url: str = ""
    embedder: Any = field(default_factory=ToyEmbedder)
    reranker: Any = field(default_factory=ToyReranker)

    def posts(self, path: str) -> list[Any]:
        return [one.body for one in self.asked if one.method == "POST" and one.path == path]

    def answer(self, asked: Asked) -> Planned:
        planned = self.plan(asked)
        if planned is not None:
            return planned
        value = ROUTES[asked.path](self, asked.body)
        return 200, {}, value


def picture(url: str) -> Any:
    head, _, data = url.partition(",")
    assert head in {"data:image/png;base64", "data:image/jpeg;base64"}
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def frames(url: str, fps: float, max_frames: int) -> list[Any]:
    """The frames that a server takes of a video."""
    video = Reader(Settings()).video(url, fps=fps, max_frames=max_frames)
    assert isinstance(video, VideoFrames)
    return list(video.frames)


def item_of(part: dict[str, Any]) -> Item:
    assert set(part) <= {"text", "image", "video", "instruction", "fps", "max_frames"}
    images = [picture(url) for url in part.get("image", [])]
    for url in part.get("video", []):
        images += frames(url, part["fps"], part["max_frames"])
    return Item(text=part.get("text"), image=images or None)


def item_of_content(content: list[dict[str, Any]]) -> Item:
    texts = [one["text"] for one in content if one["type"] == "text"]
    images = [picture(one["image_url"]["url"]) for one in content if one["type"] == "image_url"]
    for one in content:
        if one["type"] == "video_url":
            head, _, frames = one["video_url"]["url"].partition(",")
            assert head in {"data:video/png;base64", "data:video/jpeg;base64"}
            images += [np.asarray(Image.open(io.BytesIO(base64.b64decode(frame)))) for frame in frames.split(",")]
    return Item(text=texts or None, image=images or None)


def item_of_dashscope(contents: list[dict[str, Any]]) -> Item:
    texts = [one["text"] for one in contents if "text" in one]
    images = [picture(one["image"]) for one in contents if "image" in one]
    return Item(text=texts or None, image=images or None)


def encoded(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def embeddings(fake: Fake, body: Any) -> Any:
    if "messages" in body:
        items = [item_of_content(next(m["content"] for m in body["messages"] if m["role"] == "user"))]
    else:
        items = [item_of(part) for part in body["input"]]
    vectors = fake.embedder.embed(items) * 3.0  # a server need not give length 1
    data = [{"object": "embedding", "index": i, "embedding": encoded(v)} for i, v in enumerate(vectors)]
    return {"object": "list", "model": body["model"], "data": data[::-1]}


def rerank(fake: Fake, body: Any) -> Any:
    if "content" in body["query"]:
        query = item_of_content(body["query"]["content"])
        documents = [item_of_content(one["content"]) for one in body["documents"]]
    else:
        query, documents = item_of(body["query"]), [item_of(part) for part in body["documents"]]
    scores = fake.reranker.score(query, documents)
    order = np.argsort(-scores)
    return {"results": [{"index": int(i), "relevance_score": float(scores[i])} for i in order]}


def dashscope_embeddings(fake: Fake, body: Any) -> Any:
    contents = body["input"]["contents"]
    fused = body["parameters"].get("enable_fusion")
    items = [item_of_dashscope(contents)] if fused else [item_of_dashscope([one]) for one in contents]
    vectors = fake.embedder.embed(items)
    return {"output": {"embeddings": [{"index": i, "embedding": v.tolist()} for i, v in enumerate(vectors)]}}


def dashscope_rerank(fake: Fake, body: Any) -> Any:
    query = item_of_dashscope([body["input"]["query"]])
    scores = fake.reranker.score(query, [item_of_dashscope([one]) for one in body["input"]["documents"]])
    return {"output": {"results": [{"index": i, "relevance_score": float(s)} for i, s in enumerate(scores)]}}


def models(fake: Fake, _: Any) -> Any:
    cards = [fake.embedder.card, fake.reranker.card]
    return {"object": "list", "data": [{"id": c.model, "object": "model", "sightline": c.as_dict()} for c in cards]}


ROUTES: dict[str, Callable[[Fake, Any], Any]] = {
    "/v1/models": models,
    "/v1/embeddings": embeddings,
    "/v1/rerank": rerank,
    "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding": dashscope_embeddings,
    "/api/v1/services/rerank/text-rerank/text-rerank": dashscope_rerank,
}


def start(fake: Fake) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            asked = Asked(self.command, self.path, dict(self.headers), json.loads(data) if data else None)
            fake.asked.append(asked)
            status, headers, value = fake.answer(asked)
            if status == 0:  # hang up without a word
                self.close_connection = True
                return
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


__all__ = ["Asked", "Fake", "start", "toy_card"]
