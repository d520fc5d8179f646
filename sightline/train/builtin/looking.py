"""The second stage: the vision tower learns to say which word stands, or which thing lies, in a cell of a picture.

A contrastive loss has one bit of news for a picture; here every 32 x 32 cell is asked for its words, in the rows that
the first stage learned (``words.py``): the words written on it, the name of the shape drawn on it, the name of the
emoji, icon or photograph that it is a part of. What the tower says for a thing then lies where the thing's word lies,
and the decoder need not be told twice. Every cell of a page is asked for its letters and pairs of letters besides, in
their own directions (``spelling.py``), and every 16 x 16 patch for its letters; and the vector of a cell is to be the
spelled part of the tokens that lie in it, so that all cells of a page come to how its text is spelled. A picture of one
thing is asked for it as a whole, too, among all things there are: a cell of a sleeve knows no shirt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sightline.model.vl import QwenVL
from sightline.prep.patches import Grid, image_patches
from sightline.prep.tokens import Tokenizer
from sightline.train.builtin import drawing
from sightline.train.builtin.corpus import Corpus
from sightline.train.builtin.drawing import Page, Word
from sightline.train.builtin.labels import NUM_LETTERS, Labelled, Speller, Targets, Things, shares_of, targets
from sightline.train.builtin.spelling import directions
from sightline.train.builtin.tasks import (
    FILLERS,
    SMALLER_SHEETS,
    Maker,
    augment_drawing,
    augment_photo,
    coarse,
    page_texts,
    sheet_rows,
    some,
    some_heading,
)
from sightline.train.builtin.words import Bags

SHARES: Final = {"page": 0.52, "scene": 0.04, "emoji": 0.2, "photo": 0.2, "other": 0.04}
"""Of the patches of every step. A step of one kind alone would undo what the step before it did for another: mixed,
scenes are read within minutes that stay at chance when kinds take turns (docs/model-card.md)."""
OTHER: Final = ("chart", "chart", "icon")
"""What ``other`` is, in turn."""
WEIGHTS: Final = {"page": 0.4, "scene": 0.5, "emoji": 0.7, "photo": 0.5, "chart": 0.3, "icon": 0.3}
"""Of the losses of the cells of each kind; that of the grams has 1, as has that of the things."""
SCALE: Final = 8.0
"""Of the cosines with the unit rows: the tower sets the rest by the length of what it gives."""
SPELLED_LENGTH: Final = 11.0
"""Of the spelled part of a token in the vectors of its cells, the median of all tokens: a cell of text holds parts of
two or three and comes to about 5."""
SUMMED: Final = 4.0
"""Weight of what the vectors of cells are from what they are told, against all that this varies."""
BLENDED: Final = 0.5
"""Share of the photographs that are laid over another: there are few to learn from."""
SMOOTHED: Final = 0.05
"""Of the labels of things."""
OTHERS: Final = 2500
"""Words that every cell is told apart from, besides those of the batch."""
RULED: Final = 0.1
"""Share of the stage in which pages are ruled."""
PLAIN: Final = 0.4
"""Share until which they are plain, in letters of 18 to 22 pixels."""

SHEET_SHARE: Final = 0.3
"""Share of the steps, once pages are no more plain, whose pages are receipts, timetables and forms."""

SIZES: Final = ((256, 256), (256, 256), (128, 128), (192, 64), (384, 64), (384, 256), (224, 320), (384, 512))


Pictures: TypeAlias = tuple[list[Page], Things | None]
"""Pictures of one kind and size, and what they show where that is one thing each."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Pictures of every kind, those of one kind of one size, with what is on them.

    Attributes:
        parts: by kind.
        others: (OTHERS,) numbers in [0, 1) that choose the words every cell is told apart from.
    """

    parts: dict[str, Labelled]
    others: NDArray[np.float32]


class Looker:
    """Draws the batches."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int, steps: int, factor: float) -> None:
        self.maker = Maker(corpus)
        self.corpus = corpus
        self.speller = Speller(tokenizer)
        self.seed, self.steps, self.factor = seed, steps, factor
        self.places = {thing: place for place, thing in enumerate(self.maker.things)}
        self.emoji_named = [row for row in self.maker.emoji_english if row.q_image in self.places]
        self.groceries = [row for row in self.maker.rows["grocery"] if coarse(row)]

    def __call__(self, step: int) -> Look:
        """The batch of a step; pages grow harder with the steps."""
        rng = random.Random(f"{self.seed}-looking-{step}")
        progress = step / self.steps
        parts = {}
        for name, share in SHARES.items():
            patches = share * self.factor
            kind = rng.choice(OTHER) if name == "other" else name
            pages, things = getattr(self, kind)(rng, progress, patches)
            parts[kind] = labelled(pages, self.speller, rng, letters=kind in ("page", "chart"), things=things)
        others = np.random.default_rng((self.seed, step)).random(OTHERS, np.float32)
        return Look(parts, others)

    def page(self, rng: random.Random, progress: float, patches: float) -> Pictures:
        """Pages and lines of text."""
        ruled = progress < RULED
        if progress < PLAIN:
            width, height = rng.choice(((256, 128), (128, 128), (256, 64)))
        else:
            width, height = rng.choice(SIZES)
        wider = min(1.0, max(0.0, (progress - PLAIN) / 0.25))
        least, most = (20, 20) if ruled else (18 - round(5 * wider), 22 + round(5 * wider))
        pages = []
        if progress >= PLAIN + 0.25 and rng.random() < SHEET_SHARE:
            width, height = rng.choice(SMALLER_SHEETS)
            for _ in range(_count(width, height, patches)):
                heading = some_heading(rng, self.maker.words)
                rows = sheet_rows(rng, self.maker.sentences, self.maker.words)
                pages.append(drawing.draw_sheet(rng, heading, rows, width, height, size=(12, 26)))
            return pages, None
        for _ in range(_count(width, height, patches)):
            texts = page_texts(rng, self.maker.sentences, self.maker.words, width, height)
            plain = rng.random() < 1 - 0.5 * wider
            heading = some_heading(rng, self.maker.words) if progress >= PLAIN and height >= 128 else ""
            pages.append(
                drawing.draw_page(
                    rng, texts, width, height, size=(least, most), heading=heading, plain=plain, ruled=ruled
                )
            )
        return pages, None

    def scene(self, rng: random.Random, progress: float, patches: float) -> Pictures:
        """Shapes."""
        side = rng.choice((96, 128, 128))
        count = _count(side, side, patches)
        drawn = (partial(drawing.scene_page, rng, drawing.random_scene(rng)) for _ in range(count))
        return [drawing.of_any_size(rng, draw, side, side) for draw in drawn], None

    def emoji(self, rng: random.Random, progress: float, patches: float) -> Pictures:
        """Emoji by their English names and keywords."""
        side = rng.choice((64, 96, 96, 128))
        pages, places = [], []
        for row in some(rng, self.emoji_named, _count(side, side, patches)):
            pixels = augment_drawing(rng, self.corpus.picture(row.q_image), side)
            pages.append(_named(pixels, row.d_text))
            places.append(self.places[row.q_image])
        return pages, things_of(places)

    def icon(self, rng: random.Random, progress: float, patches: float) -> Pictures:
        """Line icons by name and tags."""
        side = rng.choice((64, 96))
        rows = some(rng, self.maker.rows["lucide"], _count(side, side, patches))
        return [_named(augment_drawing(rng, self.corpus.picture(row.q_image), side), row.d_text) for row in rows], None

    def photo(self, rng: random.Random, progress: float, patches: float) -> Pictures:
        """Garments and groceries by class, some of them laid over another."""
        width, height = rng.choice(((64, 64), (96, 96), (96, 128), (96, 128), (128, 96), (128, 128)))
        garments = self.maker.rows["clothing"]
        count = _count(width, height, patches)
        pages, places = [], []
        for row in [*some(rng, garments, count / 2), *some(rng, self.groceries, count / 2)]:
            image = augment_photo(rng, self.corpus.picture(row.q_image))
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            # the class in brackets counts twice: it is what people ask for
            name = row.d_text.replace("-", " ").replace("(", " ").replace(")", " ")
            name += " " + name.split()[-1] if row.src == "grocery" else ""
            pages.append(_named(np.asarray(image, np.uint8), name.replace("longsleeve", "long sleeve shirt")))
            places.append(self.places[coarse(row)])
        return blended(rng, pages, places)

    def chart(self, rng: random.Random, progress: float, patches: float) -> Pictures:
        """Charts: the words of the title and, on the plot, the kind and the trend."""
        width, height = rng.choice(((192, 160), (256, 160), (224, 192)))
        pages = []
        for _ in range(_count(width, height, patches)):
            chart = drawing.random_chart(rng)
            page = drawing.of_any_size(rng, partial(drawing.framed_chart, rng, chart), width, height)
            plot = Word(f"{chart.kind} chart {chart.trend}", 0, height * 0.25, width, height, whole=True)
            pages.append(Page(page.pixels, (*page.words, plot)))
        return pages, None


