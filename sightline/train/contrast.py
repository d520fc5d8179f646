"""One step of an embedder: a batch to its loss, on prefixes and on coarse vectors too.

A large batch needs more memory than a pass has, and cannot be cut, because every document is compared with every query.
So its vectors are computed pass by pass without gradients, the loss is taken on them, and each pass is computed once
more when the loss's gradient of its vectors is known ("gradient caching"). The gradients are those of one large pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sightline.model.vl import QwenVL
from sightline.train import losses
from sightline.train.batch import Batch
from sightline.train.config import Loss
from sightline.train.packing import Pack, forward
from sightline.train.processes import Processes
from sightline.train.quantise import Lsq

Figures = dict[str, float]
"""Names and values for the log; the one called accuracy has a column of its own."""


def states(network: QwenVL, packs: Sequence[Pack], *, cached: bool) -> Tensor:
    """Final hidden states (N, C) of all packs, rows of the first pack first.

    Args:
        network: with gradients.
        packs: prompts; none gives (0, C).
        cached: keep only the vectors, and compute each pack again when its gradient is there.
    """
    device = next(network.parameters()).device
    if not packs:
        # it asks for a gradient, so that a process without a share of this batch goes backward like the others
        return torch.zeros(0, network.config.text.hidden_size, device=device, requires_grad=True)
    if not cached:
        return torch.cat([forward(network, pack) for pack in packs])

    def again(_: Tensor, pack: Pack) -> Tensor:
        return forward(network, pack)

    # torch's reentrant checkpoint is just that: forward without gradients, and once more on the way back
    anchor = torch.zeros((), device=device, requires_grad=True)
    return torch.cat([checkpoint(again, anchor, pack, use_reentrant=True) for pack in packs])


class Contrast(nn.Module):
    """The losses of an embedder with what they learn themselves: the steps of quantisation.

    Args:
        width: E, of a whole vector.
        loss: the table of the stage.
    """

    def __init__(self, width: int, loss: Loss) -> None:
        super().__init__()
        self.loss = loss
        self.dims = (*sorted({dim for dim in loss.dims if dim < width}), width)
        self.quantisers = nn.ModuleList(Lsq(precision, self.dims) for precision in loss.quantised)

    def forward(self, queries: Tensor, documents: Tensor, batch: Batch) -> Tensor:
        """Mean of the batch's loss over all widths, on whole and on coarse vectors.

        Args:
            queries, documents: raw states (N, E) and (M, E) of the whole batch.
            batch: what is known about them.
        """
        wanted = partial(self._loss, batch=batch)
        precisions = (nn.Identity(), *self.quantisers)
        return losses.on_quantised(wanted, queries, documents, quantisers=precisions, dims=self.dims)

    def _loss(self, queries: Tensor, documents: Tensor, *, batch: Batch) -> Tensor:
        loss, device = self.loss, queries.device
        if batch.kind == "contrast":
            return losses.info_nce(
                queries,
                documents,
                temperature=loss.temperature,
                same=None if batch.same is None else torch.from_numpy(batch.same).to(device),
                margin=loss.margin_or_none,
                symmetric=loss.symmetric,
                beside=loss.beside,
            )
        if batch.kind == "graded":
            assert batch.scores is not None
            grades = torch.from_numpy(batch.scores).to(device)
            return losses.cosent(queries, documents, grades, temperature=loss.graded_temperature)
        assert batch.owner is not None
        owner = torch.from_numpy(batch.owner).to(device)
        if batch.kind == "classes":
            return losses.classes(queries, documents, owner, temperature=loss.temperature)
        assert batch.kind == "distil" and batch.teacher is not None
        return losses.distil(
            queries,
            documents,
            owner,
            torch.from_numpy(batch.teacher).to(device),
            temperature=loss.temperature,
            teacher_temperature=loss.teacher_temperature,
        )


def contrast_step(network: QwenVL, contrast: Contrast, processes: Processes, batch: Batch) -> tuple[Tensor, Figures]:
    """A batch, or this process's share of one, to the loss of the whole."""
    cached = max(len(batch.queries), len(batch.documents)) > 1
    queries = processes.gather(states(network, batch.queries, cached=cached))
    documents = processes.gather(states(network, batch.documents, cached=cached))
    with torch.autocast(queries.device.type, enabled=False):
        loss = contrast(queries.float(), documents.float(), batch)
        return loss, {"accuracy": accuracy(queries.detach(), documents.detach(), batch)}


@torch.no_grad()
def accuracy(queries: Tensor, documents: Tensor, batch: Batch) -> float:
    """How often raw states (N, E) and (M, E) put right what the batch's loss asks for.

    contrast, classes: share of queries whose document is the best. distil: share of queries whose best candidate is
    the teacher's. graded: share of the unequal pairs of grades that are in the right order.
    """
    queries, documents = F.normalize(queries.float(), dim=-1), F.normalize(documents.float(), dim=-1)
    scores = losses.cosines(queries, documents)
    device, num = scores.device, len(queries)
    if batch.kind == "graded":
        assert batch.scores is not None
        grades, near = torch.from_numpy(batch.scores).to(device), scores.diagonal()
        higher = grades[:, None] > grades[None, :]
        ordered = (near[:, None] > near[None, :]) & higher
        return float(ordered.sum() / higher.sum().clamp_min(1))
    if batch.kind == "contrast":
        same = None if batch.same is None else torch.from_numpy(batch.same).to(device)
        return float(losses.right_share(scores, same))
    assert batch.owner is not None
    owner = torch.from_numpy(batch.owner).to(device)
    others = torch.cat(
        [~torch.eye(num, dtype=torch.bool, device=device), owner != torch.arange(num, device=device)[:, None]], 1
    )
    if batch.teacher is None:
        return float(losses.right_share(scores, others))
    best = scores.masked_fill(others, float("-inf")).argmax(1)
    chosen = torch.from_numpy(batch.teacher).to(device).argmax(1)
    # the j-th candidate of a query is the j-th column that is its own
    own = torch.arange(others.shape[1], device=device).expand_as(others)[~others].view(num, -1)
    return float((own.gather(1, chosen[:, None])[:, 0] == best).float().mean())
