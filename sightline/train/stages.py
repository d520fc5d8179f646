"""The batches of each stage, drawn and encoded in a process of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.prep.tokens import Tokenizer
from sightline.train.data import Corpus
from sightline.train.loop import MakeBatch
from sightline.train.packing import Pack, Side, embedding_pack, reranking_pack
from sightline.train.reading import ReadingBatch, Speller, Targets, reading_batch, targets
from sightline.train.tasks import Batch, Example, Maker, keys_equal


def lemmas(corpus: Corpus) -> list[str]:
    """Words of the training dictionary, to write where any word will do."""
    return sorted({word for row in corpus.train["wordnet"] for word in row.q_text.split(", ")})


@dataclass(frozen=True, slots=True)
class Reading:
    """Batches of the reading stage."""

    data: Path
    tokenizer: Path
    seed: int
    scale: float

    def __call__(self) -> MakeBatch:
        """Loads the texts; called in the drawing process."""
        corpus = Corpus(self.data)
        speller = Speller(Tokenizer(self.tokenizer))
        words, sentences = lemmas(corpus), corpus.sentences

        def make(step: int, progress: float) -> ReadingBatch:
            rng = random.Random(f"{self.seed}-reading-{step}")
            return reading_batch(rng, sentences, words, speller, progress, self.scale)

        return make


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A batch of pairs as the embedder takes it.

    Attributes:
        task: its name.
        queries, documents: packed prompts; the documents' rows from ``same.shape[0]`` on are hard negatives.
        same: (N, M) bool, see ``losses.info_nce``.
        tokens, letters: reading targets of the documents' pictures, or None.
    """

    task: str
    queries: Pack
    documents: Pack
    same: NDArray[np.bool_]
    tokens: Targets | None
    letters: Targets | None


def encode(batch: Batch, tokenizer: Tokenizer, speller: Speller, rng: random.Random) -> Encoded:
    """Prompts of both sides, and what is written on the pages."""
    examples = batch.examples
    negatives = [negative for example in examples for negative in example.negatives]
    documents = [example.document for example in examples] + negatives
    tokens = letters = None
    if examples[0].page is not None and not negatives:
        parts_tokens, parts_letters, cells = [], [], 0
        for example in examples:
            assert example.page is not None
            one, other = targets(example.page, speller, rng)
            parts_tokens.append((one, cells))
            parts_letters.append((other, 4 * cells))
            cells += example.page.pixels.shape[0] * example.page.pixels.shape[1] // 1024
        tokens, letters = Targets.joined(parts_tokens), Targets.joined(parts_letters)
    return Encoded(
        task=batch.task,
        queries=embedding_pack([example.query for example in examples], tokenizer, batch.instruction),
        documents=embedding_pack(documents, tokenizer),
        same=keys_equal([example.key for example in examples], len(negatives)),
        tokens=tokens,
        letters=letters,
    )


@dataclass(frozen=True, slots=True)
class Embedding:
    """Batches of the embedder's stage: pairs of a task, or pages to read."""

    data: Path
    tokenizer: Path
    seed: int
    scale: float
    reading_share: float

    def __call__(self) -> MakeBatch:
        """Loads everything; called in the drawing process."""
        corpus = Corpus(self.data)
        tokenizer = Tokenizer(self.tokenizer)
        speller = Speller(tokenizer)
        maker = Maker(corpus)

        def make(step: int, progress: float) -> Encoded | ReadingBatch:
            rng = random.Random(f"{self.seed}-embedding-{step}")
            if rng.random() < self.reading_share:
                return reading_batch(rng, corpus.sentences, maker.words, speller, 0.4 + progress, self.scale * 0.5)
            return encode(maker.batch(rng, progress, self.scale), tokenizer, speller, rng)

        return make


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A batch as the reranker takes it: for each query its document, then candidates that do not answer."""

    task: str
    pack: Pack
    groups: list[int]


@dataclass(frozen=True, slots=True)
class Reranking:
    """Batches of the reranker's stage.

    Attributes:
        data, tokenizer, seed: as above.
        embedder: weights that choose the hard negatives.
        queries: in one batch.
        candidates: of each query that do not answer.
        pool: examples drawn to find them in.
    """

    data: Path
    tokenizer: Path
    seed: int
    embedder: Path
    queries: int = 16
    candidates: int = 3
    pool: int = 48

    def __call__(self) -> MakeBatch:
        """Loads everything; called in the drawing process."""
        from sightline.train.mining import Miner

        corpus = Corpus(self.data)
        tokenizer = Tokenizer(self.tokenizer)
        maker = Maker(corpus)
        miner = Miner(self.embedder, tokenizer)

        def make(step: int, progress: float) -> Judged:
            rng = random.Random(f"{self.seed}-reranking-{step}")
            batch = maker.batch(rng, progress, self.pool / 96)
            examples = batch.examples[: self.pool]
            # a batch shows about as many pixels whatever their size, at least four queries
            area = max((image.size // 3 for e in examples if (image := e.document.image) is not None), default=0)
            queries = max(4, min(self.queries, self.queries * 128 * 128 // max(1, area)))
            return judged(batch, examples, miner.scores(examples), tokenizer, rng, queries, self.candidates)

        return make


def judged(
    batch: Batch,
    examples: list[Example],
    scores: NDArray[np.float32],
    tokenizer: Tokenizer,
    rng: random.Random,
    queries: int,
    candidates: int,
) -> Judged:
    """Chooses queries and, for each, its own hard negatives, the embedder's favourites, and one at random."""
    same = keys_equal([example.key for example in examples], 0)
    pairs: list[tuple[Side, Side]] = []
    groups: list[int] = []
    for index in rng.sample(range(len(examples)), min(queries, len(examples))):
        example = examples[index]
        wrong = list(example.negatives)[: max(1, candidates // 2)]
        ranked = [j for j in np.argsort(-scores[index]).tolist() if not same[index, j]]
        if ranked:
            wrong += [examples[j].document for j in ranked[: max(1, candidates - len(wrong) - 1)]]
            wrong.append(examples[rng.choice(ranked)].document)
        wrong = wrong[:candidates]
        pairs += [(example.query, example.document), *((example.query, document) for document in wrong)]
        groups.append(1 + len(wrong))
    return Judged(batch.task, reranking_pack(pairs, tokenizer), groups)
