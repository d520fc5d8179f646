"""Losses as pure functions of vectors and scores.

Letters: N queries, M documents of which the first N answer the queries in order, E width, tau temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE: Final = 0.1
MARGIN: Final = 0.1
"""A negative this much above the positive is taken for a false one (technical report, section 3)."""


def info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    temperature: float = TEMPERATURE,
    same: Tensor | None = None,
    margin: float | None = MARGIN,
    symmetric: bool = True,
) -> Tensor:
    """Mean of -log softmax of the right document, and of the right query.

    Args:
        queries: (N, E) unit vectors.
        documents: (M, E) unit vectors, M >= N; row i < N answers query i.
        temperature: tau.
        same: (N, M) bool, true where a document answers a query although it is not its own: not a negative.
        margin: a negative scoring over the positive plus this is not counted; None counts all.
        symmetric: add the loss of documents looking for their queries, halve the sum.
    """
    num = len(queries)
    scores = queries.float() @ documents.float().T
    own = torch.eye(num, len(documents), dtype=torch.bool)
    masked = torch.zeros_like(own) if same is None else same.clone()
    if margin is not None:
        positive = scores.diagonal()[:, None]
        masked |= scores.detach() > positive.detach() + margin
    masked &= ~own
    logits = (scores / temperature).masked_fill(masked, float("-inf"))
    target = torch.arange(num)
    loss = F.cross_entropy(logits, target)
    if not symmetric:
        return loss
    return (loss + F.cross_entropy(logits[:, :num].T, target)) / 2


def own_negatives(
    queries: Tensor, documents: Tensor, negatives: Tensor, counts: Sequence[int], *, temperature: float = TEMPERATURE
) -> Tensor:
    """Contrast of each query's document with the query's own negatives only (statements true of many pictures).

    Args:
        queries, documents: (N, E) unit vectors.
        negatives: (K, E), those of query 0 first.
        counts: negatives of each query; their sum is K.
        temperature: tau.
    """
    owner = torch.repeat_interleave(torch.arange(len(queries)), torch.tensor(list(counts)))
    positive = (queries * documents).sum(-1).float()
    scores = queries.float() @ negatives.float().T
    mine = owner[None, :] == torch.arange(len(queries))[:, None]
    logits = torch.cat([positive[:, None], scores.masked_fill(~mine, float("-inf"))], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.long))


def centred(states: Tensor) -> Tensor:
    """States (N, E) less their mean over the batch.

    What all items of a side share tells nothing apart. But between two sides that know nothing of each other yet,
    InfoNCE at a low temperature finds equal vectors better than random ones, and from equal vectors no gradient leads
    back. Less their mean, vectors cannot become equal.
    """
    states = states.float()
    return states - states.mean(0)


def matryoshka(states: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """Unit vectors of the first ``dim`` values for each of dims, (N, dim) each, from raw states (N, E)."""
    return [F.normalize(states[:, :dim].float(), dim=-1) for dim in dims]


def yes_no(log_odds: Tensor, is_match: Tensor) -> Tensor:
    """Binary cross-entropy of the reranker's log-odds (N,) with matches (N,) bool: -log P(right word)."""
    return F.binary_cross_entropy_with_logits(log_odds.float(), is_match.float())


def listwise(log_odds: Tensor, groups: Sequence[int]) -> Tensor:
    """-log softmax of the first of each group: the ranking within a query's candidates.

    Args:
        log_odds: (K,), groups one after the other, the match first in each.
        groups: sizes, their sum is K.
    """
    parts = torch.split(log_odds.float(), list(groups))
    return -torch.stack([F.log_softmax(part, 0)[0] for part in parts]).mean()
