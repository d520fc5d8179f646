"""From records to batches: one task a step, prompts exactly as the product makes them.

Every batch follows from the seed and its step alone. Where a picture or video cannot be read, another row of the task
takes the place of its row; that is counted, said once a file, and ends the run only when it happens too often.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sightline.engine.loading import own_file
from sightline.errors import ConfigError, InputError, MediaError, PromptError
from sightline.media.reader import Reader
from sightline.prep.prepare import Budgets, Prepared, Preparer
from sightline.prep.tokens import Tokenizer
from sightline.settings import Settings
from sightline.train.batch import Batch, Kind
from sightline.train.config import Stage
from sightline.train.packing import Pack, pack
from sightline.train.records import Record, content_key, open_records
from sightline.train.walk import Turns, Walk, seeded
from sightline.types import ImageSource, Item, Pixels, VideoFrames, VideoSource

logger = logging.getLogger(__name__)

MAX_FAILURES: Final = 0.1
"""Share of examples that may be unreadable."""
MIN_FAILURES: Final = 20
"""Unreadable examples from which their share is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """Records that are learned from together.

    Attributes:
        name: in logs; the order of its rows depends on it.
        records: what is drawn from; picklable.
        kind: which loss.
        weight: how often it is chosen, against the other tasks.
        batch: queries in a step, over all processes.
        negatives: most negatives of a query, drawn among its own; for ``distil`` every query has just so many.
        instruction: of queries whose row has none; "" is the model's own.
    """

    name: str
    records: Sequence[Record]
    kind: Kind
    weight: float = 1.0
    batch: int = 32
    negatives: int = 1
    instruction: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= len(self.records):
            raise ConfigError(
                f"task {self.name}: batch must be from 1 to its {len(self.records)} rows, not {self.batch}"
            )
        least = 1 if self.kind in {"classes", "distil", "yes_no"} else 0
        if self.negatives < least:
            raise ConfigError(f"task {self.name}: negatives must be at least {least}, not {self.negatives}")
        if not self.weight >= 0:
            raise ConfigError(f"task {self.name}: weight must be at least 0, not {self.weight}")

    def fault(self, record: Record) -> str:
        """Why a row cannot be learned from in this way; "" when it can."""
        if self.kind == "graded":
            if record.score is None:
                return "score is missing"
            if len(record.positives) != 1 or record.negatives:
                return "a graded row has one positive and no negatives"
        elif self.kind == "distil":
            if record.teacher is None:
                return "teacher is missing"
            if len(record.negatives) < self.negatives:
                return f"negatives has {len(record.negatives)} entries; the task takes {self.negatives} of each row"
        elif self.kind in {"classes", "yes_no"} and not record.negatives:
            return "negatives is empty"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sampling:
    """A ``BatchSource``: called, it loads the tokenizer and gives the function from step to batch.

    Attributes:
        tasks: at least one; those of a reranker (``yes_no``) do not stand among those of an embedder.
        tokenizer: path of ``tokenizer.json``.
        budgets: how much of an item the model is shown; those it will be served with.
        seed: of everything drawn.
        chunk_tokens: most tokens of a pack, a shared beginning counted for each prompt; 0 packs a side as one. A
            prompt that is longer has a pack of its own.
        rank, world: which of how many processes' shares are made.
        max_failures: share of examples that may be unreadable before the run ends.
        settings: limits of the decoders.
    """

    tasks: tuple[Task, ...]
    tokenizer: Path
    budgets: Budgets = field(default_factory=Budgets)
    seed: int = 0
    chunk_tokens: int = 0
    rank: int = 0
    world: int = 1
    max_failures: float = MAX_FAILURES
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ConfigError("two tasks have one name")
        if not sum(task.weight for task in self.tasks) > 0:
            raise ConfigError("there must be a task with a weight over 0")
        if len({task.kind == "yes_no" for task in self.tasks}) > 1:
            raise ConfigError("a task of kind yes_no is for a reranker; it cannot be mixed with tasks of an embedder")
        if self.chunk_tokens < 0:
            raise ConfigError(f"chunk_tokens must be at least 0, not {self.chunk_tokens}")
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"rank must be from 0 to {self.world - 1}, not {self.rank}")
        for task in self.tasks:
            _check_share(task, self.world)

    def __call__(self) -> Maker:
        """Loads the tokenizer; called in the process that makes the batches."""
        return Maker(self)

    def check(self) -> None:
        """Reads every row once, but no media: a bad row is better found before training than in the middle.

        Raises:
            InputError: the first bad row, with file, line and field.
        """
        for task in self.tasks:
            for record in task.records:
                _check(task, record)


