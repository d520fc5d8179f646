"""The third stage: the decoder learns to give the vectors that the bags of words give (``words.py``).

Of a picture of words, that is the bag of its words; of an emoji, that of all its names; of a photograph, that of its
class. Every text has a whole vector to tell about, not one bit, and vectors that are told cannot become equal. So a few
minutes of it stand for hours of contrast from nothing. Pictures are also told apart by the bags, from all that is told
in the step: a bag costs nothing, so every picture has some hundred others to be told from.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.model.vl import QwenVL
from sightline.prep.tokens import Tokenizer
from sightline.train import losses
from sightline.train.builtin.corpus import Corpus
from sightline.train.builtin.tasks import Example, Maker, half, lemmas
from sightline.train.builtin.told import Told, as_tokens, shown_of, told_of
from sightline.train.builtin.words import Bags
from sightline.train.packing import Pack, Side, embedding_pack, forward

SOURCES: Final = {"sentence": 0.2, "tatoeba": 0.3, "wordnet": 0.25, "emoji": 0.13, "banking77": 0.04, "lemma": 0.08}
"""Of the texts."""
PICTURES: Final = {"page": 1 / 4, "sheet": 1 / 8, "line": 1 / 3, "emoji": 1 / 4, "photo": 1 / 6}
"""Pictures of words, and such that have a name or many, for every text."""
APART: Final = 0.5
"""Weight of telling the pictures apart, beside the cosine with what each is told."""
TEMPERATURE: Final = 0.05
SAME: Final = 0.95
"""Cosine from which two bags count as one: neither is wrong for the other's picture."""
ROW_NORM: Final = 3.0
"""Mean length of a row of the table when the decoder begins: about that of what the tower says after looking, 2 on
pages and 5 on scenes."""
DEEPSTACK: Final = 0.1
"""What DeepStack's mergers begin with, against their first weights: no earlier stage has asked them anything."""


@torch.no_grad()
def settle(model: QwenVL, bags: Bags) -> None:
    """Puts the bags' rows into the table, on the scale of what the tower says, and quietens DeepStack.

    Args:
        model: its tower has learned to look.
        bags: the first stage.
    """
    rows = bags.table() * bags.weights.weight.exp()
    model.language_model.embed_tokens.weight.copy_(rows * (ROW_NORM / float(rows.norm(dim=1).mean())))
    for merger in model.visual.deepstack_merger_list:
        merger.linear_fc2.weight.mul_(DEEPSTACK)  # type: ignore[union-attr, operator]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Prompts, and what stands in them; by kind: ``texts``, and those of ``PICTURES``."""

    packs: dict[str, Pack]
    shown: dict[str, Told]

    @property
    def queries(self) -> tuple[Pack, ...]:
        """For the count of tokens."""
        return tuple(self.packs.values())


@dataclass(frozen=True, slots=True)
class Imitating:
    """Picklable source of batches."""

    data: Path
    tokenizer: Path
    seed: int
    size: int

    def __call__(self) -> Imitator:
        """Loads the corpus; called in the process that makes the batches."""
        return Imitator(Corpus(self.data), Tokenizer(self.tokenizer), self.seed, self.size)


class Imitator:
    """Draws the batches."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int, size: int) -> None:
        self.corpus, self.tokenizer, self.seed, self.size = corpus, tokenizer, seed, size
        self.maker = Maker(corpus)
        self.lemmas = lemmas(corpus)
        self.emoji = [*corpus.train["emoji-name"], *corpus.train["emoji-keywords"]]

    def __call__(self, step: int) -> Texts:
        """The batch of a step."""
        rng = random.Random(f"{self.seed}-imitation-{step}")
        drawn = {"texts": [Example(Side(text), Side(text), shown=text) for text in map(self.text, [rng] * self.size)]}
        for name, share in PICTURES.items():
            made = self.maker.tasks[name](rng, max(1, round(share * self.size)))
            drawn[name] = [one if one.shown else replace(one, shown=one.query.text) for one in made]
        read = partial(as_tokens, tokenizer=self.tokenizer)
        return Texts(
            {kind: embedding_pack([one.document for one in own], self.tokenizer) for kind, own in drawn.items()},
            {kind: shown for kind, own in drawn.items() if (shown := shown_of(own, read)) is not None},
        )

    def text(self, rng: random.Random) -> str:
        """A text of any source."""
        source = rng.choices([*SOURCES], [*SOURCES.values()])[0]
        match source:
            case "sentence":
                text = rng.choice(self.corpus.sentences)
                return half(rng, text) if rng.random() < 0.3 else text
            case "lemma":
                return " ".join(rng.choice(self.lemmas) for _ in range(rng.randint(1, 3)))
            case "emoji":
                return rng.choice(self.emoji).d_text
            case _:
                row = rng.choice(self.corpus.train[source])
                return row.q_text if rng.random() < 0.5 else row.d_text


def imitation_step(model: QwenVL, bags: Bags, batch: Texts) -> tuple[Tensor, dict[str, float]]:
    """One less the mean cosine of the decoder's vectors with the bags', summed over the kinds, and the pictures told
    apart; the log has how many of them were (``apart``).
    """
    with torch.no_grad():
        told = {kind: told_of(bags, shown) for kind, shown in batch.shown.items()}
    made = {kind: F.normalize(forward(model, pack).float(), dim=-1) for kind, pack in batch.packs.items()}
    far = {kind: 1 - (made[kind] * told[kind]).sum(1).mean() for kind in made}
    figures = {kind: loss.item() for kind, loss in far.items()}
    pictures = [kind for kind in made if kind in PICTURES]
    apart, share = told_apart(
        torch.cat([made[kind] for kind in pictures]),
        torch.cat([told[kind] for kind in pictures] + [told[kind] for kind in told if kind not in PICTURES]),
    )
    return torch.stack([*far.values()]).sum() + APART * apart, {**figures, "apart": share}


def told_apart(made: Tensor, told: Tensor) -> tuple[Tensor, float]:
    """Every picture against all that is told; bags that say the same are not against each other.

    Args:
        made: unit vectors of pictures (N, E).
        told: unit vectors of bags (M, E), of which the first N are theirs in order.

    Returns:
        InfoNCE, and the share of the pictures that lie nearest to their own bag.
    """
    same = told[: len(made)] @ told.T > SAME
    loss = losses.info_nce(made, told, temperature=TEMPERATURE, same=same, margin=None, symmetric=False)
    with torch.no_grad():
        scores = made @ told.T
        nearest = scores.masked_fill(same, -1.0).max(1).values
        share = (scores.diagonal() > nearest).float().mean()
    return loss, float(share)
