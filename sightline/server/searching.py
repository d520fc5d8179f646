"""``POST /v1/search``: words, pictures, videos, hits and what is not wanted in; ranked hits out."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from sightline.library import Library
from sightline.search.pipeline import Answer, Sought
from sightline.search.snippet import matches
from sightline.server import reading, wire
from sightline.server.faults import Fault
from sightline.server.services import Services
from sightline.server.shelf import DEFAULT
from sightline.server.shown import shown
from sightline.store.schema import Row
from sightline.types import Hit, Item, Kind

MOST_HITS: Final = 10_000
MOST_JUDGED: Final = 1_000
"""Ceilings of ``k`` and ``rerank`` in a request."""
MOST_CHARS: Final = 100_000
"""Characters of a query's text; the models cut off what is over their own budget."""
SOUGHT: Final = ("text", "image", "video", "like", "unlike", "instruction")
"""Keys of a request that say what is sought; the others say how much of it is shown."""

ItemId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Like(wire.Shape):
    """A hit, by its id."""

    like: ItemId


class Query(wire.Shape):
    """What to look for and what is not wanted.

    Attributes:
        text: words.
        image: pictures: ``data:`` URLs, base64, or addresses where the server fetches those.
        video: videos, likewise.
        like: id of a hit, to find more like it; with words or pictures, both together.
        unlike: what is not wanted: words, hits, or items.
        instruction: what the search is for, in English.
    """

    text: Annotated[str, Field(max_length=MOST_CHARS)] | None = None
    image: wire.Strings = Field(default_factory=list)
    video: wire.Strings = Field(default_factory=list)
    like: ItemId | None = None
    unlike: list[Like | wire.ItemPart] = Field(default_factory=list, max_length=16)
    instruction: Annotated[str, Field(max_length=2_000)] | None = None

    def key(self) -> str:
        """The same for two requests that seek the same, 64 hex digits."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """What is sought as JSON, without what was not given."""
        return json.dumps(self.model_dump(include=set(SOUGHT), exclude_defaults=True), sort_keys=True)


class SearchRequest(Query):
    """A search.

    Attributes:
        library: where to look.
        k: most hits.
        rerank: candidates that the reranker judges; None takes the server's setting, 0 is recall alone.
        where: rows that may be found, as an object or a text: ``"kind=page after=2024-01-01"``.
        min_score: hits with a lower score are left out.
    """

    library: Annotated[str, Field(max_length=63)] = DEFAULT
    k: Annotated[int, Field(ge=1, le=MOST_HITS)] = 10
    rerank: Annotated[int, Field(ge=0, le=MOST_JUDGED)] | None = None
    where: dict[str, Any] | Annotated[str, Field(max_length=10_000)] | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None


class HitShape(BaseModel):
    """One hit, best first.

    Attributes:
        score: what the list is sorted by; ``recall_score`` and ``recall_rank`` are of the first stage,
            ``rerank_score`` (null where the reranker did not judge) of the second.
        matches: where words of the query stand in the snippet: [start, end) in characters (Unicode code points).
        thumbnail, preview: addresses of pictures; null for a passage of text.
        media: address of the file; a video plays there.
        label: what was said about this hit for this query: 1 good, -1 bad, 0 nothing.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    rank: int
    score: float
    recall_score: float
    recall_rank: int
    rerank_score: float | None
    kind: Kind
    title: str
    path: str
    page: int | None
    start_s: float | None
    end_s: float | None
    snippet: str
    matches: list[tuple[int, int]]
    thumbnail: str | None
    preview: str | None
    media: str | None
    label: int


class TookShape(BaseModel):
    """Milliseconds."""

    total: float
    embed: float
    recall: float
    rerank: float


class SearchAnswer(BaseModel):
    """Hits, and how long each stage took."""

    library: str
    hits: list[HitShape]
    took_ms: TookShape


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["search"])

    @routes.post("/v1/search", response_model=SearchAnswer, responses=wire.errors(409))
    async def search(request: Request, asked: SearchRequest) -> SearchAnswer:
        """Search a library with words, pictures, videos, a hit, or a mix, and with what is not wanted."""
        return await services.desk.run(request, lambda: answer(services, asked))

    return routes


