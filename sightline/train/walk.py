"""Which task a step is of, and which of its rows: integers only.

Nothing here remembers what was drawn before: step k is found from the seed and k, so a run can go on anywhere.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 1024
"""Steps whose tasks are drawn at once."""


def seeded(*words: int | str) -> np.random.Generator:
    """Random numbers that depend on all of the words and on nothing else."""
    digest = hashlib.blake2b(repr(words).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


class Turns:
    """The task of each step, drawn by weight."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._shares = np.asarray(weights, np.float64) / sum(weights)
        self._seed = seed
        self._before = [np.zeros(len(weights), np.int64)]
        self._block = lru_cache(maxsize=2)(self._drawn)

    def at(self, step: int) -> tuple[int, int]:
        """The task of a step, and how many steps before it were of that task."""
        block, place = divmod(step, BLOCK)
        while len(self._before) <= block:
            counts = np.bincount(self._drawn(len(self._before) - 1), minlength=len(self._shares))
            self._before.append(self._before[-1] + counts)
        turns = self._block(block)
        task = int(turns[place])
        return task, int(self._before[block][task]) + int((turns[:place] == task).sum())

    def _drawn(self, block: int) -> NDArray[np.int64]:
        return seeded("turns", self._seed, block).choice(len(self._shares), BLOCK, p=self._shares)


class Walk:
    """Rows of the batches of one task.

    Batches follow one another along a line of epochs; an epoch is all rows once, in an order of its own. A batch may
    begin in one epoch and end in the next, and then too holds no row twice.

    Args:
        num_rows: R, at least ``batch``.
        batch: B rows in each batch.
        name, seed: of the orders.
    """

    def __init__(self, num_rows: int, batch: int, name: str, seed: int) -> None:
        assert num_rows >= batch >= 1, (num_rows, batch)
        self._num_rows = num_rows
        self._batch = batch
        self._words = (name, seed)
        self._order = lru_cache(maxsize=2)(self._ordered)

    def rows(self, turn: int) -> NDArray[np.int64]:
        """(B,) different rows of the batch number ``turn``."""
        epoch, place = divmod(turn * self._batch, self._num_rows)
        rows = self._order(epoch)[place : place + self._batch]
        if len(rows) < self._batch:
            rows = np.concatenate([rows, self._order(epoch + 1)[: self._batch - len(rows)]])
        return rows

    def spares(self, turn: int, slot: int) -> Iterator[int]:
        """Rows to take when the row at one place of a batch cannot be read: no other place of it takes them too."""
        taken = set(self.rows(turn).tolist())
        candidates = np.arange(slot, self._num_rows, self._batch)
        seeded("spares", *self._words, turn, slot).shuffle(candidates)
        yield from (row for row in candidates.tolist() if row not in taken)

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        """All rows in the order of an epoch.

        Rows of the last epoch that stand in the batch both epochs share go behind that batch. This moves nothing but
        the first B rows, so the end of an epoch is known without the epochs before it when R >= 2 B; else they are
        followed from where an epoch last began with a batch.
        """
        period = self._batch // math.gcd(self._num_rows, self._batch)
        first = epoch - epoch % period
        if self._num_rows >= 2 * self._batch:
            first = max(first, epoch - 1)
        order = self._shuffled(first)
        for later in range(first + 1, epoch + 1):
            shared = order[self._num_rows - later * self._num_rows % self._batch :]
            order = self._shuffled(later)
            head = order[: self._batch]
            is_shared = np.isin(head, shared)
            order[: self._batch] = np.concatenate([head[~is_shared], head[is_shared]])
        return order

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return seeded("epoch", *self._words, epoch).permutation(self._num_rows)
