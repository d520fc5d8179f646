"""What is not wanted: a query moves away from it, and rows that belong to it rather than to the query go down.

Recall does two things with the vectors of the unwanted:

1. The query vector q moves away from their mean, ``q - AWAY * mean(u)``, at unit length again, so that a large index
   offers other rows at all.
2. Each candidate's recall score is multiplied by the probability that it belongs to the query and not to the unwanted
   thing nearest to it::

       score * 1 / (1 + exp(SHARPNESS * (z(d . u) - z(d . q) + SAID * (w(d, u) - w(d, q)))))

   where z says by how many standard deviations a row is nearer than the mean of the candidates, and w how well it
   holds the words, as a share of the row that holds them best. Cosines of words and of pictures have no common scale
   (any two pictures are nearer to each other than to words), places among the same candidates have: something as near
   to one as to the other keeps half of its score, whatever it is.

The second stage multiplies its probability by ``1 - p(u, d)`` for the unwanted thing that the row answers best (see
``rerank``). What is given as a row of the index is left out of the answer itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sightline.search.recall import Candidate

AWAY: Final = 0.5
"""How far the query moves: half as much as it was there, so that what the two share is still looked for."""
SAID: Final = 2.0
"""Standard deviations that holding every word is worth: a row that says what is asked for is no stranger to it."""
SHARPNESS: Final = 2.0
"""Per standard deviation: one deviation nearer to the unwanted than to the query costs 88 % of the score."""
LEAST_CANDIDATES: Final = 100
"""Rows that are compared, however few are wanted: some of the first go down, and the mean needs a few."""
MOST_UNLIKE: Final = 16
"""Things that one search may not want: each is one more question for the reranker about every candidate."""


def away(query: NDArray[np.float32], unlike: NDArray[np.float32]) -> NDArray[np.float32]:
    """The query (E,) moved away from what is not wanted (U, E), at unit length.

    >>> away(np.array([1.0, 0.0]), np.array([[0.6, 0.8]])).round(2).tolist()
    [0.87, -0.5]
    """
    if not len(unlike):
        return query
    moved = query - AWAY * unlike.mean(axis=0)
    return moved / np.linalg.norm(moved)  # type: ignore[no-any-return] # at least half of the query is left


def push_down(
    candidates: Sequence[Candidate],
    query: NDArray[np.float32],
    unlike: NDArray[np.float32],
    vectors: Mapping[str, NDArray[np.float32]],
    said: Sequence[Mapping[str, float]] = (),
) -> list[Candidate]:
    """The candidates with what is not wanted taken from their scores, best first.

    Args:
        candidates: best first.
        query: (E,) the query as it was given, unit length.
        unlike: (U, E) what is not wanted, unit length.
        vectors: of the candidates, by id; one that is missing keeps half of its score.
        said: 1 + U times how well rows hold the words of the query and of what is not wanted, by id, in (0, 1].
    """
    known = [candidate.row.id for candidate in candidates if candidate.row.id in vectors]
    if not known or not len(unlike):
        return list(candidates)
    rows = np.stack([vectors[id] for id in known]).astype(np.float64)
    nearer = _places(rows @ unlike.T) - _places(rows @ query[:, None])
    if said:
        words = np.array([[one.get(id, 0.0) for one in said] for id in known])
        nearer = nearer + SAID * (words[:, 1:] - words[:, :1])
    nearer = nearer.max(axis=1)
    shares = dict(zip(known, 1 / (1 + np.exp(SHARPNESS * nearer)), strict=True))
    pushed = [Candidate(one.row, float(one.score * shares.get(one.row.id, 0.5))) for one in candidates]
    return sorted(pushed, key=lambda one: -one.score)


def _places(cosines: NDArray[Any]) -> NDArray[Any]:
    """Cosines (N, U) as standard deviations from the mean of each column; 0 where all are alike."""
    spread = cosines.std(axis=0)
    return (cosines - cosines.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf)  # type: ignore[no-any-return]
