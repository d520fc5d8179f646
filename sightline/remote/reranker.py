"""A reranking model behind an address."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, InputError, ItemError, MediaError, SightlineError
from sightline.prep.prompt import RERANK_INSTRUCTION
from sightline.protocols import ItemLike
from sightline.remote.batches import groups, settle
from sightline.remote.dialects import Kind
from sightline.remote.endpoint import Server
from sightline.remote.parts import ImageFormat, Part
from sightline.settings import Settings
from sightline.types import Item, ModelCard


class RemoteReranker:
    """A ``RerankingModel`` on a server; arguments as of ``RemoteEmbedder``. A context manager; any thread may call.

    >>> RemoteReranker("http://127.0.0.1:8077", key="secret")
    RemoteReranker('http://127.0.0.1:8077', kind='sightline')
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        key: str | None = None,
        kind: Kind = "sightline",
        image_format: ImageFormat = "png",
        concurrency: int = 4,
        timeout_s: float = 120.0,
        retries: int = 5,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, not {concurrency}")
        self._server = Server(
            url, model, key, kind, image_format, timeout_s, retries, min_pixels, max_pixels, fps, max_frames, settings
        )
        self._concurrency = concurrency
        self._card: ModelCard | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RemoteReranker({self._server.caller.url!r}, kind={self._server.kind!r})"

    @property
    def card(self) -> ModelCard:
        """What decides the scores, as far as the server tells; asked once. Raises ``RemoteError``."""
        with self._lock:
            if self._card is None:
                if self._server.kind == "sightline":
                    self._card = self._server.told_card(embedder=False)
                else:
                    self._card = self._server.guessed_card(RERANK_INSTRUCTION, 0)
            return self._card

    def score(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Probability that each document meets the query, (N,) float32 in [0, 1].

        Raises:
            MediaError: the query cannot be read, or not be sent to this kind of server.
            ItemError: the first document that cannot be scored, with its position.
            RemoteError: the server cannot be used.
        """
        if isinstance(documents, (str, Item, dict)):
            raise InputError("documents are a list of items; put the one document into a list")
        if not documents:
            return np.zeros(0, np.float32)
        talk, packer = self._server.dialect, self._server.packer(self.card)
        question = packer.pack(Item.of(query))
        talk.check(question, ranked=True)
        parts: list[Part] = []
        for position, document in enumerate(documents):
            try:
                part = packer.pack(Item.of(document))
                talk.check(part, ranked=True)
            except SightlineError as error:
                raise ItemError.of(position, error) from None
            parts.append(part)

        def ask(places: list[int]) -> list[float]:
            chosen = [parts[place] for place in places]
            return talk.rank(self._server.caller, self._server.name, question, chosen, instruction)

        scores = np.zeros(len(parts), np.float32)
        chosen = list(groups(parts, talk.ranks))
        with ThreadPoolExecutor(min(self._concurrency, len(chosen)), thread_name_prefix="sightline-remote") as pool:
            for group, results in zip(chosen, pool.map(lambda group: settle(ask, group), chosen), strict=True):
                for place, result in zip(group, results, strict=True):
                    if isinstance(result, MediaError):
                        raise ItemError.of(place, result)
                    if not math.isfinite(result):
                        raise ItemError(place, "nan")
                    scores[place] = min(1.0, max(0.0, result))
        return scores

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._server.caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
