"""A query becomes hits: embed, recall, rerank, sort, cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, InputError, ItemError
from sightline.protocols import EmbeddingModel, ItemLike, RerankingModel
from sightline.search.recall import Candidate, recall
from sightline.search.rerank import UnitReader, rerank
from sightline.search.snippet import printable, snippet
from sightline.store.schema import Filter, ItemStore
from sightline.types import Hit, Item

MOST_HITS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One search, checked.

    Attributes:
        query: what to look for: text, image, video, or any mix.
        k: most hits.
        rerank: candidates that the reranker sees.
        where: rows that may be found.
        min_score: hits with a lower ``score`` are left out; None keeps all.
        instruction: for the embedder and the reranker; None takes the default of each.
    """

    query: Item
    k: int = 10
    rerank: int = 50
    where: Filter | None = None
    min_score: float | None = None
    instruction: str | None = None

    def __post_init__(self) -> None:
        _check_number("k", self.k, 1, MOST_HITS)
        _check_number("rerank", self.rerank, 0, MOST_HITS)
        if self.min_score is not None and not (isinstance(self.min_score, (int, float)) and 0 <= self.min_score <= 1):
            raise ConfigError(f"min_score must be a number from 0 to 1, not {self.min_score!r}")
        if self.instruction is not None and not isinstance(self.instruction, str):
            raise ConfigError("instruction must be a str")
        if is_empty(self.query):
            raise InputError("the query is empty: give words, an image or a video")
        for text in self.query.texts:
            if any("\ud800" <= char <= "\udfff" for char in text):
                raise InputError("the text of the query holds half a character (a lone surrogate)")

    @property
    def words(self) -> str:
        """The query's texts in one line."""
        return " ".join(self.query.texts)


def ask(query: ItemLike, **options: Any) -> Ask:
    """An ``Ask`` of anything that is an item; ``where`` may be a mapping or a text."""
    where = Filter.of(options.pop("where", None))
    return Ask(query=Item.of(query), where=where or None, **options)


def is_empty(item: Item) -> bool:
    """Whether an item holds nothing to search for.

    >>> is_empty(Item(text=" ")), is_empty(Item(image="a.png"))
    (True, False)
    """
    no_video = item.video is None or (isinstance(item.video, (list, tuple)) and not item.video)
    no_image = item.image is None or not item.images
    return no_video and no_image and not any(text.strip() for text in item.texts)


def search(
    store: ItemStore, reader: UnitReader, embedder: EmbeddingModel, reranker: RerankingModel | None, asked: Ask
) -> list[Hit]:
    """At most k hits: those that the reranker judged first, by ``Hit.score``; then the rest by recall.

    Raises:
        ItemError: an image or video of the query cannot be read, or the model's vector for it is not finite.
        ConfigError: the filter names a column that the index lacks.
    """
    vector = embed_query(embedder, asked)
    num_judged = asked.rerank if reranker is not None else 0
    candidates = recall(store, vector, asked.words, max(asked.k, num_judged), asked.where)
    judged: list[float | None] = [None] * len(candidates)
    trust = 1.0
    if reranker is not None and num_judged:
        trust = reranker.card.trust
        head = candidates[:num_judged]
        judged[: len(head)] = rerank(reranker, reader, asked.query, head, instruction=asked.instruction)
    hits = [
        _hit(candidate, score, _final(candidate, score, place, trust), asked.words)
        for place, (candidate, score) in enumerate(zip(candidates, judged, strict=True))
    ]
    order = sorted(range(len(hits)), key=lambda place: (judged[place] is None, -hits[place].score, place))
    kept = [hits[place] for place in order if asked.min_score is None or hits[place].score >= asked.min_score]
    return kept[: asked.k]


def embed_query(embedder: EmbeddingModel, asked: Ask) -> NDArray[np.float32]:
    """The query's vector (E,), finite and not zero."""
    vector = np.asarray(embedder.embed([asked.query], instruction=asked.instruction)[0], dtype=np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        raise ItemError(0, "nan")
    return vector


def _final(candidate: Candidate, judged: float | None, place: int, trust: float) -> float:
    """What a hit is sorted by: the probability, with as much of its place in the first stage as is not trusted to it.

    The place counts as 1, 1/2, 1/3, …: recall scores of neighbours are too near to each other to hold against a
    probability.
    """
    return candidate.score if judged is None else trust * judged + (1 - trust) / (1 + place)


def _hit(candidate: Candidate, judged: float | None, score: float, words: str) -> Hit:
    row = candidate.row
    return Hit(
        score=score,
        recall_score=candidate.score,
        rerank_score=judged,
        kind=row.kind,
        path=row.path,
        page=row.page,
        start_s=row.start_s,
        end_s=row.end_s,
        title=printable(row.title),
        snippet=snippet(row.text, words),
        id=row.id,
    )


def _check_number(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
