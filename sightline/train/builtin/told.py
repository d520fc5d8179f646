"""What the vectors of texts and of pictures of words are told: by bags of words, or by a network that stays as it is.

A teller takes texts as tokens or as prompts; which of them it takes is decided where the batches are made.
"""

from __future__ import annotations

import re
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

PLAIN: Final = (0.7, 0.7)
"""Of a text with numbers or words in capitals, what of its own vector it is told, and of that without them. Digits are
tokens of their own, and capitals are cut in pieces that mean nothing: of 400 receipts and timetables .44 are found by
some of their words by the texts' own vectors, by these .63; of 400 pages .79 and .83."""

DIGITS: Final = re.compile(r"[^\w\s]*\d[\d.,:/%-]*")
LETTERS: Final = re.compile(r"[^\W\d_]{2}")

Ids: TypeAlias = NDArray[np.int64]
Texts: TypeAlias = list[Ids] | Pack
"""P texts: tokens for bags of words, prompts for a network."""
Teller: TypeAlias = Callable[[Texts], Tensor]
"""Texts to their unit vectors (P, E)."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What N texts or pictures of words are told: each the direction of a sum over its pieces.

    Attributes:
        pieces: the P texts that the sums are over.
        owner: whose piece each is (P,), from 0 to N - 1.
        share: what counts of its vector (P,).
        num: N.
    """

    pieces: Texts
    owner: NDArray[np.int64]
    share: NDArray[np.float32]
    num: int

    def __len__(self) -> int:
        return self.num


def as_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> Texts:
    """For bags of words."""
    return [np.asarray(tokenizer.encode(text), np.int64) for text in texts]


def as_prompts(texts: Sequence[str], tokenizer: Tokenizer) -> Texts:
    """For a network."""
    return embedding_pack([Side(text) for text in texts], tokenizer)


def plain(text: str) -> str:
    """A text in small letters without its numbers, where it has some or words in capitals; else as it is.

    >>> plain("2 box of NAILS  $7.80"), plain("Two nails"), plain("24/7")
    ('box of nails', 'Two nails', '24/7')
    """
    if not any(word.isupper() and len(word) > 1 for word in text.split()) and not DIGITS.search(text):
        return text
    without = " ".join(DIGITS.sub(" ", text).split())
    return without.lower() if LETTERS.search(without) else text


def pieces(text: str) -> list[tuple[str, float]]:
    """A text with its share, or two: as it is, and ``plain``."""
    simple = plain(text)
    return [(text, 1.0)] if simple == text else [(text, PLAIN[0]), (simple, PLAIN[1])]


def _sums(sums: Sequence[Sequence[tuple[str, float]]], read: Callable[[Sequence[str]], Texts]) -> Told:
    """Of texts with their shares, one sum each."""
    every = [(place, text, share) for place, own in enumerate(sums) for text, share in own]
    return Told(
        read([text for _, text, _ in every]),
        np.asarray([place for place, _, _ in every], np.int64),
        np.asarray([share for _, _, share in every], np.float32),
        len(sums),
    )


def words_of(examples: Sequence[Example], read: Callable[[Sequence[str]], Texts]) -> Told | None:
    """What the queries are told, or None where one of them is more than a text."""
    if any(example.query.image is not None or example.query.frames is not None for example in examples):
        return None
    return _sums([pieces(example.query.text) for example in examples], read)


def shown_of(examples: Sequence[Example], read: Callable[[Sequence[str]], Texts]) -> Told | None:
    """What the documents are told of the words that stand on them, or None where one of them is no picture of words."""
    if not all(example.shown for example in examples):
        return None
    return _sums([_shown(example) for example in examples], read)


def _shown(example: Example) -> list[tuple[str, float]]:
    body = pieces(example.shown)
    if not example.heading:
        return body
    shares = zip((body, pieces(example.heading)), UNDER, strict=True)
    return [(text, under * share) for own, under in shares for text, share in own]


def told_of(teller: Teller, told: Told) -> Tensor:
    """The unit vectors (N, E) that texts or pictures of words are told."""
    units = teller(told.pieces)
    share = torch.from_numpy(told.share).to(units)
    owner = torch.from_numpy(told.owner).to(units.device)
    return F.normalize(units.new_zeros(len(told), units.shape[1]).index_add(0, owner, share[:, None] * units), dim=-1)


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
