"""Reciprocal rank fusion: several ranked lists become one.

A list gives each of its ids ``1 / (RRF_K + rank)`` with ranks from 1, times the weight of the list; the sums decide.
``fuse`` divides each sum by the largest sum there can be, the one of an id that comes first in every list that
has entries, so that scores lie in (0, 1]:

    score(id) = sum over lists of weight / (60 + rank(id))  /  sum over non-empty lists of weight / (60 + 1)

It is a score of ranks, good for sorting the answers of one query; it does not say how relevant an answer is. Only
the reranker's probability does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

RRF_K: Final = 60
"""Cormack, Clarke and Büttcher, SIGIR 2009: large enough that one first place does not outvote two seconds."""


@dataclass(frozen=True, slots=True)
class Fused:
    """One id with its fused score in (0, 1]."""

    id: str
    score: float


def fuse(lists: Sequence[Sequence[str]], weights: Sequence[float] | None = None) -> list[Fused]:
    """Ids of all lists, best first; ties go to the better best rank, then to the smaller id.

    >>> [fused.id for fused in fuse([["a", "b"], ["b", "c"]])]
    ['b', 'a', 'c']
    >>> fuse([["a"], []])
    [Fused(id='a', score=1.0)]
    """
    weights = [1.0] * len(lists) if weights is None else list(weights)
    assert len(weights) == len(lists)
    sums: dict[str, float] = {}
    best: dict[str, int] = {}
    for ids, weight in zip(lists, weights, strict=True):
        for rank, id in enumerate(dict.fromkeys(ids), start=1):
            sums[id] = sums.get(id, 0.0) + weight / (RRF_K + rank)
            best[id] = min(best.get(id, rank), rank)
    top = sum(weight / (RRF_K + 1) for ids, weight in zip(lists, weights, strict=True) if ids)
    order = sorted(sums, key=lambda id: (-sums[id], best[id], id))
    return [Fused(id, min(1.0, sums[id] / top)) for id in order]
