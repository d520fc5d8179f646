"""An embedding model behind an address."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, InputError, ItemError, MediaError, RemoteError, SightlineError
from sightline.prep.prompt import EMBED_INSTRUCTION
from sightline.protocols import ItemLike
from sightline.remote.batches import groups, settle
from sightline.remote.dialects import Kind
from sightline.remote.endpoint import Server
from sightline.remote.parts import ImageFormat, Packer, Part
from sightline.settings import Settings
from sightline.types import Item, ModelCard, Precision, VideoFrames
from sightline.vectors import convert, shorten

BATCH_ITEMS: Final = 32
BATCH_BYTES: Final = 64 * 2**20
"""Pixels in one batch before they are encoded."""
BYTES_A_TOKEN: Final = 3.5


class RemoteEmbedder:
    """An ``EmbeddingModel`` on a server. A context manager; any thread may call.

    Args:
        url: address of the server, for example ``http://127.0.0.1:8077``.
        model: name on the server; None takes the first embedder that a Sightline server lists.
        key: sent in the header ``Authorization``.
        kind: ``sightline``, ``vllm`` or ``dashscope`` (see ``sightline.remote.dialects``).
        dim: width that the server shall give; None takes its own.
        image_format: ``png`` loses nothing; ``jpeg`` (quality 95, no colour subsampling) is smaller.
        concurrency: requests at a time.
        timeout_s: for each wait on the server.
        retries: tries after the first, when the server is busy (429, 503) or the connection breaks.
        min_pixels, max_pixels, fps, max_frames: budgets of the model on the server; None takes what the server says,
            else the published ones.
        settings: limits for media that are decoded here.

    >>> RemoteEmbedder("http://127.0.0.1:8077", key="secret")
    RemoteEmbedder('http://127.0.0.1:8077', kind='sightline')
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        key: str | None = None,
        kind: Kind = "sightline",
        dim: int | None = None,
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
        self._dim = dim
        self._card: ModelCard | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RemoteEmbedder({self._server.caller.url!r}, kind={self._server.kind!r})"

    @property
    def card(self) -> ModelCard:
        """What decides the vectors, as far as the server tells: asked once.

        A Sightline server gives its whole card. For others the fingerprint stands for the kind and the name of the
        model, and the width is that of a first vector.

        Raises:
            RemoteError: the server cannot be used.
        """
        with self._lock:
            if self._card is None:
                if self._server.kind == "sightline":
                    card = self._server.told_card(embedder=True)
                    self._card = replace(card, dim=self._dim) if self._dim is not None else card
                else:
                    name, talk = self._server.name, self._server.dialect
                    vector = talk.embed(self._server.caller, name, [Part(texts=("width",))], None, self._dim)[0]
                    self._card = self._server.guessed_card(EMBED_INSTRUCTION, len(vector))
            return self._card

    def count_tokens(self, text: str) -> int:
        """About how many tokens a text takes: nothing here knows the server's tokenizer.

        It is at least the number of words and grows with the bytes, so that passages stay within their limit in
        scripts with and without blanks. Passages are therefore cut at other places than with local weights.
        """
        return max(len(text.split()), math.ceil(len(text.encode("utf-8", "replace")) / BYTES_A_TOKEN))

    def embed(
        self,
        items: Sequence[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
        progress: bool = False,
    ) -> NDArray[Any]:
        """Unit vectors of items, in order; arguments as of ``Embedder.embed``. ``progress`` shows nothing here.

        Raises:
            ItemError: the first item that cannot be embedded, with its position.
            RemoteError: the server cannot be used.
            InputError: ``items`` is one item instead of a list.
        """
        if isinstance(items, (str, Item, dict)):
            raise InputError("embed takes a list of items; put the one item into a list")
        rows = []
        for row in self.stream(items, instruction=instruction, dim=dim, precision=precision):
            if isinstance(row, ItemError):
                raise row
            rows.append(row)
        if rows:
            return np.stack(rows)
        return convert(np.zeros((0, dim or self.card.dim), np.float32), precision)

    def stream(
        self,
        items: Iterable[ItemLike],
        *,
        instruction: str | None = None,
        dim: int | None = None,
        precision: Precision = "float32",
    ) -> Iterator[NDArray[Any] | ItemError]:
        """One result per item, in order, in bounded memory: some batches are under way while more items are taken.

        Yields:
            a vector (E,), or the error of that item alone.

        Raises:
            RemoteError: the server cannot be used.
        """
        width = self.card.dim
        convert(shorten(np.ones((1, width), np.float32), dim), precision)  # a wrong option fails before the work
        packer = self._server.packer(self.card)
        waiting: deque[Future[list[NDArray[np.float32] | SightlineError]]] = deque()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="sightline-remote")
        position = 0

        def ready() -> Iterator[NDArray[Any] | ItemError]:
            nonlocal position
            for result in waiting.popleft().result():
                if isinstance(result, SightlineError):
                    yield ItemError.of(position, result)
                else:
                    yield convert(shorten(result, dim), precision)
                position += 1

        try:
            for batch in _batches(items, self._server.dialect.embeds.items):
                waiting.append(pool.submit(self._embed, batch, packer, instruction))
                if len(waiting) > self._concurrency:
                    yield from ready()
            while waiting:
                yield from ready()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._server.caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _embed(
        self, values: list[ItemLike], packer: Packer, instruction: str | None
    ) -> list[NDArray[np.float32] | SightlineError]:
        results: list[NDArray[np.float32] | SightlineError] = [MediaError("crash")] * len(values)
        parts: list[Part] = []
        places: list[int] = []
        for place, value in enumerate(values):
            try:
                part = packer.pack(Item.of(value))
                self._server.dialect.check(part, ranked=False)
            except SightlineError as error:
                results[place] = error
            else:
                parts.append(part)
                places.append(place)
        for group in groups(parts, self._server.dialect.embeds):

            def ask(chosen: list[int]) -> list[NDArray[np.float32]]:
                given = [parts[index] for index in chosen]
                return self._server.dialect.embed(self._server.caller, self._server.name, given, instruction, self._dim)

            for index, result in zip(group, settle(ask, group), strict=True):
                results[places[index]] = result if isinstance(result, MediaError) else self._unit(result)
        return results

    def _unit(self, vector: NDArray[np.float32]) -> NDArray[np.float32] | MediaError:
        """The vector at length 1."""
        width = self.card.dim
        if len(vector) != width:
            raise RemoteError(f"{self._server.caller.url} gave {len(vector)} numbers where it gave {width} before")
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not math.isfinite(length) or length == 0:
            return MediaError("nan")
        return (vector / length).astype(np.float32)


def _batches(items: Iterable[ItemLike], most: int) -> Iterator[list[ItemLike]]:
    """Neighbouring items, of together about ``BATCH_BYTES`` of pixels."""
    batch: list[ItemLike] = []
    size = 0
    for item in items:
        batch.append(item)
        size += _bytes(item)
        if len(batch) >= most or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _bytes(item: ItemLike) -> int:
    if not isinstance(item, Item):
        return 0
    video = item.video.frames if isinstance(item.video, VideoFrames) else item.video
    return sum(int(getattr(one, "nbytes", 0)) for one in (*item.images, video))
