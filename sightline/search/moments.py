"""Moments of one video overlap on purpose; an answer shows each stretch of it once.

Windows of 8 s every 4 s (the default) see everything twice. Among the hits of one video the best stands, and
each hit that shares at least half of the shorter one's seconds with a better hit is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

Hit = TypeVar("Hit")

SHARE: Final = 0.5
"""Of the shorter moment's seconds. Half counts as overlap: it is what neighbours share by default."""


def merge_moments(hits: Iterable[Hit], place: Callable[[Hit], tuple[str, float, float] | None]) -> list[Hit]:
    """The hits in their order (best first), without those that a better one covers.

    Args:
        hits: best first.
        place: (video, start_s, end_s) of a moment, or None for anything else, which always stays.

    >>> merge_moments([(4, 12), (0, 8), (12, 20)], lambda hit: ("v", *hit))
    [(4, 12), (12, 20)]
    """
    kept: list[Hit] = []
    taken: dict[str, list[tuple[float, float]]] = {}
    for hit in hits:
        where = place(hit)
        if where is not None:
            video, start_s, end_s = where
            stretches = taken.setdefault(video, [])
            if any(overlap((start_s, end_s), other) >= SHARE - 1e-6 for other in stretches):
                continue
            stretches.append((start_s, end_s))
        kept.append(hit)
    return kept


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Shared seconds over the seconds of the shorter stretch, in [0, 1].

    >>> overlap((0, 8), (4, 12))
    0.5
    """
    shared = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    if shorter <= 0:
        return 1.0 if shared >= 0 else 0.0
    return max(0.0, shared / shorter)
