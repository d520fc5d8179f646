"""Losses as pure functions of vectors and scores.

Every loss is a mean over queries, computed in float32 on the device of its vectors. Those of vectors take unit vectors,
whole ones; ``on_prefixes`` and ``on_quantised`` give any of them shortened or coarsened ones.

Letters: N queries, M documents of which the first N answer the queries in order and the others are negatives, E width,
K pairs of a reranker, tau temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.errors import ConfigError

TEMPERATURE: Final = 0.1
GRADED_TEMPERATURE: Final = 0.05
"""Of CoSENT: its author's scale of 20."""
MARGIN: Final = 0.1
"""A negative this much above the positive is taken for a false one (technical report, section 3)."""

Loss = Callable[..., Tensor]
"""Unit vectors (N, E), (M, E), … to a mean."""
Quantiser = Callable[[Tensor], Tensor]
"""Unit vectors (N, E) to the coarser ones that a store would keep, of any length; see ``quantise.Lsq``."""


def cosines(queries: Tensor, documents: Tensor) -> Tensor:
    """Dot products (N, M) of (N, E) with (M, E), in float32 even where autocast would take fewer bits."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ documents.float().T


def info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    temperature: float = TEMPERATURE,
    same: Tensor | None = None,
    margin: float | None = MARGIN,
    symmetric: bool = True,
    beside: bool = False,
) -> Tensor:
    """Mean of -log(exp(s(q, d+) / tau) / Z), Z over the right document and all that is wrong (technical report, 3).

    The report's own: ``symmetric=False``, with ``beside=True`` in stage s0 and False after it.

    Args:
        queries: (N, E) unit vectors.
        documents: (M, E) unit vectors, M >= N; row i < N answers query i.
        temperature: tau.
        same: (N, M) bool, true where a document answers a query although it is not its own: not a negative. Nor are
            then the two queries of each other, nor the two documents.
        margin: what scores over the positive plus this is not counted; None counts all.
        symmetric: add the loss of documents looking for their queries, halve the sum.
        beside: Z has each query against the other queries and each right document against the other documents too.
    """
    num = len(queries)
    scores = cosines(queries, documents)
    positive = scores.diagonal()[:, None]
    right = torch.eye(num, len(documents), dtype=torch.bool, device=scores.device)
    if same is not None:
        right = right | same.to(scores.device)

    def wrong(scores: Tensor, right: Tensor) -> Tensor:
        if margin is not None:
            right = right | (scores > positive + margin)
        return (scores / temperature).masked_fill(right, float("-inf"))

    def loss(*logits: Tensor) -> Tensor:
        return F.cross_entropy(torch.cat([positive / temperature, *logits], 1), right.new_zeros(num, dtype=torch.long))

    aside: list[Tensor] = []
    if beside:
        kin = right[:, :num] | right[:, :num].T
        aside = [
            wrong(cosines(queries, queries), kin),
            wrong(cosines(documents[:num], documents), torch.cat([kin, right[:, num:]], 1)),
        ]
    forth = loss(wrong(scores, right), *aside)
    if not symmetric:
        return forth
    back = loss(wrong(scores[:, :num].T, right[:, :num].T), *aside)
    return (forth + back) / 2


def classes(queries: Tensor, documents: Tensor, owner: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Contrast of each query's document with the query's own negatives only: the label of a class with wrong labels.

    What answers another query of the batch may well be right here too, so it is no negative.

    Args:
        queries: (N, E) unit vectors.
        documents: (M, E) unit vectors, M >= N; row i < N answers query i, the others are wrong labels.
        owner: (M - N,) the query that each wrong label belongs to. A query with none adds 0 to the sum.
        temperature: tau.
    """
    num = len(queries)
    scores = cosines(queries, documents)
    others = owner.to(scores.device)[None, :] != torch.arange(num, device=scores.device)[:, None]
    logits = torch.cat([scores.diagonal()[:, None], scores[:, num:].masked_fill(others, float("-inf"))], 1)
    return F.cross_entropy(logits / temperature, torch.zeros(num, dtype=torch.long, device=scores.device))


def cosent(queries: Tensor, documents: Tensor, grades: Tensor, *, temperature: float = GRADED_TEMPERATURE) -> Tensor:
    """CoSENT: log(1 + sum of exp((cos_j - cos_i) / tau) over all i, j where pair i has the higher grade).

    Only the order of the grades counts; equal ones say nothing.

    Args:
        queries, documents: (N, E) unit vectors; row i of one is compared with row i of the other.
        grades: (N,), higher is nearer.
        temperature: tau.
    """
    near = (queries.float() * documents.float()).sum(-1) / temperature
    grades = grades.to(near.device)
    higher = grades[:, None] > grades[None, :]
    terms = (near[None, :] - near[:, None])[higher]
    return torch.logsumexp(torch.cat([near.new_zeros(1), terms]), 0)


