"""One step of each stage: a batch to its loss."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.model.vl import QwenVL
from sightline.train.losses import TEMPERATURE, centred, info_nce, listwise, matryoshka, yes_no
from sightline.train.packing import forward, vision_features
from sightline.train.reading import LetterHead, Readable, ReadingBatch, labelled_losses, reading_loss
from sightline.train.stages import Encoded, Judged

DIMS: Final = (64, 128, 256)
"""Prefixes that each loss is also taken on."""
READING_WEIGHT: Final = 0.3
"""Of the reading loss beside the contrastive one."""

Figures = dict[str, float]


def embedding_step(
    model: QwenVL,
    head: LetterHead,
    batch: Encoded | ReadingBatch,
    readable: Readable,
    *,
    centre: bool,
) -> tuple[Tensor, Figures]:
    """InfoNCE on every prefix, with the reading loss where the documents are drawn pages.

    Args:
        model, head, batch, readable: what learns, and from what.
        centre: compare vectors less the mean of their side, so that they cannot become equal (``losses.centred``).
    """
    if isinstance(batch, ReadingBatch):
        loss, figures = reading_loss(model, head, batch, readable)
        return READING_WEIGHT * 2 * loss, figures
    hidden: list[Tensor] = []
    hook = model.visual.merger.register_forward_pre_hook(lambda _module, args: hidden.append(args[0]))
    try:
        features = vision_features(model, batch.documents)
    finally:
        hook.remove()
    queries = forward(model, batch.queries)
    documents = forward(model, batch.documents, features)
    same = torch.from_numpy(batch.same)
    if centre:
        queries, documents = centred(queries), centred(documents)
    losses = [
        info_nce(q, d, same=same, temperature=TEMPERATURE, margin=None)
        for q, d in zip(matryoshka(queries, DIMS), matryoshka(documents, DIMS), strict=True)
    ]
    loss = torch.stack(losses).mean()
    with torch.no_grad():
        scores = F.normalize(queries.float(), dim=-1) @ F.normalize(documents.float(), dim=-1).T
        scores = scores.masked_fill(same & ~torch.eye(*same.shape, dtype=torch.bool), -1)
        right = (scores.argmax(1) == torch.arange(len(scores))).float().mean()
    figures = {f"{batch.task}": float(right), "nce": losses[-1].item()}
    if batch.tokens is not None and batch.letters is not None:
        token_loss, letter_loss, figures["token_hit"] = labelled_losses(
            model, head, features[0], hidden[0], batch.tokens, batch.letters, readable
        )
        loss = loss + READING_WEIGHT * (token_loss + letter_loss)
    return loss, figures


def log_odds(model: QwenVL, states: Tensor, yes: int, no: int) -> Tensor:
    """Logit of yes minus logit of no, (N,), from final states and the tied table."""
    table = model.language_model.embed_tokens.weight
    return F.linear(states.float(), (table[yes] - table[no]).float()[None])[:, 0]


def reranking_step(model: QwenVL, batch: Judged, yes: int, no: int) -> tuple[Tensor, Figures]:
    """Yes-no loss of all pairs, matches weighing as much as the rest together, and the ranking within each query."""
    odds = log_odds(model, forward(model, batch.pack), yes, no)
    is_match = torch.zeros(len(odds), dtype=torch.bool)
    starts = torch.tensor([0, *batch.groups[:-1]]).cumsum(0)
    is_match[starts] = True
    loss = (yes_no(odds[is_match], is_match[is_match]) + yes_no(odds[~is_match], is_match[~is_match])) / 2
    ranking = listwise(odds, batch.groups)
    with torch.no_grad():
        parts = torch.split(odds, batch.groups)
        right = torch.tensor([float(part.argmax() == 0) for part in parts]).mean()
    return loss + ranking, {batch.task: float(right), "bce": loss.item(), "rank": ranking.item()}
