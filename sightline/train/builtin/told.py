"""What the vectors of texts and of pictures of words are told: by bags of words, or by a network that stays as it is.

A teller takes texts as tokens or as prompts; which of them it takes is decided where the batches are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sightline.model.vl import QwenVL
from sightline.prep.tokens import Tokenizer
from sightline.train.builtin.tasks import Example
from sightline.train.packing import Pack, Side, embedding_pack, forward

UNDER: Final = (0.9, 0.42)
"""Of a page under a heading, what of its text's vector and of its heading's it is told. Told the vector of both as one
text, with the text said twice, it lay .86 from a question for the text; told this, .92 (cosine)."""

Ids: TypeAlias = NDArray[np.int64]
Texts: TypeAlias = list[Ids] | Pack
"""N texts: tokens for bags of words, prompts for a network."""
Teller: TypeAlias = Callable[[Texts], Tensor]
"""Texts to the unit vectors (N, E) that they are held to."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What stands on N pictures of words: their text, and what stands over it on some of them.

    Attributes:
        texts: of all N.
        headings: of some, or None where no picture has one.
        under: which pictures have a heading, in order.
    """

    texts: Texts
    headings: Texts | None
    under: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts.lengths if isinstance(self.texts, Pack) else self.texts)


def as_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> Texts:
    """For bags of words."""
    return [np.asarray(tokenizer.encode(text), np.int64) for text in texts]


def as_prompts(texts: Sequence[str], tokenizer: Tokenizer) -> Texts:
    """For a network."""
    return embedding_pack([Side(text) for text in texts], tokenizer)


def words_of(examples: Sequence[Example], read: Callable[[Sequence[str]], Texts]) -> Texts | None:
    """The queries, or None where one of them is more than a text."""
    if any(example.query.image is not None or example.query.frames is not None for example in examples):
        return None
    return read([example.query.text for example in examples])


def shown_of(examples: Sequence[Example], read: Callable[[Sequence[str]], Texts]) -> Shown | None:
    """What stands on the documents, or None where one of them is no picture of words."""
    if not all(example.shown for example in examples):
        return None
    under = [place for place, example in enumerate(examples) if example.heading]
    headings = read([examples[place].heading for place in under]) if under else None
    return Shown(read([example.shown for example in examples]), headings, np.asarray(under, np.int64))


def told_of(teller: Teller, shown: Shown) -> Tensor:
    """The unit vectors (N, E) that pictures of words are told: of their text, and in part of their heading."""
    units = teller(shown.texts)
    if shown.headings is None:
        return units
    under = torch.from_numpy(shown.under).to(units.device)
    mixed = UNDER[0] * units[under] + UNDER[1] * teller(shown.headings)
    return F.normalize(units.index_copy(0, under, mixed), dim=-1)


class Frozen:
    """A network as a teller: it says what it said when training began.

    Args:
        network: asks for no gradients.
    """

    def __init__(self, network: QwenVL) -> None:
        self.network = network.requires_grad_(False)

    @torch.no_grad()
    def __call__(self, texts: Texts) -> Tensor:
        """Unit vectors (N, E) of prompts."""
        return F.normalize(forward(self.network, cast(Pack, texts)).float(), dim=-1)
