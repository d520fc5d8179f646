"""The batches of the contrastive stages, drawn and packed in a process of their own.

A step holds batches of several tasks: of one task alone, each step would undo what the step before did for another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sightline.prep.tokens import Tokenizer
from sightline.train.batch import Batch
from sightline.train.builtin.corpus import Corpus
from sightline.train.builtin.looking import Look, Looker
from sightline.train.builtin.tasks import Example, Maker, keys_equal
from sightline.train.builtin.told import Told, as_prompts, as_tokens, shown_of, words_of
from sightline.train.config import Role, Task
from sightline.train.packing import Pack, Side, embedding_pack, reranking_pack

CELLS: Final = "cells"
"""Name of the task that is no contrast: what lies in every cell of a picture."""

WRONG: Final = 7
"""Documents beside the right one that a reranker is asked about, of its own task and of others."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """One step: a batch each of several tasks.

    Attributes:
        parts: the batches.
        texts: for each part what its queries are told, where they are texts alone, or None.
        shown: for each part what its documents are told, where they are pictures of words, or None.
        keys: for each part a number for each query, equal where one document answers both.
        pairs: for distillation, for each part the pairs that the reranker judges: of every query, its document and its
            own negatives.
        look: pictures whose every cell is asked for beside the tasks, or None.
    """

    parts: tuple[Batch, ...]
    texts: tuple[Told | None, ...] = ()
    shown: tuple[Told | None, ...] = ()
    keys: tuple[NDArray[np.int64], ...] = ()
    pairs: tuple[Pack, ...] = ()
    look: Look | None = None

    @property
    def task(self) -> str:
        """For the log."""
        return "+".join(part.task for part in self.parts)

    @property
    def queries(self) -> tuple[Pack, ...]:
        """For the count of tokens."""
        return tuple(pack for part in self.parts for pack in part.queries)

    @property
    def documents(self) -> tuple[Pack, ...]:
        """For the count of tokens."""
        return tuple(pack for part in self.parts for pack in part.documents)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Picklable source of ``Mixed`` steps.

    Attributes:
        data: the folder of the corpus.
        tokenizer: of the model that learns.
        tasks: what is drawn, how much of it, how often; one named ``CELLS`` is asked for in every step, its batch
            counted in patches (``looking.py``).
        role: embedder or reranker.
        seed: decides everything.
        tasks_a_step: different tasks in one step.
        distilled: the reranker's tokenizer when its pairs are wanted too.
        prompts: the vectors of texts are told by a network, which takes prompts, and not by bags of words.
    """

    data: Path
    tokenizer: Path
    tasks: tuple[Task, ...]
    role: Role
    seed: int
    tasks_a_step: int = 4
    distilled: Path | None = None
    prompts: bool = False

    def __call__(self) -> Callable[[int], Mixed]:
        """Loads the corpus; called in the process that makes batches."""
        maker = Maker(Corpus(self.data))
        tokenizer = Tokenizer(self.tokenizer)
        judge = None if self.distilled is None else Tokenizer(self.distilled)
        looker = None
        for task in self.tasks:
            if task.name == CELLS:
                looker = Looker(maker.corpus, tokenizer, self.seed, 1, task.batch)
        tasks = [task for task in self.tasks if task.name != CELLS]
        told = partial(as_prompts if self.prompts else as_tokens, tokenizer=tokenizer)

        def make(step: int) -> Mixed:
            rng = random.Random(f"{self.seed}-{self.role}-{step}")
            parts, texts, shown, keys, pairs = [], [], [], [], []
            drawn = [(task, maker.tasks[task.name](rng, task.batch)) for task in chosen(rng, tasks, self.tasks_a_step)]
            for task, examples in drawn:
                if self.role == "reranker":
                    others = [other.document for one, rest in drawn if one is not task for other in rest]
                    parts.append(judging_batch(task, examples, others, tokenizer, rng))
                elif judge is None:
                    parts.append(contrast_batch(task, examples, tokenizer))
                    texts.append(words_of(examples, told))
                    shown.append(shown_of(examples, told))
                    keys.append(np.asarray([number(example.key) for example in examples], np.int64))
                else:
                    part, pack = distilling_batch(task, examples, tokenizer, judge, rng)
                    parts.append(part)
                    pairs.append(pack)
            # of the cells every step is like the last ones of their own stage
            look = None if looker is None else looker(step + 1)
            return Mixed(tuple(parts), tuple(texts), tuple(shown), tuple(keys), tuple(pairs), look)

        return make


