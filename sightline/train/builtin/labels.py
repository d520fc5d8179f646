"""Labels of drawn pictures: the tokens and letters in every cell, and the one thing that a whole picture shows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sightline.prep.patches import Grid
from sightline.prep.tokens import Tokenizer
from sightline.train.builtin.drawing import Page, Word
from sightline.train.builtin.spelling import GRAMS, grams

LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-&%$/@#+*=<>[]_"
"""Classes of the letter head; one more stands for all others and one for nothing."""
OTHER: Final = len(LETTERS)
NOTHING: Final = OTHER + 1
NUM_LETTERS: Final = OTHER + 2
LETTER_INDEX: Final = {letter: index for index, letter in enumerate(LETTERS)}
NO_GRAM: Final = len(GRAMS)
"""Class of the cells with no letter."""
BLANK_SHARE: Final = 0.1
"""Share of the empty cells that are asked for too."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Sparse soft labels: row, class, weight."""

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, triples: dict[tuple[int, int], float]) -> Targets:
        """Of sums collected by (row, class)."""
        rows = np.fromiter((row for row, _ in triples), np.int64, len(triples))
        classes = np.fromiter((c for _, c in triples), np.int64, len(triples))
        return cls(rows, classes, np.fromiter(triples.values(), np.float32, len(triples)))

    def normalised(self) -> Targets:
        """The same with weights that sum to 1 in every row."""
        totals = np.bincount(self.rows, self.weights)
        return Targets(self.rows, self.classes, (self.weights / totals[self.rows]).astype(np.float32))

    @staticmethod
    def joined(parts: Sequence[tuple[Targets, int]]) -> Targets:
        """Targets of several pictures, rows shifted by what stood before each."""
        if not parts:
            return Targets.of({})
        return Targets(
            np.concatenate([part.rows + shift for part, shift in parts]),
            np.concatenate([part.classes for part, _ in parts]),
            np.concatenate([part.weights for part, _ in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Things:
    """What each of N pictures shows; of a blend of two, both.

    Attributes:
        first, second: (N,) places in ``Maker.things``.
        share: (N,) of the first, at least a half; 1 where the picture is no blend.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Pictures of one size with what is on them.

    Attributes:
        patches: (P, D), of all pictures.
        grids: of each picture.
        tokens, letters, grams: see ``targets``; the last two are empty where they are not asked for.
        shares: see ``shares_of``; empty where letters are not asked for.
        things: None where pictures do not show one thing each.
    """

    patches: NDArray[np.uint8]
    grids: list[Grid]
    tokens: Targets
    letters: Targets
    grams: Targets
    shares: Targets
    things: Things | None = None


class Speller:
    """Words to tokens with the share of the word's width each takes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.blank = tokenizer.added_tokens["<|vision_pad|>"]
        self.spell = lru_cache(maxsize=100_000)(self._spell)

    def _spell(self, word: str) -> tuple[tuple[int, float, float], ...]:
        ids = self.tokenizer.encode(" " + word)
        lengths = [max(1, len(self.tokenizer.decode([i]).strip())) for i in ids]
        total, at = sum(lengths), 0
        out = []
        for index, length in zip(ids, lengths, strict=True):
            out.append((index, at / total, (at + length) / total))
            at += length
        return tuple(out)


def grams_at(word: Word) -> list[tuple[int, float]]:
    """(gram, pixels from the left) of a written word: a letter lies at its middle, a pair where the two meet."""
    out = []
    for gram, place in grams(" " + word.text):
        left, right = word.edges[place], word.edges[place + 1]
        out.append((gram, left if len(GRAMS[gram]) == 2 and place else (left + right) / 2))
    return out


def targets(page: Page, speller: Speller, rng: random.Random) -> tuple[Targets, Targets, Targets]:
    """(tokens of the cells, letters of the patches, grams of the cells), in the order the vision tower gives.

    The weights of each row sum to 1.
    """
    height, width = page.pixels.shape[:2]
    rows, columns = height // 32, width // 32
    tokens: dict[tuple[int, int], float] = {}
    letters: dict[tuple[int, int], float] = {}
    spelled: dict[tuple[int, int], float] = {}
    for word in page.words:
        across = word.right - word.left
        if not word.text or across <= 0:
            continue
        if word.whole:
            _name_cells(word, speller, rows, columns, tokens)
            continue
        for token, begin, end in speller.spell(word.text):
            left, right = word.left + begin * across, word.left + end * across
            for row, high in _overlaps(word.top, word.bottom, 32, rows):
                for column, wide in _overlaps(left, right, 32, columns):
                    if high * wide > 16:
                        key = (row * columns + column, token)
                        tokens[key] = tokens.get(key, 0.0) + high * wide
        for gram, middle in grams_at(word):
            column = int(middle // 32)
            for row, high in _overlaps(word.top, word.bottom, 32, rows):
                if high > 5 and 0 <= column < columns:
                    key = (row * columns + column, gram)
                    spelled[key] = spelled.get(key, 0.0) + high / (word.bottom - word.top)
        for index, letter in enumerate(word.text):
            column = int((word.edges[index] + word.edges[index + 1]) / 2 // 16)
            if not 0 <= column < 2 * columns:
                continue
            label = LETTER_INDEX.get(letter, OTHER)
            for row, high in _overlaps(word.top, word.bottom, 16, 2 * rows):
                if high > 3:
                    patch = ((row // 2) * columns + column // 2) * 4 + (row % 2) * 2 + column % 2
                    letters[patch, label] = letters.get((patch, label), 0.0) + high
    full = {cell for cell, _ in tokens}
    for cell in range(rows * columns):
        if cell not in full and rng.random() < BLANK_SHARE:
            tokens[cell, speller.blank] = 1.0
    drawn = {patch for patch, _ in letters}
    for patch in range(4 * rows * columns):
        if patch not in drawn and rng.random() < 2 * BLANK_SHARE:
            letters[patch, NOTHING] = 1.0
    written = {cell for cell, _ in spelled}
    for cell in range(rows * columns):
        if cell not in written and rng.random() < 2 * BLANK_SHARE:
            spelled[cell, NO_GRAM] = 1.0
    return Targets.of(tokens).normalised(), Targets.of(letters).normalised(), Targets.of(spelled).normalised()


def shares_of(page: Page, speller: Speller) -> Targets:
    """How much of each token of the page lies in a cell: 1 in all cells together, less what the page cuts off.

    A cell with none has all of the blank token.
    """
    height, width = page.pixels.shape[:2]
    rows, columns = height // 32, width // 32
    shares: dict[tuple[int, int], float] = {}
    for word in page.words:
        across, high = word.right - word.left, word.bottom - word.top
        if not word.text or across <= 0 or word.whole:
            continue
        for token, begin, end in speller.spell(word.text):
            left, right = word.left + begin * across, word.left + end * across
            for row, down in _overlaps(word.top, word.bottom, 32, rows):
                for column, wide in _overlaps(left, right, 32, columns):
                    if down > 0 and wide > 0:
                        key = (row * columns + column, token)
                        shares[key] = shares.get(key, 0.0) + down / high * wide / (right - left)
    full = {cell for cell, _ in shares}
    return Targets.of(shares | {(cell, speller.blank): 1.0 for cell in range(rows * columns) if cell not in full})


def _name_cells(word: Word, speller: Speller, rows: int, columns: int, tokens: dict[tuple[int, int], float]) -> None:
    """Gives every cell that a named thing covers all the tokens of its name."""
    names = [token for part in word.text.split() for token, _, _ in speller.spell(part)]
    for row, high in _overlaps(word.top, word.bottom, 32, rows):
        for column, wide in _overlaps(word.left, word.right, 32, columns):
            if high * wide > 48:
                for token in names:
                    key = (row * columns + column, token)
                    tokens[key] = tokens.get(key, 0.0) + high * wide / len(names)


def _overlaps(low: float, high: float, side: int, count: int) -> list[tuple[int, float]]:
    """(index, pixels) of the cells that an interval touches."""
    first, last = max(0, int(low // side)), min(count - 1, int(high // side))
    return [(i, min(high, (i + 1) * side) - max(low, i * side)) for i in range(first, last + 1)]