def things_of(places: Sequence[int]) -> Things:
    """Of pictures that are no blends."""
    first = np.asarray(places, np.int64)
    return Things(first, first, np.ones(len(first), np.float32))


def blended(rng: random.Random, pages: Sequence[Page], places: Sequence[int]) -> Pictures:
    """Some of the pictures laid over others, the fainter of the two at most at half (mixup, Zhang et al. 2018).

    What is written or lies in the cells stays that of the stronger one.
    """
    others = rng.sample(range(len(pages)), len(pages))
    shares = [max(share := rng.betavariate(0.4, 0.4), 1 - share) if rng.random() < BLENDED else 1.0 for _ in pages]
    out = []
    for page, other, share in zip(pages, others, shares, strict=True):
        pixels = share * page.pixels + (1 - share) * pages[other].pixels
        out.append(Page(np.round(pixels).astype(np.uint8), page.words))
    first = np.asarray(places, np.int64)
    return out, Things(first, first[others], np.asarray(shares, np.float32))


def _count(width: int, height: int, patches: float) -> int:
    return max(2, int(patches) * 256 // (width * height))


def _named(pixels: NDArray[np.uint8], name: str) -> Page:
    """A picture whose every cell is a part of one thing."""
    words = [word for word in name.replace(",", " ").replace(":", " ").lower().split() if word not in FILLERS]
    height, width = pixels.shape[:2]
    return Page(pixels, (Word(" ".join(words or [name]), 0, 0, width, height, whole=True),))


def labelled(
    pages: Sequence[Page], speller: Speller, rng: random.Random, *, letters: bool, things: Things | None = None
) -> Labelled:
    """Patches and labels of pictures of one size."""
    parts_tokens, parts_letters, parts_grams, parts_shares, patches, grids = [], [], [], [], [], []
    cells = 0
    for page in pages:
        tokens, spelled, pairs = targets(page, speller, rng)
        parts_tokens.append((tokens, cells))
        parts_letters.append((spelled, 4 * cells))
        parts_grams.append((pairs, cells))
        if letters:
            parts_shares.append((shares_of(page, speller), cells))
        rows, grid = image_patches(page.pixels)
        patches.append(rows)
        grids.append(grid)
        cells += len(rows) // 4
    return Labelled(
        patches=np.concatenate(patches),
        grids=grids,
        tokens=Targets.joined(parts_tokens),
        letters=Targets.joined(parts_letters if letters else []),
        grams=Targets.joined(parts_grams if letters else []),
        shares=Targets.joined(parts_shares if letters else []),
        things=things,
    )


@dataclass(frozen=True, slots=True)
class Looking:
    """Picklable source of batches."""

    data: Path
    tokenizer: Path
    seed: int
    steps: int
    patches: int

    def __call__(self) -> Looker:
        """Loads the corpus; called in the process that makes batches."""
        return Looker(Corpus(self.data), Tokenizer(self.tokenizer), self.seed, self.steps, self.patches)


class WordHead(nn.Module):
    """Words of a cell: cosines with the unit rows of the first stage, and how often each word is met at all.

    Args:
        rows: (V, E) rows of the first stage; they stay as they are.
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(rows.detach(), dim=-1), persistent=False)
        self.bias = nn.Parameter(torch.zeros(len(rows)))

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """(M, E) features and (W,) token ids -> (M, W) logits."""
        rows: Tensor = self.rows  # type: ignore[assignment]
        return F.linear(SCALE * features, rows[words]).float() + self.bias[words]


class GramHead(nn.Module):
    """Letters and pairs of letters of a cell: cosines with their directions, and how often each is met at all.

    Args:
        width: of the features.
    """

    rows: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", directions(width), persistent=False)
        self.none = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(len(self.rows) + 1))

    def forward(self, features: Tensor) -> Tensor:
        """(M, E) -> (M, GRAMS + 1) logits, the last for no letter."""
        rows = torch.cat([self.rows, F.normalize(self.none, dim=0)[None]])
        return F.linear(SCALE * features, rows).float() + self.bias


class ThingHead(nn.Module):
    """What a picture shows, by the mean of its cells.

    Args:
        rows: (T, E) unit vectors of what the things are called, where the learned ones begin.
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.detach().clone())
        self.bias = nn.Parameter(torch.zeros(len(rows)))

    def forward(self, features: Tensor) -> Tensor:
        """(N, E) -> (N, T) logits."""
        return F.linear(SCALE * features, self.rows).float() + self.bias


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
    picked = logs[rows.to(logs.device), torch.from_numpy(labels.classes).to(logs.device)]
    weights = torch.from_numpy(labels.weights).to(logs.device)
    return -(picked * weights).sum() / weights.sum()


