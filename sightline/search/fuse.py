"""Reciprocal rank fusion: several ranked lists become one.

A list gives each of its ids ``1 / (RRF_K + rank)`` with ranks from 1, times the weight of its place; the sums decide.
``fuse`` divides each sum by the largest sum there can be, the one of an id that comes first in every list that
has entries, with the largest weight of each, so that scores lie in [0, 1]:

    score(id) = sum over lists of weight(id) / (60 + rank(id))  /  sum over lists of largest weight / (60 + 1)

It is a score of ranks, good for sorting the answers of one query; it does not say how relevant an answer is. Only
the reranker's probability does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

RRF_K: Final = 60
"""Cormack, Clarke and Büttcher, SIGIR 2009: large enough that one first place does not outvote two seconds."""


@dataclass(frozen=True, slots=True)
class Fused:
    """One id with its fused score in [0, 1]."""

    id: str
    score: float


def fuse(lists: Sequence[Mapping[str, float]]) -> list[Fused]:
    """Ids of all lists, best first; ties go to the better best rank, then to the smaller id.

    Args:
        lists: ids, best first, each with the weight of its place.

    >>> [fused.id for fused in fuse([{"a": 1.0, "b": 1.0}, {"b": 1.0, "c": 1.0}])]
    ['b', 'a', 'c']
    >>> fuse([{"a": 1.0}, {}])
    [Fused(id='a', score=1.0)]
    """
    sums: dict[str, float] = {}
    best: dict[str, int] = {}
    for ids in lists:
        for rank, (id, weight) in enumerate(ids.items(), start=1):
            sums[id] = sums.get(id, 0.0) + weight / (RRF_K + rank)
            best[id] = min(best.get(id, rank), rank)
    top = sum(max(ids.values()) / (RRF_K + 1) for ids in lists if ids)
    order = sorted(sums, key=lambda id: (-sums[id], best[id], id))
    return [Fused(id, min(1.0, sums[id] / top) if top > 0 else 0.0) for id in order]