def of_stage(stage: Stage, tokenizer: Path, *, rank: int = 0, world: int = 1) -> Sampling:
    """Batches of a stage whose tasks are files.

    Args:
        stage: what its file says.
        tokenizer: path of the ``tokenizer.json`` of the model that starts. A ``sightline.json`` beside it lowers the
            budgets, as it does when the model is served.
        rank, world: which of how many processes' shares are made.

    Raises:
        WeightsError: a ``sightline.json`` that cannot be read.
        InputError: see ``open_records``.
        ConfigError: a task that is drawn, or a batch that does not fit its rows or the processes.
    """
    tasks = []
    for task in stage.task:
        if task.drawn or not task.kind:
            raise ConfigError(f"task {task.name} has no files of pairs")
        tasks.append(
            Task(
                name=task.name,
                records=open_records(*task.data),
                kind=task.kind,
                weight=task.weight,
                batch=task.batch,
                negatives=task.negatives,
                instruction=task.instruction,
            )
        )
    budgets = Budgets(
        max_length=stage.max_length,
        min_pixels=stage.min_pixels,
        max_pixels=stage.max_pixels,
        total_pixels=stage.total_pixels,
        fps=stage.fps,
        max_frames=stage.max_frames,
    )
    ceilings = {name: value for name, value in own_file(tokenizer.parent).items() if name != "trust"}
    return Sampling(
        tasks=tuple(tasks),
        tokenizer=tokenizer,
        budgets=budgets.under(ceilings),
        seed=stage.seed,
        chunk_tokens=stage.chunk_tokens,
        rank=rank,
        world=world,
    )


def _check_share(task: Task, world: int) -> None:
    if task.batch % world:
        raise ConfigError(f"task {task.name}: batch {task.batch} cannot be shared equally by {world} processes")


def _check(task: Task, record: Record) -> None:
    fault = task.fault(record)
    if fault:
        raise InputError(f"{record.where}: {fault} (task {task.name}, kind {task.kind})")


@dataclass(frozen=True, slots=True, eq=False)
class _Example:
    """One row, drawn and prepared.

    Attributes:
        record: the row.
        items: the chosen positive, then the chosen negatives.
        teacher: log-odds of these, or ().
        prompts: query, positive, negatives; for ``yes_no`` the pairs of the query with each item.
    """

    record: Record
    items: tuple[Item, ...]
    teacher: tuple[float, ...]
    prompts: tuple[Prepared, ...]


class _UnreadableError(MediaError):
    """A medium that cannot be read, with its name."""

    def __init__(self, error: MediaError, source: object) -> None:
        super().__init__(error.code, error.detail)
        self.source = source


class _NamingReader(Reader):
    """The product's reader; its errors know which file they are about."""

    def image(self, source: ImageSource) -> Pixels:
        try:
            return super().image(source)
        except MediaError as error:
            raise _UnreadableError(error, source) from None

    def video(self, source: VideoSource, *, fps: float, max_frames: int) -> VideoFrames | list[Pixels]:
        try:
            return super().video(source, fps=fps, max_frames=max_frames)
        except _UnreadableError:  # a frame of a list
            raise
        except MediaError as error:
            raise _UnreadableError(error, source) from None


