"""Which items run together. Integers only: lengths in, lists of indices out."""

from __future__ import annotations

from collections.abc import Sequence


def plan(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of items whose costs add up to at most ``budget``, longest first.

    Items of like length stand together, so that attention runs them as one call, and the first batch is the one that
    needs the most memory: what does not fit shows at once. An item over the budget runs alone.

    Args:
        costs: tokens (or any like measure) of each item.
        budget: most of it in one batch.

    Returns:
        indices of the items; every index once.

    >>> plan([5, 9, 1, 3], 10)
    [[1], [0, 3, 2]]
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        if not batches or costs[index] > room:
            batches.append([])
            room = max(budget, costs[index])
        batches[-1].append(index)
        room -= costs[index]
    return batches


def halves(batch: Sequence[int]) -> tuple[list[int], list[int]]:
    """A batch that ran out of memory, as two."""
    middle = (len(batch) + 1) // 2
    return list(batch[:middle]), list(batch[middle:])
