"""What one step of training takes: packed prompts of one task, and what is known about them.

Everything here is numpy, so that batches can be made in other processes. Letters: N queries, M >= N documents of which
the first N answer the queries in order; the rest are negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.train.packing import Pack

Kind = Literal["contrast", "classes", "graded", "distil", "yes_no"]
"""Which loss a task has: InfoNCE; own wrong labels only; CoSENT; the reranker's distribution; the reranker's words."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One task's share of a step.

    Attributes:
        task: its name in logs and tables.
        kind: its loss.
        queries: N prompts in packs; rows of the first pack come first. For ``yes_no``: all K pairs of the reranker.
        documents: M prompts likewise; empty for ``yes_no``.
        owner: (M - N,) the query that each negative belongs to.
        same: (N, M) bool, true where a document answers a query although it is not its own.
        scores: (N,) float32 grades of pairs, for ``graded``.
        teacher: (N, 1 + k) float32 log-odds of the reranker for the positive, then each query's k own negatives (every
            query has k of them, in the order of ``owner``), for ``distil``.
        groups: for ``yes_no``, how many pairs each query has, the match first; their sum is K.
    """

    task: str
    kind: Kind
    queries: tuple[Pack, ...]
    documents: tuple[Pack, ...] = ()
    owner: NDArray[np.int64] | None = None
    same: NDArray[np.bool_] | None = None
    scores: NDArray[np.float32] | None = None
    teacher: NDArray[np.float32] | None = None
    groups: tuple[int, ...] = ()


MakeBatch = Callable[[int], Batch]
"""Step to batch. The same step gives the same batch, whoever asks and however often: so a run can be resumed."""
BatchSource = Callable[[], MakeBatch]
"""Picklable; loads what it needs and gives the function. Called in the process that makes the batches."""