class Maker:
    """Makes the batch of any step. Made by ``Sampling``.

    Attributes:
        tried: examples read so far.
        failed: those of them whose media could not be read.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.tried = 0
        self.failed = 0
        self._sampling = sampling
        self._tokenizer = Tokenizer(sampling.tokenizer)
        self._preparer = Preparer(self._tokenizer, _NamingReader(sampling.settings), sampling.budgets)
        self._turns = Turns([task.weight for task in sampling.tasks], sampling.seed)
        self._walks = [Walk(len(task.records), task.batch, task.name, sampling.seed) for task in sampling.tasks]
        self._logged: set[str] = set()

    def __call__(self, step: int, rank: int | None = None, world: int | None = None) -> Batch:
        """One process's share of a step: queries rank, rank + world, … with what is known of these alone.

        Args:
            step: from 0. All shares of it are of one task.
            rank, world: which of how many shares; None takes those of ``Sampling``.

        Raises:
            InputError: a bad row, or too many unreadable media.
        """
        rank = self._sampling.rank if rank is None else rank
        world = self._sampling.world if world is None else world
        index, turn = self._turns.at(step)
        task, walk = self._sampling.tasks[index], self._walks[index]
        _check_share(task, world)
        slots = range(rank, task.batch, world)
        rows = walk.rows(turn)
        found = [self._example(task, walk, int(rows[slot]), turn, slot) for slot in slots]
        read = [example for example in found if example is not None]
        if not read:
            raise InputError(f"task {task.name}: none of the rows of step {step} can be read")
        # with no row left to take its place, an example stands twice: shares of all processes stay of one size
        again = itertools.cycle(read)
        examples = [example if example is not None else next(again) for example in found]
        return self._judged(task, examples) if task.kind == "yes_no" else self._paired(task, examples)

    def _example(self, task: Task, walk: Walk, row: int, turn: int, slot: int) -> _Example | None:
        """The example of a row, or of the first spare row that can be read."""
        example = self._read(task, row, turn)
        if example is not None:
            return example
        return next(filter(None, (self._read(task, spare, turn) for spare in walk.spares(turn, slot))), None)

    def _read(self, task: Task, row: int, turn: int) -> _Example | None:
        record = task.records[row]
        _check(task, record)
        items, teacher = _drawn(task, record, seeded("items", self._sampling.seed, task.name, turn, row))
        self.tried += 1
        try:
            return _Example(record, items, teacher, self._prompts(task, record, items))
        except (MediaError, PromptError) as error:
            self._fail(record, error)
            return None

    def _prompts(self, task: Task, record: Record, items: Sequence[Item]) -> tuple[Prepared, ...]:
        instruction = record.instruction or task.instruction or None
        if task.kind == "yes_no":
            question = self._preparer.read(record.query)
            told = record.query.instruction or instruction
            return tuple(self._preparer.pair(question, self._preparer.read(item), instruction=told) for item in items)
        query = self._preparer.embedding(record.query, instruction=instruction)
        return (query, *(self._preparer.embedding(item) for item in items))

    def _fail(self, record: Record, error: InputError) -> None:
        self.failed += 1
        about = record.where
        if isinstance(error, _UnreadableError) and isinstance(error.source, str):
            about = error.source
        if about not in self._logged:
            self._logged.add(about)
            named = f"{record.where}: " if about != record.where else ""
            logger.warning("%s%s: %s; another row takes its place", named, about, error)
        if self.failed >= MIN_FAILURES and self.failed > self._sampling.max_failures * self.tried:
            raise InputError(
                f"{self.failed} of {self.tried} examples cannot be read, over {self._sampling.max_failures:.0%}; "
                f"the last is {record.where}: {error}"
            )

    def _judged(self, task: Task, examples: Sequence[_Example]) -> Batch:
        return Batch(
            task=task.name,
            kind=task.kind,
            queries=self._packs([prompt for example in examples for prompt in example.prompts]),
            groups=tuple(len(example.prompts) for example in examples),
        )

    def _paired(self, task: Task, examples: Sequence[_Example]) -> Batch:
        positives = [example.prompts[1] for example in examples]
        negatives = [prompt for example in examples for prompt in example.prompts[2:]]
        is_graded, is_distil = task.kind == "graded", task.kind == "distil"
        counts = [len(example.items) - 1 for example in examples]
        return Batch(
            task=task.name,
            kind=task.kind,
            queries=self._packs([example.prompts[0] for example in examples]),
            documents=self._packs([*positives, *negatives]),
            owner=None if is_graded else np.repeat(np.arange(len(examples), dtype=np.int64), counts),
            same=None if is_graded else _same(examples),
            scores=np.asarray([example.record.score for example in examples], np.float32) if is_graded else None,
            teacher=np.asarray([example.teacher for example in examples], np.float32) if is_distil else None,
        )

    def _packs(self, prompts: Sequence[Prepared]) -> tuple[Pack, ...]:
        """Prompts in their order, cut where the next one would be over the tokens of a pack."""
        most = self._sampling.chunk_tokens
        parts: list[list[Prepared]] = [[]]
        tokens = 0
        for prompt in prompts:
            if most and parts[-1] and tokens + len(prompt) > most:
                parts.append([])
                tokens = 0
            parts[-1].append(prompt)
            tokens += len(prompt)
        return tuple(pack(part, self._tokenizer) for part in parts)


def _drawn(task: Task, record: Record, rng: np.random.Generator) -> tuple[tuple[Item, ...], tuple[float, ...]]:
    """A positive of the record and some of its negatives in their order, with what the teacher says of them."""
    # a teacher speaks of the first positive
    positive = 0 if task.kind == "distil" else int(rng.integers(len(record.positives)))
    num = 0 if task.kind == "graded" else min(task.negatives, len(record.negatives))
    chosen = sorted(rng.permutation(len(record.negatives))[:num].tolist())
    items = (record.positives[positive], *(record.negatives[index] for index in chosen))
    if task.kind != "distil" or record.teacher is None:
        return items, ()
    return items, (record.teacher[0], *(record.teacher[1 + index] for index in chosen))


def _same(examples: Sequence[_Example]) -> NDArray[np.bool_]:
    """(N, M) true where a document that is not a query's own answers it all the same.

    That is: it is equal to its own document or to another of its positives, or it belongs to an equal query or to a
    row of the same key.
    """
    holders: dict[Hashable, list[int]] = defaultdict(list)
    queries = [_fingerprint(example.prompts[0]) for example in examples]
    for row, example in enumerate(examples):
        holders["query", queries[row]].append(row)
        holders["key", example.record.key].append(row)
    documents = [(example.items[0], example.prompts[1]) for example in examples]
    for example in examples:
        documents += zip(example.items[1:], example.prompts[2:], strict=True)
    for column, (item, prompt) in enumerate(documents):
        holders["seen", _fingerprint(prompt)].append(column)
        holders["named", content_key(item)].append(column)
    same = np.zeros((len(examples), len(documents)), np.bool_)
    for row, example in enumerate(examples):
        labels: list[Hashable] = [("query", queries[row]), ("seen", _fingerprint(example.prompts[1]))]
        labels += [("named", content_key(item)) for item in example.record.positives]
        if example.record.key is not None:
            labels.append(("key", example.record.key))
        for label in labels:
            same[row, holders.get(label, [])] = True
        same[row, row] = False
    return same


def _fingerprint(prompt: Prepared) -> bytes:
    """Equal for prompts that the model cannot tell apart."""
    digest = hashlib.blake2b(prompt.ids.tobytes(), digest_size=16)
    for visual in prompt.visuals:
        digest.update(visual.key)
    return digest.digest()