@torch.no_grad()
def hit_rate(logits: Tensor, labels: Targets, rows: NDArray[np.int64]) -> float:
    """Share of labelled rows whose best guess is one of their labels."""
    best = logits.argmax(-1).cpu().numpy()
    right = set(rows[labels.classes == best[rows]].tolist())
    return len(right) / max(1, len(np.unique(rows)))


def _as_one(grids: Sequence[Grid]) -> list[Grid]:
    """Equal pictures as the times of one visual: the tower sees the same segments and loops less."""
    times, rows, columns = grids[0]
    assert all(grid == grids[0] for grid in grids)
    return [(times * len(grids), rows, columns)]


class Heads(nn.Module):
    """What the features are asked with; dropped after training.

    Args:
        hidden: width of the tower.
        bags: the first stage.
        things: (T, E) unit vectors of what the things are called.
    """

    table: Tensor

    def __init__(self, hidden: int, bags: Bags, things: Tensor) -> None:
        super().__init__()
        rows = bags.rows.weight
        self.letters = LetterHead(hidden)
        self.words = WordHead(rows)
        self.grams = GramHead(rows.shape[1])
        self.things = ThingHead(things)
        spelled = bags.spelled * bags.weights.weight.detach().exp()
        lengths = spelled.norm(dim=1, keepdim=True)
        has_letters = lengths > 0
        longer = SPELLED_LENGTH / (lengths[has_letters].median() if has_letters.any() else 1.0)
        # what has none, as an empty cell, keeps a row of its own
        table = torch.where(has_letters, spelled * longer, SPELLED_LENGTH * F.normalize(rows.detach(), dim=1))
        self.register_buffer("table", table, persistent=False)

    def told(self, shares: Targets, num_cells: int) -> Tensor:
        """(M, E) the rows of the tokens of each cell, by their shares."""
        rows, tokens, weights = (
            torch.from_numpy(part).to(self.table.device) for part in (shares.rows, shares.classes, shares.weights)
        )
        parts = self.table[tokens] * weights[:, None]
        return parts.new_zeros(num_cells, parts.shape[1]).index_add_(0, rows, parts)


