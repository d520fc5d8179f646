"""A query becomes hits: embed, recall, rerank, sort, cut."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError, InputError, ItemError, MediaError
from sightline.protocols import EmbeddingModel, ItemLike, RerankingModel
from sightline.search.recall import WORDS_CHARS, Candidate, recall
from sightline.search.rerank import UnitReader, read_item, rerank
from sightline.search.snippet import printable, snippet
from sightline.search.unlike import LEAST_CANDIDATES, MOST_UNLIKE, away, push_down
from sightline.store.schema import Filter, ItemStore, Row
from sightline.types import Hit, Item

MOST_HITS = 10_000

Sought: TypeAlias = Item | Row
"""What a search can start from, or keep away from: an item, or a row of the index, whose vector is known."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ask:
    """One search, checked.

    Attributes:
        query: what to look for: text, image, video, or any mix; or a row of the index, to find more like it.
        k: most hits.
        rerank: candidates that the reranker sees.
        where: rows that may be found.
        min_score: hits with a lower ``score`` are left out; None keeps all.
        instruction: for the embedder and the reranker; None takes the default of each.
        unlike: what is not wanted (see ``unlike``).
    """

    query: Sought
    k: int = 10
    rerank: int = 50
    where: Filter | None = None
    min_score: float | None = None
    instruction: str | None = None
    unlike: tuple[Sought, ...] = ()

    def __post_init__(self) -> None:
        _check_number("k", self.k, 1, MOST_HITS)
        _check_number("rerank", self.rerank, 0, MOST_HITS)
        if self.min_score is not None and not (isinstance(self.min_score, (int, float)) and 0 <= self.min_score <= 1):
            raise ConfigError(f"min_score must be a number from 0 to 1, not {self.min_score!r}")
        if self.instruction is not None and not isinstance(self.instruction, str):
            raise ConfigError("instruction must be a str")
        if len(self.unlike) > MOST_UNLIKE:
            raise ConfigError(f"unlike may name at most {MOST_UNLIKE} things, not {len(self.unlike)}")
        for name, sought in self.parts:
            if isinstance(sought, Row):
                continue
            if is_empty(sought):
                raise InputError(f"{name} is empty: give words, an image or a video")
            for text in sought.texts:
                if any("\ud800" <= char <= "\udfff" for char in text):
                    raise InputError(f"the text of {name} holds half a character (a lone surrogate)")

    @property
    def parts(self) -> list[tuple[str, Sought]]:
        """The query and what is not wanted, each with its name."""
        return [("the query", self.query), *(("a part of unlike", one) for one in self.unlike)]

    @property
    def words(self) -> str:
        """The query's texts in one line."""
        if isinstance(self.query, Row):
            return self.query.text if self.query.kind == "text" else ""
        return " ".join(self.query.texts)

    @property
    def known(self) -> frozenset[str]:
        """Ids of the rows that it was asked with; they are no answer."""
        return frozenset(sought.id for _, sought in self.parts if isinstance(sought, Row))


@dataclass(frozen=True, kw_only=True, slots=True)
class Took:
    """Seconds of each stage."""

    embed_s: float
    recall_s: float
    rerank_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a search found.

    Attributes:
        hits: best first.
        recall_ranks: the place of each hit after the first stage, from 1.
        took: where the time went.
    """

    hits: list[Hit]
    recall_ranks: list[int]
    took: Took


def ask(query: ItemLike | Row, *, unlike: Sequence[ItemLike | Row] = (), **options: Any) -> Ask:
    """An ``Ask`` of anything that is an item or a row; ``where`` may be a mapping or a text."""
    where = Filter.of(options.pop("where", None))
    return Ask(query=_sought(query), unlike=tuple(map(_sought, unlike)), where=where or None, **options)


def _sought(value: ItemLike | Row) -> Sought:
    return value if isinstance(value, Row) else Item.of(value)


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
        ItemError: an image or video of the query cannot be read, or the model's vector for it is not finite. The
            query is item 0, what is not wanted follows.
        ConfigError: the filter names a column that the index lacks.
    """
    return answer(store, reader, embedder, reranker, asked).hits