def answer(services: Services, asked: SearchRequest) -> SearchAnswer:
    """Search, and say it in the shape of the route."""
    started_s = time.perf_counter()
    library = services.libraries.open(asked.library)
    query, unlike = sought(services, library, asked)
    found = library.answer(
        query,
        unlike=unlike,
        k=asked.k,
        rerank=services.settings.rerank if asked.rerank is None else asked.rerank,
        where=asked.where,
        min_score=asked.min_score,
        instruction=asked.instruction,
    )
    services.metrics.observe("embed", found.took.embed_s)
    services.metrics.observe("recall", found.took.recall_s)
    if services.reranker is not None:
        services.metrics.observe("rerank", found.took.rerank_s)
    labels = library.labels.of_query(asked.key())
    words = " ".join(query.texts) if isinstance(query, Item) else ""
    return SearchAnswer(
        library=asked.library,
        hits=[
            hit_shape(asked.library, rank, hit, recall_rank, matches(hit.snippet, words), labels.get(hit.id, 0))
            for rank, (hit, recall_rank) in enumerate(zip(found.hits, found.recall_ranks, strict=True), start=1)
        ],
        took_ms=_took(found, time.perf_counter() - started_s),
    )


def _took(found: Answer, total_s: float) -> TookShape:
    took = found.took
    seconds = (total_s, took.embed_s, took.recall_s, took.rerank_s)
    return TookShape(**dict(zip(TookShape.model_fields, (round(1000 * one, 3) for one in seconds), strict=True)))


def sought(services: Services, library: Library, asked: Query) -> tuple[Sought, list[Sought]]:
    """The query and what is not wanted, read: rows of the index where hits were named, items otherwise."""
    part = None
    if asked.text or asked.image or asked.video:
        part = wire.Part(text=[asked.text] if asked.text else [], image=asked.image, video=asked.video)
    elif asked.like is None:
        raise Fault(400, "the query is empty: give text, an image, a video or like", code="empty_item", param="text")
    unlike = [one for one in asked.unlike if isinstance(one, wire.Part)]
    items = iter(_items(services, [*([part] if part else []), *unlike]))
    item = next(items) if part else None
    row = None if asked.like is None else row_of(library, asked.like, "like")
    query = item if row is None else row if item is None else _both(library, row, item)
    assert query is not None
    return query, [
        row_of(library, one.like, f"unlike.{place}.like") if isinstance(one, Like) else next(items)
        for place, one in enumerate(asked.unlike)
    ]


def _items(services: Services, parts: list[wire.Part]) -> list[Item]:
    """Parts as items; those of words alone need no decoder."""
    if not any(part.num_media for part in parts):
        return [Item(text=part.text, instruction=part.instruction) for part in parts]
    return reading.items(services, parts)


def _both(library: Library, row: Row, item: Item) -> Item:
    """A hit and what was said beside it, as one item."""
    shown = library.unit(row).as_item()
    videos = [one for one in (shown.video, *(item.video or [])) if one is not None]
    return Item(text=[*shown.texts, *item.texts], image=[*shown.images, *item.images] or None, video=videos or None)


def row_of(library: Library, id: str, param: str | None = None) -> Row:
    """The row of a hit.

    Raises:
        Fault: 404, the library has no such item.
    """
    row = library.row(id)
    if row is None:
        raise Fault(404, "the library has no such item", code="no_item", param=param)
    return row


def hit_shape(
    library: str, rank: int, hit: Hit, recall_rank: int, marked: list[tuple[int, int]], label: int
) -> HitShape:
    """A hit as the route gives it."""
    place = f"/v1/libraries/{library}/items/{hit.id}"
    pictured = hit.kind != "text"
    return HitShape(
        id=hit.id,
        rank=rank,
        score=hit.score,
        recall_score=hit.recall_score,
        recall_rank=recall_rank,
        rerank_score=hit.rerank_score,
        kind=hit.kind,
        title=hit.title,
        path=shown(hit.path),
        page=hit.page,
        start_s=hit.start_s,
        end_s=hit.end_s,
        snippet=hit.snippet,
        matches=marked,
        thumbnail=f"{place}/thumbnail" if pictured else None,
        preview=f"{place}/preview" if pictured else None,
        media=f"{place}/media",
        label=label,
    )
