"""The first stage: what words mean, learned by bags of words.

A bag is the sum of its tokens' rows, each with a weight of its own: a model of one table that reads a million pairs in
a minute. It finds translations and definitions that a decoder needs hours for on a CPU. So the decoder begins with its
rows (``embed_tokens``) and learns to give its vectors (``imitation.py``), and the vision tower learns to say its words
(``looking.py``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.prep.tokens import Tokenizer
from sightline.train.builtin.corpus import Corpus, Row
from sightline.train.losses import cosines, info_nce, right_share

Ids = NDArray[np.int64]

SHARES: Final = {"tatoeba": 0.3, "wordnet": 0.2, "wordnet-ex": 0.06, "banking77": 0.04, "emoji": 0.2, "half": 0.2}
"""Of the steps."""
TEMPERATURE: Final = 0.05
DROPPED: Final = 0.15
"""Share of tokens left out of a bag, so that no single one decides."""
MAX_TOKENS: Final = 64


class Bags(nn.Module):
    """Token rows (V, E) and the logarithm of their weights (V, 1).

    Args:
        vocab_size, width: V and E.
        seed: of the first rows.
        spelled: (V, E) what is added to the rows and not learned; None adds nothing.
    """

    spelled: Tensor

    def __init__(self, vocab_size: int, width: int, seed: int, spelled: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("spelled", torch.zeros(vocab_size, width) if spelled is None else spelled)
        self.rows = nn.EmbeddingBag(vocab_size, width, mode="sum")
        self.weights = nn.Embedding(vocab_size, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.rows.weight.normal_(0.0, width**-0.5, generator=generator)
            self.weights.weight.zero_()

    def forward(self, texts: Sequence[Ids]) -> Tensor:
        """Unit vectors (N, E) of N token lists, none empty."""
        device = self.rows.weight.device
        ids = torch.from_numpy(np.concatenate(texts)).to(device)
        starts = torch.tensor([0, *(len(text) for text in texts[:-1])]).cumsum(0).to(device)
        weights = self.weights(ids)[:, 0].exp()
        bags = self.rows(ids, starts, per_sample_weights=weights)
        bags = bags + F.embedding_bag(ids, self.spelled, starts, mode="sum", per_sample_weights=weights)
        return F.normalize(bags, dim=-1)

    def table(self) -> Tensor:
        """(V, E) rows with how they are spelled."""
        return self.rows.weight + self.spelled


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Texts that belong together, as tokens; ``keys`` are equal where two pairs have the same second text."""

    name: str
    first: list[Ids]
    second: list[Ids]
    keys: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)


def emoji_pairs(rows: Sequence[Row], rng: random.Random) -> list[tuple[str, str]]:
    """Names and keywords of one picture in two languages, English on the second side."""
    english: dict[str, list[str]] = {}
    for row in rows:
        if row.lang == "en":
            english.setdefault(row.q_image, []).append(row.d_text)
    return [(row.d_text, rng.choice(english[row.q_image])) for row in rows if row.q_image in english]


@dataclass(frozen=True, slots=True, eq=False)
class PairsOfBags:
    """A step: token lists, the first of each pair and the second."""

    task: str
    first: list[Ids]
    second: list[Ids]


class Sources:
    """All pairs of the corpus as tokens."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(f"{seed}-words")
        rows = corpus.train
        self.sentences = [self._ids(text) for text in corpus.sentences]
        self.pairs = {
            name: self._encoded(name, [(row.q_text, row.d_text) for row in rows[name]])
            for name in ("tatoeba", "wordnet", "wordnet-ex", "banking77")
        }
        emoji = emoji_pairs([*rows["emoji-name"], *rows["emoji-keywords"]], self._rng)
        emoji += [(row.q_text, row.d_text) for row in rows["emoji-xling"]]
        self.pairs["emoji"] = self._encoded("emoji", emoji)

    def _ids(self, text: str) -> Ids:
        # as the text stands in a sentence, after a space; the prompt's own line break takes the space away
        return np.asarray(self._tokenizer.encode(text)[:MAX_TOKENS], np.int64)

    def _encoded(self, name: str, pairs: Sequence[tuple[str, str]]) -> Pairs:
        places: dict[str, int] = {}
        keys = [places.setdefault(second, len(places)) for _, second in pairs]
        first, second = [self._ids(a) for a, _ in pairs], [self._ids(b) for _, b in pairs]
        return Pairs(name, first, second, np.asarray(keys, np.int64))

    def batch(self, rng: np.random.Generator, size: int) -> PairsOfBags:
        """Pairs of one task."""
        names, shares = [*SHARES], np.asarray([*SHARES.values()])
        name = names[rng.choice(len(names), p=shares / shares.sum())]
        if name == "half":
            chosen = [self.sentences[i] for i in rng.integers(0, len(self.sentences), size)]
            return PairsOfBags(name, [_some(rng, ids, 0.5) for ids in chosen], chosen)
        pairs = self.pairs[name]
        # one of each answer, or a batch of 77 intents would be full of equal answers
        index = rng.permutation(len(pairs))[: 4 * size]
        _, once = np.unique(pairs.keys[index], return_index=True)
        index = index[np.sort(once)][:size]
        return PairsOfBags(
            name,
            [_some(rng, pairs.first[i], DROPPED) for i in index],
            [_some(rng, pairs.second[i], DROPPED) for i in index],
        )


@dataclass(frozen=True, slots=True)
class Bagging:
    """Picklable source of batches."""

    data: Path
    tokenizer: Path
    seed: int
    size: int

    def __call__(self) -> Callable[[int], PairsOfBags]:
        """Loads the corpus; called in the process that makes batches."""
        sources = Sources(Corpus(self.data), Tokenizer(self.tokenizer), self.seed)
        return lambda step: sources.batch(np.random.default_rng((self.seed, step)), self.size)


def _some(rng: np.random.Generator, ids: Ids, dropped: float) -> Ids:
    """The tokens less a share of them; at least one stays."""
    if len(ids) < 3:
        return ids
    kept = ids[rng.random(len(ids)) >= dropped]
    return kept if len(kept) else ids


def words_step(bags: Bags, batch: PairsOfBags) -> tuple[Tensor, dict[str, float]]:
    """InfoNCE of the batch, in float32."""
    with torch.autocast(bags.rows.weight.device.type, enabled=False):
        first, second = bags(batch.first), bags(batch.second)
        loss = info_nce(first, second, temperature=TEMPERATURE, margin=None)
        return loss, {"accuracy": float(right_share(cosines(first, second)))}