def from_told(seen: Tensor, told: Tensor, pictures: int) -> Tensor:
    """What the vectors of cells (M, E) are from those told, of all that these vary, and one less the cosine of the sums
    over each of the pictures.
    """
    apart = (seen - told).square().sum() / (told - told.mean(0)).square().sum().clamp_min(1e-6)
    ours, theirs = (x.reshape(pictures, -1, x.shape[1]).sum(1) for x in (seen, told))
    return SUMMED * apart + (1 - F.cosine_similarity(ours, theirs, dim=-1)).mean()


def things_loss(head: ThingHead, means: Tensor, things: Things) -> tuple[Tensor, float]:
    """Cross-entropy of what pictures show, by the means (N, E) of their cells; how often the best guess is right."""
    said = head(means)
    first, second, share = (torch.from_numpy(x).to(said.device) for x in (things.first, things.second, things.share))
    loss = share * F.cross_entropy(said, first, reduction="none", label_smoothing=SMOOTHED)
    loss = loss + (1 - share) * F.cross_entropy(said, second, reduction="none", label_smoothing=SMOOTHED)
    return loss.mean(), float((said.argmax(1) == first).float().mean())


def looking_loss(model: QwenVL, heads: Heads, look: Look) -> tuple[Tensor, dict[str, float]]:
    """What cells are asked for, and whole pictures; with how often the best guess is right."""
    word_head, gram_head = heads.words, heads.grams
    parts, device = look.parts, word_head.bias.device
    hidden: list[Tensor] = []
    hook = model.visual.merger.register_forward_pre_hook(lambda _module, args: hidden.append(args[0]))
    try:
        features = model.vision_features(
            [torch.from_numpy(part.patches).to(device) for part in parts.values()],
            [grid for part in parts.values() for grid in _as_one(part.grids)],
        )[0]
    finally:
        hook.remove()
    sizes = [len(part.patches) for part in parts.values()]
    others = (look.others * len(word_head.bias)).astype(np.int64)
    total = features.new_zeros(())
    figures: dict[str, float] = {}
    cells_of = torch.split(features, [size // 4 for size in sizes])
    for (kind, part), seen, patches in zip(parts.items(), cells_of, torch.split(hidden[0], sizes), strict=True):
        labels = part.tokens
        words, places = np.unique(np.concatenate([labels.classes, others]), return_inverse=True)
        cells, first = np.unique(labels.rows, return_inverse=True)
        logits = word_head(seen[torch.from_numpy(cells).to(device)], torch.from_numpy(words).to(device))
        labels = Targets(labels.rows, places[: len(labels.classes)], labels.weights)
        loss = soft_cross_entropy(logits, labels, first=torch.from_numpy(first).to(device))
        figures |= {kind: hit_rate(logits, labels, first), f"{kind}_loss": loss.item()}
        figures["accuracy"] = figures.get("accuracy", 0.0) + figures[kind] / len(parts)
        if len(part.letters.rows):
            letters = soft_cross_entropy(heads.letters(patches), part.letters)
            figures[f"{kind}_letters"] = letters.item()
            loss = loss + letters
        total = total + WEIGHTS[kind] * loss
        if len(part.grams.rows):
            said = gram_head(seen)
            grams = soft_cross_entropy(said, part.grams)
            figures |= {f"{kind}_grams": grams.item(), f"{kind}_spelled": hit_rate(said, part.grams, part.grams.rows)}
            summed = from_told(seen.float(), heads.told(part.shares, len(seen)), len(part.grids))
            figures[f"{kind}_summed"] = summed.item()
            total = total + grams + summed
        if part.things is not None:
            means = seen.reshape(len(part.grids), -1, seen.shape[1]).mean(1)
            shown, figures[f"{kind}_things"] = things_loss(heads.things, means, part.things)
            total = total + shown
    return total, figures
