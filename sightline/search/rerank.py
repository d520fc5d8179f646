"""The second stage: the first candidates are read again from their files and judged by the reranker.

The index holds no pixels: pictures, pages and moments come from the original files, texts from the rows. A candidate
whose file is gone or cannot be read, or that the model cannot judge, gets no score and is not an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from sightline.errors import ItemError, MediaError
from sightline.protocols import RerankingModel
from sightline.search.recall import Candidate
from sightline.store.schema import Found, Row
from sightline.types import Item, Kind, Unit

BLOCK_BYTES: Final = 256 * 2**20
"""Pixels held at a time; one block is one call of the reranker."""


class UnitReader(Protocol):
    """Reads one unit of a file again: ``sightline.media.pool.DecodePool``."""

    def unit(
        self,
        path: str,
        kind: Kind,
        *,
        page: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Unit:
        """The unit, with its pixels or frames. Raises ``MediaError``."""
        ...


def rerank(
    reranker: RerankingModel,
    reader: UnitReader,
    query: Item,
    candidates: Sequence[Candidate],
    *,
    instruction: str | None = None,
    unlike: Sequence[Item] = (),
) -> list[float | None]:
    """A probability in [0, 1] for each candidate, or None where there is none.

    With ``unlike`` it is the probability that the candidate answers the query, times the probability that it does not
    answer that of the unwanted which it answers best: ``p(query, d) * (1 - max p(u, d))``.
    """
    scores: list[float | None] = [None] * len(candidates)
    for block in _blocks(reader, candidates):
        places = [place for place, _ in block]
        items = [item for _, item in block]
        judged = _judge(reranker, query, items, instruction)
        unwanted = [_judge(reranker, one, items, instruction) for one in unlike]
        for number, (place, score) in enumerate(zip(places, judged, strict=True)):
            against = max((other[number] or 0.0 for other in unwanted), default=0.0)
            scores[place] = None if score is None else score * (1 - against)
    return scores


def read_item(reader: UnitReader, row: Found | Row) -> Item:
    """What the model is shown of a row.

    Raises:
        MediaError: its file is gone or cannot be read any more.
    """
    if row.kind == "text":
        return Item(text=row.text)
    return reader.unit(row.path, row.kind, page=row.page, start_s=row.start_s, end_s=row.end_s).as_item()


def _blocks(reader: UnitReader, candidates: Sequence[Candidate]) -> Iterator[list[tuple[int, Item]]]:
    block: list[tuple[int, Item]] = []
    size = 0
    for place, candidate in enumerate(candidates):
        try:
            item = read_item(reader, candidate.row)
        except MediaError:
            continue
        block.append((place, item))
        size += _bytes(item)
        if size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _bytes(item: Item) -> int:
    media = [*item.images, *([item.video] if item.video is not None else [])]
    return sum(int(getattr(getattr(one, "frames", one), "nbytes", 0)) for one in media)


def _judge(reranker: RerankingModel, query: Item, items: list[Item], instruction: str | None) -> list[float | None]:
    """Scores of one block; a bad document costs itself and one more call."""
    scores: list[float | None] = [None] * len(items)
    places = list(range(len(items)))
    while places:
        try:
            judged = reranker.score(query, [items[place] for place in places], instruction=instruction)
        except ItemError as error:
            if not 0 <= error.position < len(places):
                raise
            del places[error.position]
            continue
        for place, score in zip(places, judged, strict=True):
            scores[place] = float(score) if math.isfinite(score) else None
        break
    return scores
