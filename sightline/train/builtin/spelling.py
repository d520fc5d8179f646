"""Spelling as a part of vectors: every letter and every pair of letters has a direction of its own.

A tower of ten million weights reads letters long before it knows words: told to say whole words only, it stayed at a
third of them with nine letters in ten read. Here the row of a token is what it means (``words.py``) and how it is
spelled, and the tower is told the pairs of letters of every cell (``looking.py``). A page then lies near its words as
soon as the letters are read, whether the words were ever met or not.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.prep.tokens import Tokenizer

START: Final = "_"
"""The beginning of a word."""
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
GRAMS: Final = (*LETTERS, *(first + second for first in START + LETTERS for second in LETTERS))
"""Letters and pairs."""
GRAM_INDEX: Final = {gram: index for index, gram in enumerate(GRAMS)}
SHARE: Final = 1.6
"""Length of the spelled part of a row; the learned part comes to about 2. Larger cost translations: 2.5 took R@1 of 20
languages from .38 to .34, 1.6 nothing."""


def grams(text: str) -> list[tuple[int, int]]:
    """(gram, place of its last letter) of a word; a space in front says that it begins there.

    >>> [GRAMS[gram] for gram, _ in grams(" an")]
    ['a', '_a', 'n', 'an']
    """
    begins = text.startswith(" ")
    letters = [letter.lower() for letter in text.lstrip(" ")]  # one by one: some grow when they are made small
    out = []
    for place, letter in enumerate(letters):
        before = letters[place - 1] if place else START if begins else ""
        out += [(GRAM_INDEX[gram], place) for gram in (letter, before and before + letter) if gram in GRAM_INDEX]
    return out


def directions(width: int) -> Tensor:
    """(GRAMS, E) unit vectors, the same at any time on any machine."""
    rows = [np.random.default_rng(zlib.crc32(gram.encode())).standard_normal(width) for gram in GRAMS]
    return F.normalize(torch.from_numpy(np.stack(rows).astype(np.float32)), dim=1)


def rarity(sentences: Sequence[str]) -> Tensor:
    """(GRAMS,) logarithm of the number of sentences for one that has a gram."""
    met: Counter[int] = Counter()
    for sentence in sentences:
        met.update({gram for word in sentence.split() for gram, _ in grams(" " + word)})
    return torch.tensor([math.log((len(sentences) + 1) / (met[index] + 1)) for index in range(len(GRAMS))])


def spelled(tokenizer: Tokenizer, vocab_size: int, width: int, rare: Tensor) -> Tensor:
    """(V, E) how each token is spelled, of length ``SHARE``, or zeros where it has none of the letters."""
    rows = directions(width) * rare[:, None]
    out = torch.zeros(vocab_size, width)
    added = set(tokenizer.added_tokens.values())
    for token in range(vocab_size):
        if token in added:
            continue
        own = [gram for gram, _ in grams(tokenizer.decode([token]))]
        if own:
            out[token] = F.normalize(rows[own].sum(0), dim=0) * SHARE
    return out
