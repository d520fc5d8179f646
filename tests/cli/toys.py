"""Toy models that open image and video files, and the driver that runs the program with them in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from sightline.cli import models
from sightline.media.reader import Reader
from sightline.settings import Settings
from sightline.testing import ToyEmbedder, ToyReranker
from sightline.types import Item


class Seeing(ToyEmbedder):
    """A toy that takes paths, as real models do."""

    def _one(self, item: Item) -> Any:
        reader = Reader(Settings())
        images = [reader.image(image) for image in item.images]
        video = item.video[0] if isinstance(item.video, list) else item.video
        if isinstance(video, str):
            video = reader.video(video, fps=1.0, max_frames=8)
        return super()._one(Item(text=item.text, image=images or None, video=video))


class Slow(Seeing):
    """Says when it begins, then takes its time for every item."""

    def stream(self, items: Iterable[Any], **options: Any) -> Iterator[Any]:
        print("embedding", flush=True)
        for result in super().stream(items, **options):
            time.sleep(0.05)
            yield result


class Judge(ToyReranker):
    """A toy reranker that takes paths."""

    def __init__(self, model: str = "toy-reranker") -> None:
        super().__init__(model)
        self._embedder = Seeing()


def install(embedder: type[Seeing] = Seeing, patch: Any = setattr) -> None:
    """Put the toys where the commands get their models."""
    patch(models, "load_embedder", lambda name, settings, *, revision=None: embedder(model=name))
    patch(models, "load_reranker", lambda name, settings, *, revision=None: Judge(model=name))