def number(key: str) -> int:
    """The same for the same key in every process.

    >>> number("a red ring") == number("a red ring") != number("a blue ring")
    True
    """
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


def chosen(rng: random.Random, tasks: Sequence[Task], count: int) -> list[Task]:
    """Different tasks by their weights."""
    left = [task for task in tasks if task.weight > 0]
    out: list[Task] = []
    while left and len(out) < count:
        task = rng.choices(left, [task.weight for task in left])[0]
        left.remove(task)
        out.append(task)
    return out


def contrast_batch(task: Task, examples: Sequence[Example], tokenizer: Tokenizer) -> Batch:
    """Queries against all documents and hard negatives of the batch."""
    negatives = [(i, side) for i, example in enumerate(examples) for side in example.negatives[: task.negatives]]
    return Batch(
        task=task.name,
        kind="contrast",
        queries=(embedding_pack([example.query for example in examples], tokenizer, task.instruction),),
        documents=(embedding_pack([e.document for e in examples] + [side for _, side in negatives], tokenizer),),
        owner=np.asarray([i for i, _ in negatives], np.int64),
        same=keys_equal([example.key for example in examples], len(negatives)),
    )


def wrong(examples: Sequence[Example], index: int, count: int, rng: random.Random) -> list[Side]:
    """Documents that do not answer a query: its own negatives first, then half near ones, half any.

    Near ones belong to queries that share words with this one.
    """
    example = examples[index]
    out: list[Side] = list(example.negatives[:count])
    others = [other for other in examples if other.key != example.key]
    rng.shuffle(others)
    words = set(example.query.text.lower().split())
    near = sorted(others, key=lambda other: -len(words.intersection(other.query.text.lower().split())))
    for other in [*near[: (count - len(out) + 1) // 2], *others]:
        if len(out) < count and all(side is not other.document for side in out):
            out.append(other.document)
    return out


def judging_batch(
    task: Task, examples: Sequence[Example], others: Sequence[Side], tokenizer: Tokenizer, rng: random.Random
) -> Batch:
    """Every query with its document, then ``WRONG`` that do not answer it: of its task, the rest of ``others``.

    Others are documents of other kinds. In a library recall puts pages beside texts and clips, and a reranker that was
    never asked about such a neighbour is as likely as not to say yes.
    """
    pairs: list[tuple[Side, Side]] = []
    groups = []
    for index, example in enumerate(examples):
        near = wrong(examples, index, task.negatives, rng)
        candidates = [example.document, *near, *rng.sample(others, max(0, min(WRONG - len(near), len(others))))]
        pairs += [(example.query, candidate) for candidate in candidates]
        groups.append(len(candidates))
    return Batch(task.name, "yes_no", (reranking_pack(pairs, tokenizer, task.instruction),), groups=tuple(groups))


def distilling_batch(
    task: Task, examples: Sequence[Example], tokenizer: Tokenizer, judge: Tokenizer, rng: random.Random
) -> tuple[Batch, Pack]:
    """A batch for the embedder, and the same pairs for the reranker; the teacher's log-odds are not there yet."""
    num = task.negatives
    lists = [wrong(examples, index, num, rng) for index in range(len(examples))]
    kept = [index for index, sides in enumerate(lists) if len(sides) == num]
    queries = [examples[index].query for index in kept]
    documents = [examples[index].document for index in kept]
    negatives = [side for index in kept for side in lists[index]]
    keys = [examples[index].key for index in kept]
    # what is wrong for one query may be the very answer of another
    answers = {id(example.document): example.key for example in examples}
    answered = [answers.get(id(side), "") for side in negatives]
    pairs = [(examples[index].query, side) for index in kept for side in (examples[index].document, *lists[index])]
    batch = Batch(
        task=task.name,
        kind="distil",
        queries=(embedding_pack(queries, tokenizer, task.instruction),),
        documents=(embedding_pack(documents + negatives, tokenizer),),
        owner=np.repeat(np.arange(len(kept)), num),
        same=np.concatenate([keys_equal(keys, 0), np.asarray(keys)[:, None] == np.asarray(answered)[None, :]], 1),
    )
    return batch, reranking_pack(pairs, judge, task.instruction)
