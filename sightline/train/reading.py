"""The reading stage: the vision tower learns to say which word stands where.

A picture of text gives a contrastive loss one bit of news per page; here every 32 x 32 cell of a page is asked for the
tokens that lie on it, in the very table the decoder reads (``embed_tokens``), and every 16 x 16 patch for its letters.
So the tower's output for a word comes to lie where the word itself lies, and the decoder need not be told twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.model.vl import QwenVL
from sightline.prep.patches import Grid, image_patches
from sightline.prep.tokens import Tokenizer
from sightline.train.drawing import Page, draw_page

LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-&%$/@#+*=<>[]_"
"""Classes of the letter head; one more stands for all others and one for nothing."""
OTHER: Final = len(LETTERS)
NOTHING: Final = OTHER + 1
NUM_LETTERS: Final = OTHER + 2
LETTER_INDEX: Final = {letter: index for index, letter in enumerate(LETTERS)}
EASY: Final = 0.5
"""Share of the stage that shows plain pages of one size of letters."""
SETTLED_NORM: Final = 4.3
"""Mean length of a word's row when the decoder begins to learn: about that of the tower's output then."""
BLANK_SHARE: Final = 0.1
"""Share of the empty cells that are asked for too."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Sparse soft labels: row, class, weight; the weights of one row sum to 1."""

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, triples: dict[tuple[int, int], float]) -> Targets:
        """Normalises sums collected by (row, class)."""
        totals: dict[int, float] = {}
        for (row, _), weight in triples.items():
            totals[row] = totals.get(row, 0.0) + weight
        rows = np.fromiter((row for row, _ in triples), np.int64, len(triples))
        classes = np.fromiter((c for _, c in triples), np.int64, len(triples))
        weights = np.fromiter((w / totals[row] for (row, _), w in triples.items()), np.float32, len(triples))
        return cls(rows, classes, weights)

    @staticmethod
    def joined(parts: Sequence[tuple[Targets, int]]) -> Targets:
        """Targets of several pictures, rows shifted by what stood before each."""
        return Targets(
            np.concatenate([part.rows + shift for part, shift in parts]),
            np.concatenate([part.classes for part, _ in parts]),
            np.concatenate([part.weights for part, _ in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ReadingBatch:
    """Pages of equal size with what stands on them."""

    patches: NDArray[np.uint8]
    grids: list[Grid]
    tokens: Targets
    letters: Targets


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


def targets(page: Page, speller: Speller, rng: random.Random) -> tuple[Targets, Targets]:
    """(tokens of the cells, letters of the patches) of one page; both in the order the vision tower gives."""
    height, width = page.pixels.shape[:2]
    rows, columns = height // 32, width // 32
    tokens: dict[tuple[int, int], float] = {}
    letters: dict[tuple[int, int], float] = {}
    for word in page.words:
        across = word.right - word.left
        if not word.text or across <= 0:
            continue
        for token, begin, end in speller.spell(word.text):
            left, right = word.left + begin * across, word.left + end * across
            for row, high in _overlaps(word.top, word.bottom, 32, rows):
                for column, wide in _overlaps(left, right, 32, columns):
                    if high * wide > 16:
                        key = (row * columns + column, token)
                        tokens[key] = tokens.get(key, 0.0) + high * wide
        step = across / len(word.text)
        for index, letter in enumerate(word.text):
            column = int((word.left + (index + 0.5) * step) // 16)
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
    return Targets.of(tokens), Targets.of(letters)


def _overlaps(low: float, high: float, side: int, count: int) -> list[tuple[int, float]]:
    """(index, pixels) of the cells that an interval touches."""
    first, last = max(0, int(low // side)), min(count - 1, int(high // side))
    return [(i, min(high, (i + 1) * side) - max(low, i * side)) for i in range(first, last + 1)]


SIZES: Final[tuple[tuple[int, int, int], ...]] = (
    # width, height, pages in a batch of 12,288 patches
    (256, 256, 48),
    (256, 256, 48),
    (256, 256, 48),
    (128, 128, 192),
    (192, 64, 256),
    (384, 64, 128),
    (768, 64, 64),
    (384, 256, 32),
    (224, 320, 42),
    (384, 512, 16),
    (128, 768, 32),
)


def reading_batch(
    rng: random.Random, sentences: Sequence[str], words: Sequence[str], speller: Speller, progress: float, scale: float
) -> ReadingBatch:
    """Draws one batch; early ones are of larger letters.

    Args:
        rng: decides everything.
        sentences, words: what to write.
        speller: for the labels.
        progress: 0 to 1 through the stage.
        scale: of the number of pages.
    """
    if progress < EASY:
        width, height, count = rng.choice(((128, 128, 192), (256, 128, 96), (192, 64, 256)))
    else:
        width, height, count = rng.choice(SIZES)
    count = max(2, round(count * scale))
    # letters of 18 to 22 pixels first, then smaller and larger ones
    wider = min(1.0, max(0.0, (progress - EASY) / 0.3))
    least, most = 18 - round(7 * wider), 22 + round(8 * wider)
    parts_tokens, parts_letters, patches, grids = [], [], [], []
    cells = 0
    for _ in range(count):
        plain = rng.random() < 1 - 0.6 * wider
        texts = page_texts(rng, sentences, words, width, height)
        page = draw_page(rng, texts, width, height, size=(least, most), plain=plain)
        tokens, letters = targets(page, speller, rng)
        parts_tokens.append((tokens, cells))
        parts_letters.append((letters, 4 * cells))
        rows, grid = image_patches(page.pixels)
        patches.append(rows)
        grids.append(grid)
        cells += len(rows) // 4
    return ReadingBatch(np.concatenate(patches), grids, Targets.joined(parts_tokens), Targets.joined(parts_letters))


def page_texts(
    rng: random.Random, sentences: Sequence[str], words: Sequence[str], width: int, height: int
) -> list[str]:
    """Enough text for a page: sentences, lists of rare words, numbers, capitals."""
    area = width * height
    texts = []
    for _ in range(max(1, area // 9000)):
        kind = rng.random()
        if kind < 0.72:
            text = rng.choice(sentences)
        elif kind < 0.9:
            text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 6)))
        else:
            text = f"{rng.choice(words)} {number(rng)} {rng.choice(words)} {number(rng)}"
        if area <= 64 * 192:
            text = " ".join(text.split()[: rng.randint(1, 5)])
        case = rng.random()
        texts.append(text.upper() if case < 0.06 else text.title() if case < 0.12 else text)
    return texts


def number(rng: random.Random) -> str:
    """An amount, a date, a year, a count."""
    return rng.choice(
        (
            f"{rng.randint(0, 9999)}",
            f"${rng.randint(0, 999)}.{rng.randint(0, 99):02d}",
            f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.{rng.randint(1990, 2030)}",
            f"{rng.randint(1, 100)}%",
            f"{rng.randint(1900, 2030)}",
        )
    )


class Readable:
    """The tokens that stand on pages, the classes of the cells.

    The other rows of the table are left alone: a softmax over them would push every one of them the same way, the
    pooled token's row among them, until all prompts end in the same vector.

    Args:
        speller: knows the tokens of words.
        sentences: what is written on pages.
        vocab_size: rows of the table.
    """

    def __init__(self, speller: Speller, sentences: Sequence[str], vocab_size: int) -> None:
        words = {word for sentence in sentences for word in sentence.split()}
        found = {token for word in words for token, _, _ in speller.spell(word)} | {speller.blank}
        self.ids = torch.tensor(sorted(found))
        self.place = torch.full((vocab_size,), -1)
        self.place[self.ids] = torch.arange(len(self.ids))

    def labels(self, targets: Targets) -> Targets:
        """Labels by place among the readable tokens; the others are dropped."""
        classes = self.place.numpy()[targets.classes]
        known = classes >= 0
        return Targets(targets.rows[known], classes[known], targets.weights[known])

    @torch.no_grad()
    def settle(self, model: QwenVL, seed: int) -> None:
        """Makes a model that has learned to read ready for the decoder.

        The readable rows are centred, which changes no probability; the tower's output is made smaller and the rows
        larger by the same factor, so that words and pictures of words come into the decoder alike; the other rows are
        drawn anew at that size; DeepStack, which reading does not train, starts quiet.
        """
        table, visual = model.language_model.embed_tokens.weight, model.visual
        rows = table[self.ids] - table[self.ids].mean(0)
        table.normal_(0.0, SETTLED_NORM / table.shape[1] ** 0.5, generator=torch.Generator().manual_seed(seed))
        factor = SETTLED_NORM / float(rows.norm(dim=1).mean())
        table[self.ids] = rows * factor
        visual.merger.linear_fc2.weight.div_(factor)
        visual.merger.linear_fc2.bias.div_(factor)
        for merger in visual.deepstack_merger_list:
            merger.linear_fc2.weight *= 0.1  # type: ignore[union-attr, operator]


class LetterHead(nn.Module):
    """Letters of a patch from the tower's last hidden state; dropped after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, NUM_LETTERS)

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P, NUM_LETTERS)."""
        return self.linear(self.norm(x))  # type: ignore[no-any-return]


def soft_cross_entropy(logits: Tensor, labels: Targets, *, first: Tensor | None = None) -> Tensor:
    """Mean over labelled rows of the cross-entropy with their soft labels.

    Args:
        logits: (R, classes), or one row for each labelled row when ``first`` is given.
        labels: sparse soft labels.
        first: (L,) for each label, the row of ``logits`` it belongs to; None takes the label's own row.
    """
    rows = torch.from_numpy(labels.rows) if first is None else first
    logs = F.log_softmax(logits.float(), -1)
    picked = logs[rows, torch.from_numpy(labels.classes)]
    weights = torch.from_numpy(labels.weights)
    return -(picked * weights).sum() / weights.sum()


def reading_loss(
    model: QwenVL, head: LetterHead, batch: ReadingBatch, readable: Readable
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of tokens in cells plus that of letters in patches, and how often the best guess is right."""
    hidden: list[Tensor] = []
    hook = model.visual.merger.register_forward_pre_hook(lambda _module, args: hidden.append(args[0]))
    try:
        features = model.vision_features([torch.from_numpy(batch.patches)], _as_one(batch.grids))
    finally:
        hook.remove()
    token_loss, letter_loss, token_hit = labelled_losses(
        model, head, features[0], hidden[0], batch.tokens, batch.letters, readable
    )
    # DeepStack is not asked here, so it learns only in the stages after this one
    return token_loss + letter_loss, {
        "token_loss": token_loss.item(),
        "letter_loss": letter_loss.item(),
        "token_hit": token_hit,
    }


def labelled_losses(
    model: QwenVL,
    head: LetterHead,
    features: Tensor,
    hidden: Tensor,
    tokens: Targets,
    letters: Targets,
    readable: Readable,
) -> tuple[Tensor, Tensor, float]:
    """(token loss, letter loss, share of cells whose best guess is one of their tokens).

    Args:
        model: its table is the classifier of the cells.
        head: classifier of the patches.
        features: (M, C) of the cells.
        hidden: (P, Vh) of the patches, before they are merged.
        tokens, letters: labels.
        readable: classes of the cells.
    """
    tokens = readable.labels(tokens)
    cells, first = np.unique(tokens.rows, return_inverse=True)
    asked = features[torch.from_numpy(cells)]
    token_logits = F.linear(asked, model.language_model.embed_tokens.weight[readable.ids])
    token_loss = soft_cross_entropy(token_logits, tokens, first=torch.from_numpy(first))
    letter_loss = soft_cross_entropy(head(hidden), letters)
    return token_loss, letter_loss, hit_rate(token_logits, tokens, first)


@torch.no_grad()
def hit_rate(logits: Tensor, labels: Targets, rows: NDArray[np.int64]) -> float:
    """Share of labelled rows whose best guess is one of their labels."""
    best = logits.argmax(-1).numpy()
    right = set(rows[labels.classes == best[rows]].tolist())
    return len(right) / max(1, len(np.unique(rows)))


def _as_one(grids: Sequence[Grid]) -> list[Grid]:
    """Equal pictures as the times of one visual: the tower sees the same segments and loops less."""
    times, rows, columns = grids[0]
    assert all(grid == grids[0] for grid in grids)
    return [(times * len(grids), rows, columns)]
