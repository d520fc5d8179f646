"""One step of the contrastive stages: batches of several tasks to one loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.model.vl import QwenVL
from sightline.train.builtin.looking import Look
from sightline.train.builtin.stages import CELLS, Mixed
from sightline.train.builtin.told import Teller, told_of
from sightline.train.config import Loss
from sightline.train.contrast import Contrast, Figures, accuracy, contrast_step, states
from sightline.train.judging import Words, judging_step
from sightline.train.packing import forward
from sightline.train.processes import Processes

ANCHOR: Final = 3.0
"""Weight of the imitation of texts beside the contrast. Without it, pictures that know nothing yet pull the texts out
of their places: after 200 steps translations fell from .49 to .27 (R@1 of 600), definitions from .63 to .48."""

ACROSS: Final = 1.0
"""Weight of the contrast between the tasks of a step. Each task's candidates are of one kind; without it a page may lie
nearer to every word than a text does, and no task shows it."""

PAGES: Final = ("page", "sheet")
"""Tasks whose documents stay in ``Last``."""
LAST: Final = 2048
"""Pages that every query is to find its own document before, beside the documents of its step: a batch holds a dozen
pages, a library thousands, and some lie near to many questions."""

LOOK: Final = 0.4
"""Weight of what the cells are asked for, where the tower learns beside the decoder: a contrast has one bit for a
picture, and the tower would forget its letters for it."""


class Last(nn.Module):
    """Vectors of the last pages of a run, newest last, and what they answer. Empty at first.

    Args:
        width: E.
    """

    units: Tensor
    keys: Tensor
    num: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("units", torch.zeros(LAST, width))
        self.register_buffer("keys", torch.zeros(LAST, dtype=torch.long))
        self.register_buffer("num", torch.zeros((), dtype=torch.long))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Unit vectors (Q, E) and keys (Q,)."""
        held = int(self.num)
        return self.units[LAST - held :], self.keys[LAST - held :]

    def add(self, documents: Tensor, keys: Tensor) -> None:
        """Takes raw states (N, E), which keep no gradient, in the place of the oldest."""
        units = F.normalize(documents.detach(), dim=-1)
        self.units = torch.cat([self.units, units])[-LAST:]
        self.keys = torch.cat([self.keys, keys])[-LAST:]
        self.num = (self.num + len(units)).clamp(max=LAST)


def embedding_step(
    network: QwenVL,
    contrast: Contrast,
    teller: Teller,
    last: Last,
    processes: Processes,
    looking: Callable[[Look], tuple[Tensor, Figures]] | None,
    step: Mixed,
) -> tuple[Tensor, Figures]:
    """The mean loss of the parts and that between them, texts and pictures of words held near what they are told, and
    what the cells of pictures are asked for (``looking``) where the step has them; the log has each accuracy.
    """
    out = []
    sides: list[tuple[Tensor, Tensor]] = []
    for part, texts, shown in zip(step.parts, step.texts, step.shown, strict=True):
        queries = states(network, part.queries, cached=False)
        documents = states(network, part.documents, cached=False)
        with torch.autocast(queries.device.type, enabled=False):
            queries, documents = queries.float(), documents.float()
            loss = contrast(queries, documents, part)
            sides.append((queries, documents))
            if texts is not None:
                loss = loss + ANCHOR * (1 - F.cosine_similarity(queries, told_of(teller, texts), dim=-1)).mean()
            if shown is not None:
                held = F.cosine_similarity(documents[: len(shown)], told_of(teller, shown), dim=-1)
                loss = loss + ANCHOR * (1 - held).mean()
        out.append((part.task, (loss, {"accuracy": accuracy(queries.detach(), documents.detach(), part)})))
    loss, figures = _mean(out)
    if step.look is not None and looking is not None:
        seen, right = looking(step.look)
        loss = loss + LOOK * seen
        figures |= {f"{CELLS}_{name}": figure for name, figure in right.items()}
    keys = [torch.from_numpy(part).to(loss.device) for part in step.keys]
    with torch.autocast(loss.device.type, enabled=False):
        apart, share = between(sides, keys, last(), contrast.loss.temperature)
    for part, own, (_, documents) in zip(step.parts, keys, sides, strict=True):
        if part.task in PAGES:
            last.add(documents[: len(own)], own)
    return loss + ACROSS * apart, {**figures, "across": share}


def between(
    sides: Sequence[tuple[Tensor, Tensor]],
    keys: Sequence[Tensor],
    last: tuple[Tensor, Tensor],
    temperature: float,
) -> tuple[Tensor, float]:
    """Every query against its document and the documents of the other tasks, and the last pages.

    Args:
        sides: of each task, queries (N, E) and documents (M, E), of which the first N answer them in order.
        keys: of each task, what its queries ask for (N,).
        last: unit vectors (Q, E) of pages, and what they answer (Q,); none is set against a query that asks for it.
        temperature: of the softmax.

    Returns:
        InfoNCE, the mean over tasks; how often the own document is the best.
    """
    units = [(F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)) for queries, documents in sides]
    pages, page_keys = last
    out, shares = [], []
    for place, ((queries, documents), own_keys) in enumerate(zip(units, keys, strict=True)):
        own = (queries * documents[: len(queries)]).sum(1, keepdim=True)
        others = [queries @ other.T for index, (_, other) in enumerate(units) if index != place]
        before = (queries @ pages.T).masked_fill(own_keys[:, None] == page_keys[None, :], float("-inf"))
        scores = torch.cat([own, *others, before], 1)
        out.append(
            F.cross_entropy(scores / temperature, torch.zeros(len(queries), dtype=torch.long, device=own.device))
        )
        shares.append(float((scores.argmax(1) == 0).float().mean()))
    return torch.stack(out).mean(), sum(shares) / len(shares)


def judging_steps(
    network: QwenVL, words: Words, loss: Loss, processes: Processes, step: Mixed
) -> tuple[Tensor, Figures]:
    """The same for a reranker."""
    return _mean([(part.task, judging_step(network, words, loss, processes, part)) for part in step.parts])


def distilling_step(
    network: QwenVL, contrast: Contrast, processes: Processes, judge: QwenVL, words: Words, step: Mixed
) -> tuple[Tensor, Figures]:
    """The reranker judges the pairs of each part, the embedder follows, and is contrasted as before."""
    out = []
    for part, pairs in zip(step.parts, step.pairs, strict=True):
        with torch.no_grad():
            odds = words.log_odds(forward(judge, pairs)).float().cpu().numpy()
        assert part.owner is not None
        told = odds.reshape(-1, 1 + len(part.owner) // len(part.queries[0].lengths))
        out.append((part.task, contrast_step(network, contrast, processes, replace(part, teacher=told))))
        contrasted = contrast_step(network, contrast, processes, replace(part, kind="contrast"))
        out.append((f"{part.task}_contrast", contrasted))
    return _mean(out)


def _mean(made: list[tuple[str, tuple[Tensor, Figures]]]) -> tuple[Tensor, Figures]:
    losses = torch.stack([loss for _, (loss, _) in made])
    figures = {task: told.get("accuracy", 0.0) for task, (_, told) in made}
    return losses.mean(), {"accuracy": sum(figures.values()) / len(figures), **figures}
