"""How well documents answer a query: probabilities of "yes".

>>> import sightline as sl
>>> reranker = sl.Reranker.load("builtin")
>>> scores = reranker.score("a red circle", ["a red circle on white", "tax law"])
>>> bool(((scores >= 0) & (scores <= 1)).all())
True
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sightline import builtin
from sightline.engine.features import FeatureCache
from sightline.engine.feed import ahead
from sightline.engine.loading import Loaded, card, keep_features, load
from sightline.engine.queue import Queue, SharedEngine
from sightline.engine.runner import Engine, is_vector
from sightline.engine.turns import Lane
from sightline.errors import InputError, ItemError, SightlineError
from sightline.media.reader import Reader
from sightline.model.weights import Source, find
from sightline.prep.prepare import Budgets, Prepared, Preparer
from sightline.prep.prompt import RERANK_INSTRUCTION
from sightline.protocols import ItemLike
from sightline.settings import ON_DEVICE, Settings
from sightline.types import Item, ModelCard

if TYPE_CHECKING:
    import torch


class Reranker:
    """A reranking model. Made by ``Reranker.load``."""

    def __init__(self, loaded: Loaded, settings: Settings, *, default_instruction: str = RERANK_INSTRUCTION) -> None:
        keep_features(loaded, settings)
        self._preparer = Preparer(
            loaded.tokenizer, Reader(settings), loaded.budgets, resizes=settings.resize != ON_DEVICE
        )
        self._engine = Engine(loaded.network, cache_bytes=512 * 2**20)
        self._through: Engine | SharedEngine = self._engine
        yes, no = (loaded.tokenizer.word_id(word) for word in ("yes", "no"))
        rows = loaded.checkpoint.head_rows((yes, no)).numpy()
        self._direction: NDArray[np.float32] = rows[0] - rows[1]
        self._instruction = default_instruction
        self._card = card(loaded, dim=0, instruction=default_instruction)

    @classmethod
    def load(
        cls,
        model: str = "builtin",
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        max_length: int = 10_240,
        min_pixels: int = 4096,
        max_pixels: int = 1_843_200,
        total_pixels: int = 7_864_320,
        fps: float = 1.0,
        max_frames: int = 64,
        quality: str | None = None,
        settings: Settings | None = None,
    ) -> Reranker:
        """Reads a checkpoint in the published layout; arguments and errors as in ``Embedder.load``."""
        budgets = Budgets(
            max_length=max_length,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            total_pixels=total_pixels,
            fps=fps,
            max_frames=max_frames,
        )
        if quality:
            budgets = budgets.at(quality)
        source = Source("builtin", "", builtin.path("reranker")) if model == "builtin" else find(model, revision)
        return cls(load(source, budgets, device=device, dtype=dtype), settings or Settings())

    def shared(self, queue: Queue, lane: Lane = "query") -> Reranker:
        """The same model, run by a queue; see ``Embedder.shared``. The queue of the embedder will do, and should."""
        view = copy(self)
        view._through = SharedEngine(queue, self._engine, lane)
        return view

    @property
    def card(self) -> ModelCard:
        """What decides the scores."""
        return self._card

    @property
    def cache(self) -> FeatureCache:
        """The vision features it remembers, shared with models of the same vision tower."""
        return self._engine.features

    @property
    def device(self) -> str:
        """Where the model runs, such as ``cpu`` or ``cuda:0``."""
        return str(self._engine.device)

    def score(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Probability that each document meets the query.

        The prompt up to the document (instruction, query and its pictures) is computed once for all documents.

        Args:
            query: text, pictures, videos, or a mix; its own instruction goes before ``instruction``.
            documents: N items.
            instruction: what counts as an answer, in English; None takes the model's default.

        Returns:
            (N,) float32 in [0, 1].

        Raises:
            MediaError: the query cannot be read.
            ItemError: the first document that cannot be scored, with its position.
        """
        odds = self.log_odds(query, documents, instruction=instruction).astype(np.float64)
        return (1 / (1 + np.exp(-odds))).astype(np.float32)

    def log_odds(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Logit of "yes" minus logit of "no", (N,) float32; arguments and errors as in ``score``."""
        rows = []
        for row in self._stream(Item.of(query), documents, instruction):
            if isinstance(row, ItemError):
                raise row
            rows.append(row)
        return np.asarray(rows, np.float32)

    def rank(
        self,
        query: ItemLike,
        documents: Sequence[ItemLike],
        *,
        top_k: int | None = None,
        instruction: str | None = None,
    ) -> list[tuple[int, float]]:
        """(position, probability) of the best documents, best first; equal scores keep their order.

        Args:
            query, documents, instruction: as in ``score``.
            top_k: how many; None ranks all.

        Raises:
            InputError: top_k under 1.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k must be at least 1, not {top_k}")
        scores = self.score(query, documents, instruction=instruction)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(position), float(scores[position])) for position in order]

    def _stream(
        self, query: Item, documents: Sequence[ItemLike], instruction: str | None
    ) -> Iterator[float | ItemError]:
        if isinstance(documents, (str, Item, dict)):
            raise InputError("documents are a list of items; put the one document into a list")
        system = query.instruction or instruction or self._instruction
        with self._through.preparing():
            question = self._preparer.read(query)

        def prepare(document: ItemLike) -> Prepared:
            with self._through.preparing():
                return self._preparer.pair(question, self._preparer.read(Item.of(document)), instruction=system)

        for position, state in enumerate(self._through.stream(ahead(prepare, documents), shared=True)):
            if isinstance(state, SightlineError):
                yield ItemError.of(position, state)
            elif is_vector(state) and np.isfinite(odds := float(state @ self._direction)):
                yield odds
            else:
                yield ItemError(position, "nan")
