"""One step of a reranker: pairs to the loss of its two words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.model.vl import QwenVL
from sightline.model.weights import Checkpoint
from sightline.prep.tokens import Tokenizer
from sightline.train import losses
from sightline.train.batch import Batch
from sightline.train.config import Loss
from sightline.train.contrast import Figures, states
from sightline.train.processes import Processes


class Words:
    """The reranker's two words, as the product reads them: the logit of yes less that of no.

    Where the checkpoint ties its head to the table of tokens, the rows are those of the table as it is now, which may
    be learning; else those of the head, which does not learn.
    """

    def __init__(self, network: QwenVL, tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
        self._network = network
        self._ids = (tokenizer.word_id("yes"), tokenizer.word_id("no"))
        tied = checkpoint.config.tie_word_embeddings
        device = next(network.parameters()).device
        self._rows = None if tied else checkpoint.head_rows(self._ids).to(device)

    def log_odds(self, final: Tensor) -> Tensor:
        """Final states (K, C) -> (K,) float32."""
        yes, no = (
            self._network.language_model.embed_tokens.weight[list(self._ids)] if self._rows is None else self._rows
        )
        return F.linear(final.float(), (yes.float() - no.float())[None])[:, 0]


def judging_step(
    network: QwenVL, words: Words, loss: Loss, processes: Processes, batch: Batch
) -> tuple[Tensor, Figures]:
    """A batch of kind yes_no, or this process's share of one, to the loss of the whole."""
    final = processes.gather(states(network, batch.queries, cached=len(batch.queries) > 1))
    with torch.autocast(final.device.type, enabled=False):
        return judged(words.log_odds(final), batch.groups, loss)


def judged(odds: Tensor, groups: tuple[int, ...], loss: Loss) -> tuple[Tensor, Figures]:
    """Log-odds (K,) of groups of pairs, the match first in each, to their loss and figures."""
    is_match = torch.zeros(len(odds), dtype=torch.bool, device=odds.device)
    is_match[torch.tensor([0, *groups[:-1]]).cumsum(0).to(odds.device)] = True
    if loss.balanced and not bool(is_match.all()):
        words = (
            losses.yes_no(odds[is_match], is_match[is_match]) + losses.yes_no(odds[~is_match], is_match[~is_match])
        ) / 2
    else:
        words = losses.yes_no(odds, is_match)
    figures = {"accuracy": _best_first(odds.detach(), groups), "yes_no": words.item()}
    if not loss.listwise:
        return words, figures
    ranking = losses.listwise(odds, groups)
    return words + loss.listwise * ranking, {**figures, "listwise": ranking.item()}


def _best_first(odds: Tensor, groups: tuple[int, ...]) -> float:
    """Share of queries whose match scores over all other candidates; a tie is not right."""
    parts = torch.split(odds, list(groups))
    right = [len(part) == 1 or bool(part[0] > part[1:].max()) for part in parts]
    return sum(right) / len(right)
