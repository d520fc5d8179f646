"""Toy models behind the protocols, for tests of everything that is not the model.

``ToyEmbedder`` hashes words and coarse colours into one space, so that equal words and similar pictures are near;
``ToyReranker`` counts shared words and compares colours. Both are deterministic and need only numpy.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ItemError
from sightline.protocols import ItemLike
from sightline.types import Item, ModelCard, Precision, VideoFrames


def toy_card(model: str = "toy", dim: int = 64) -> ModelCard:
    """A model card for a toy."""
    return ModelCard(
        model=model,
        revision="",
        fingerprint=f"{zlib.crc32(model.encode()):016x}",
        dim=dim,
        dtype="float32",
        instruction="Represent the user's input.",
        template="toy-1",
        min_pixels=4096,
        max_pixels=1843200,
        total_pixels=7864320,
        fps=1.0,
        max_frames=64,
        max_length=8192,
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _colours(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Histogram of 27 coarse colours, (27,)."""
    coarse = (pixels.reshape(-1, 3).astype(np.int64) * 3) // 256
    histogram = np.bincount(coarse @ np.array([9, 3, 1]), minlength=27).astype(np.float64)
    shares: NDArray[np.float64] = histogram / max(float(histogram.sum()), 1.0)
    return shares


class ToyEmbedder:
    """Bag of hashed words and colours, unit length."""

    def __init__(self, dim: int = 64, model: str = "toy") -> None:
        self.card = toy_card(model, dim)
        self.num_embedded = 0

    def _one(self, item: Item) -> NDArray[np.float64]:
        vector = np.zeros(self.card.dim)
        vector[0] = 0.05
        for text in item.texts:
            for word in _words(text):
                rng = np.random.default_rng(zlib.crc32(word.encode()))
                vector += rng.standard_normal(self.card.dim) / np.sqrt(self.card.dim)
        pictures: list[NDArray[Any]] = [np.asarray(image) for image in item.images]
        if isinstance(item.video, VideoFrames):
            pictures.extend(item.video.frames)
        for picture in pictures:
            colours = _colours(picture)
            for index in range(27):
                rng = np.random.default_rng(1_000_000 + index)
                vector += colours[index] * rng.standard_normal(self.card.dim) / np.sqrt(self.card.dim)
        return vector / np.linalg.norm(vector)

    def stream(
        self,
        items: Iterable[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
    ) -> Iterator[NDArray[Any] | ItemError]:
        """One vector per item; an item whose text is "poison" is an error."""
        for position, value in enumerate(items):
            item = Item.of(value)
            if "poison" in item.texts:
                yield ItemError(position, "corrupt")
                continue
            self.num_embedded += 1
            vector = self._one(item)[: dim or self.card.dim]
            yield (vector / np.linalg.norm(vector)).astype(np.float32)

    def embed(
        self,
        items: Sequence[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
        progress: bool = False,
    ) -> NDArray[Any]:
        """(N, E) unit vectors."""
        rows = []
        for row in self.stream(items, dim=dim):
            if isinstance(row, ItemError):
                raise row
            rows.append(row)
        return np.stack(rows) if rows else np.zeros((0, dim or self.card.dim), np.float32)

    def count_tokens(self, text: str) -> int:
        """Words stand for tokens."""
        return len(_words(text))


class ToyReranker:
    """Share of the query's words found in the document, and likeness of colours."""

    def __init__(self, model: str = "toy-reranker") -> None:
        self.card = toy_card(model, 0)
        self._embedder = ToyEmbedder()

    def score(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """(N,) in [0, 1]."""
        if not documents:
            return np.zeros(0, np.float32)
        wanted = self._embedder.embed([query])[0]
        found = self._embedder.embed(documents)
        scores: NDArray[np.float32] = ((found @ wanted + 1) / 2).clip(0, 1).astype(np.float32)
        return scores