def answer(
    store: ItemStore, reader: UnitReader, embedder: EmbeddingModel, reranker: RerankingModel | None, asked: Ask
) -> Answer:
    """``search``, with what it took and how the first stage had ordered the hits."""
    started_s = time.perf_counter()
    vectors = embed_parts(embedder, asked)
    embedded_s = time.perf_counter()
    num_judged = asked.rerank if reranker is not None else 0
    candidates = _candidates(store, vectors, asked, max(asked.k, num_judged))
    recalled_s = time.perf_counter()
    judged: list[float | None] = [None] * len(candidates)
    trust = 1.0
    query = _shown(reader, asked.query) if num_judged else None
    if reranker is not None and query is not None:
        trust = reranker.card.trust
        head = candidates[:num_judged]
        unlike = [item for one in asked.unlike if (item := _shown(reader, one)) is not None]
        judged[: len(head)] = rerank(reranker, reader, query, head, instruction=asked.instruction, unlike=unlike)
    hits = [
        _hit(candidate, score, _final(candidate, score, place, trust), asked.words)
        for place, (candidate, score) in enumerate(zip(candidates, judged, strict=True))
    ]
    order = sorted(range(len(hits)), key=lambda place: (judged[place] is None, -hits[place].score, place))
    kept = [place for place in order if asked.min_score is None or hits[place].score >= asked.min_score][: asked.k]
    return Answer(
        hits=[hits[place] for place in kept],
        recall_ranks=[place + 1 for place in kept],
        took=Took(
            embed_s=embedded_s - started_s,
            recall_s=recalled_s - embedded_s,
            rerank_s=time.perf_counter() - recalled_s,
        ),
    )


def _candidates(store: ItemStore, vectors: NDArray[np.float32], asked: Ask, num: int) -> list[Candidate]:
    """The first stage: (1 + U, E) vectors of the query and of what is not wanted -> ``num`` candidates, best first."""
    query, unlike = vectors[0], vectors[1:]
    if not len(unlike):
        return recall(store, query, asked.words, num, asked.where, asked.known)
    wide = max(2 * num, LEAST_CANDIDATES)
    candidates = recall(store, away(query, unlike), asked.words, wide, asked.where, asked.known)
    known = store.vectors([candidate.row.id for candidate in candidates])
    said = [_said(store, sought, wide, asked.where) for _, sought in asked.parts]
    return push_down(candidates, query, unlike, known, said)[:num]


def _said(store: ItemStore, sought: Sought, num: int, where: Filter | None) -> dict[str, float]:
    """How well rows hold the words of a part of the search: shares of the best score, by id."""
    words = "" if isinstance(sought, Row) else " ".join(sought.texts)[:WORDS_CHARS]
    found = store.search_words(words, num, where)[0] if words.strip() else []
    return {row.id: row.score / found[0].score for row in found if found[0].score > 0}


def embed_parts(embedder: EmbeddingModel, asked: Ask) -> NDArray[np.float32]:
    """Vectors (1 + U, E) of the query and of what is not wanted: unit length, finite. Rows bring their own."""
    parts = [sought for _, sought in asked.parts]
    new = [place for place, sought in enumerate(parts) if not isinstance(sought, Row)]
    vectors: list[Any] = [sought.vector if isinstance(sought, Row) else None for sought in parts]
    if new:
        try:
            embedded = embedder.embed([parts[place] for place in new], instruction=asked.instruction)  # type: ignore[misc]
        except ItemError as error:
            place = new[error.position] if 0 <= error.position < len(new) else error.position
            raise ItemError(place, error.code, error.detail) from None
        for place, vector in zip(new, embedded, strict=True):
            vectors[place] = vector
    matrix = np.stack([np.asarray(vector, dtype=np.float32) for vector in vectors])
    for place, vector in enumerate(matrix):
        if not np.isfinite(vector).all() or not vector.any():
            raise ItemError(place, "nan")
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)  # type: ignore[no-any-return]


def _shown(reader: UnitReader, sought: Sought) -> Item | None:
    """What the reranker is shown of it; None for a row whose file is gone: recall alone must do."""
    try:
        return read_item(reader, sought) if isinstance(sought, Row) else sought
    except MediaError:
        return None


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