def distil(
    queries: Tensor,
    documents: Tensor,
    owner: Tensor,
    teacher: Tensor,
    *,
    temperature: float = TEMPERATURE,
    teacher_temperature: float = 1.0,
) -> Tensor:
    """Cross-entropy between the reranker's distribution over a query's 1 + k candidates and that of the cosines.

    At its least it is the entropy of the teacher, not 0.

    Args:
        queries: (N, E) unit vectors.
        documents: (N + N k, E) unit vectors; row i < N answers query i.
        owner: (N k,) the query that each of the others belongs to, k for every query.
        teacher: (N, 1 + k) log-odds of the reranker: the answer, then the query's others in the order of ``owner``.
        temperature: tau of the cosines.
        teacher_temperature: what log-odds are divided by; over 1 makes the teacher less sure.

    Raises:
        ConfigError: not k candidates for every query.
    """
    num, width = queries.shape
    owner = owner.to(queries.device)
    each = teacher.shape[1] - 1
    counts = torch.bincount(owner, minlength=num)
    if len(documents) != num * (1 + each) or len(counts) != num or bool((counts != each).any()):
        raise ConfigError(f"distillation needs {each} negatives for each of {num} queries, as its teacher has")
    negatives = documents[num:][torch.argsort(owner, stable=True)].view(num, each, width)
    candidates = torch.cat([documents[:num, None], negatives], 1).float()
    near = (queries.float()[:, None] * candidates).sum(-1)
    sure = F.softmax(teacher.to(near.device).float() / teacher_temperature, 1)
    return F.cross_entropy(near / temperature, sure)


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


def on_prefixes(loss: Loss, *states: Tensor, dims: Sequence[int]) -> Tensor:
    """Mean of a loss over Matryoshka prefixes: ``on_prefixes(partial(info_nce, same=same), queries, documents, …)``.

    Args:
        loss: takes unit vectors, one argument for each of ``states``.
        states: raw states (N, E), (M, E), …; need not have length 1.
        dims: widths; to train the whole vector too, E is among them.

    Raises:
        ConfigError: no dims, or one that is not from 1 to E.
    """
    return on_quantised(loss, *states, quantisers=(torch.nn.Identity(),), dims=dims)


def on_quantised(loss: Loss, *states: Tensor, quantisers: Sequence[Quantiser], dims: Sequence[int]) -> Tensor:
    """Mean of a loss over prefixes as they are stored in coarser precisions, compared by cosine as the store does.

    Args:
        loss: takes unit vectors, one argument for each of ``states``.
        states: raw states (N, E), (M, E), …; need not have length 1.
        quantisers: of one precision each; they get unit vectors (N, dim) of every width.
        dims: widths.

    Raises:
        ConfigError: no quantisers, no dims, or one that is not from 1 to E.
    """
    full = states[0].shape[1]
    if not quantisers or not dims or not all(1 <= dim <= full for dim in dims):
        raise ConfigError(f"a loss on prefixes needs dims from 1 to {full}, not {list(dims)}, and a precision")
    prefixes = [matryoshka(state, dims) for state in states]
    return torch.stack(
        [
            loss(*(F.normalize(quantise(side), dim=-1) for side in sides))
            for sides in zip(*prefixes, strict=True)
            for quantise in quantisers
        ]
    ).mean()


def yes_no(log_odds: Tensor, is_match: Tensor) -> Tensor:
    """Binary cross-entropy of the reranker's log-odds (K,) with matches (K,) bool: -log P(right word)."""
    return F.binary_cross_entropy_with_logits(log_odds.float(), is_match.to(log_odds.device).float())


def listwise(log_odds: Tensor, groups: Sequence[int]) -> Tensor:
    """-log softmax of the first of each group: the ranking within a query's candidates.

    Args:
        log_odds: (K,), groups one after the other, the match first in each.
        groups: sizes, their sum is K.
    """
    parts = torch.split(log_odds.float(), list(groups))
    return -torch.stack([F.log_softmax(part, 0)[0] for part in parts]).mean()


@torch.no_grad()
def right_share(scores: Tensor, same: Tensor | None = None) -> Tensor:
    """Share of queries whose own document scores over all others, for logs; no gradient.

    A tie is not right, so that equal vectors show as 0.

    Args:
        scores: (N, M); the document of query i is column i.
        same: (N, M) bool, documents that answer a query although they are not its own: left out.
    """
    left_out = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
    if same is not None:
        left_out = left_out | same.to(scores.device)
    best_other = scores.masked_fill(left_out, float("-inf")).amax(1)
    return (scores.diagonal() > best_other).float().mean()
