"""The first stage: a query vector and the query's words become ranked candidates.

Up to three lists (vector, words, pieces of words) are fused by rank; overlapping moments of one video are merged
after that, so more is fetched than was asked for, and more again until there is enough or nothing is left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from sightline.search.coverage import Coverage
from sightline.search.fuse import fuse
from sightline.search.moments import merge_moments
from sightline.store.schema import Filter, Found, ItemStore

WEIGHTS: Final = (1.0, 0.5, 0.5)
"""Of vector, words and pieces: the two word lists say much the same, together they weigh as much as the vector."""
WORDS_CHARS: Final = 2_000
"""Characters of a query that are searched as words; a page given as a query would match everything."""
SHARE_POWER: Final = 2.0
"""A place among the words counts by the share of the query that the row holds (``coverage``), to this power: half of
the words says less than half of what all say. R@1 of ``bench/fusion.py``: vectors alone .66, every place alike .32, by
the square of the share .82; on another draw the share itself gave .75, its square .83, its third power .84.
"""
PIECES_SHARE: Final = 0.5
"""Of the best score: rows below it share a few pairs of letters with the query and no word ("bicycle", "medicine")."""
OVERFETCH: Final = 2
LEAST_FETCHED: Final = 100
"""Rows of each list, however few are wanted: a row's place in every list counts, so the first hit needs long lists."""
MOST_FETCHED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of the index with its recall score in [0, 1] (see ``fuse``)."""

    row: Found
    score: float


def recall(
    store: ItemStore,
    vector: NDArray[Any] | None,
    words: str,
    num: int,
    where: Filter | None = None,
    leave_out: Collection[str] = (),
) -> list[Candidate]:
    """At most ``num`` candidates, best first, each stretch of a video once.

    Args:
        store: where to look.
        vector: the query (E,), or None to search by words alone.
        words: text of the query; "" searches by vector alone.
        num: how many are wanted.
        where: rows that may be found; rows are filtered before they are ranked.
        leave_out: ids of rows that are known to the asker: they go, and moments that show the same seconds with them.
    """
    fetch = max(num * OVERFETCH, LEAST_FETCHED)
    while True:
        found, more = lists(store, vector, words[:WORDS_CHARS], fetch, where)
        rows = {row.id: row for rows in found for row in rows}
        fused = fuse(weighed(found, words[:WORDS_CHARS]))
        candidates = [Candidate(rows[one.id], one.score) for one in fused]
        candidates.sort(key=lambda candidate: candidate.row.id not in leave_out)
        merged = [one for one in merge_moments(candidates, _place) if one.row.id not in leave_out]
        if len(merged) >= num or not more or fetch >= MOST_FETCHED:
            return merged[:num]
        fetch *= 4


def weighed(found: Sequence[Sequence[Found]], words: str) -> list[dict[str, float]]:
    """Ids of each list with what a place in it counts: in the lists of words as much as the row holds of the query."""
    near, *said = found
    if not near:  # nothing but words to go by
        return [dict.fromkeys((row.id for row in rows), weight) for rows, weight in zip(found, WEIGHTS, strict=True)]
    coverage = Coverage(words, near)
    shares = {row.id: coverage.share(row) for rows in said for row in rows}
    return [
        dict.fromkeys((row.id for row in near), WEIGHTS[0]),
        *(
            {row.id: weight * shares[row.id] ** SHARE_POWER for row in rows}
            for rows, weight in zip(said, WEIGHTS[1:], strict=True)
        ),
    ]


def lists(
    store: ItemStore, vector: NDArray[Any] | None, words: str, num: int, where: Filter | None
) -> tuple[tuple[list[Found], list[Found], list[Found]], bool]:
    """The three lists, and whether any of them may go on."""
    near = [] if vector is None else store.search_vector(vector, num, where)
    by_word, by_piece = store.search_words(words, num, where) if words.strip() else ([], [])
    more = any(len(rows) >= num for rows in (near, by_word, by_piece))
    by_piece = [row for row in by_piece if row.score >= PIECES_SHARE * by_piece[0].score]
    return (near, by_word, by_piece), more


def _place(candidate: Candidate) -> tuple[str, float, float] | None:
    row = candidate.row
    if row.kind != "moment" or row.start_s is None or row.end_s is None:
        return None
    return row.path_id, row.start_s, row.end_s
