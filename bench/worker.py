"""One engine with one model in a process of its own: does what it is told, line by line, and says how it went.

    python -m bench.worker ENGINE KIND FOLDER DTYPE THREADS SIZE DEVICE     (started by bench/measure.py)

Requests are JSON lines ``{"task", "batch"}``, answers ``{"wall_s", "cpu_s", …, "result": file.npy}``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from bench import large, small
from bench.measure import PEERS
from bench.small import SEEN_BEFORE, Size, Tasks, is_alone
from bench.watch import Stages, observed
from sightline.embed import Embedder
from sightline.media.reader import Reader
from sightline.model.weights import Checkpoint
from sightline.prep.prepare import Budgets, Prepared, Preparer
from sightline.prep.tokens import Tokenizer
from sightline.rerank import Reranker
from sightline.settings import Settings
from sightline.types import Item

Result = NDArray[np.float32]
SYSTEM: Final = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n"
END: Final = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Made:
    """What a run made: vectors (N, C) or log-odds (N,), and the tokens of padding it computed."""

    result: Result
    padding: int = 0


class Peer(Protocol):
    """Another engine."""

    stages: Stages

    def states(self, prompts: Sequence[str | Prepared], batch: int) -> tuple[Result, int]:
        """(N, C) hidden states or unit vectors, and padding."""


class Ours:
    """Sightline through its public doors where it has one for the task."""

    def __init__(self, kind: str, folder: str, dtype: str, device: str) -> None:
        self.model: Any = (Embedder if kind == "embed" else Reranker).load(folder, dtype=dtype, device=device)
        self.engine = self.model._engine
        self.stages = Stages(self.engine.model.visual, self.engine.model.language_model)

    def embed(self, task: str, given: Sequence[Item], prompts: Sequence[Prepared]) -> Callable[[], Made]:
        """What is to be measured."""
        self.engine._forget()
        if is_alone(task):
            return lambda: Made(np.concatenate([self.model.embed([item]) for item in given]))
        if not prompts[0].visuals:
            return lambda: Made(self.model.embed(given))
        return lambda: Made(unit(np.stack([np.asarray(state) for state in self.engine.stream(prompts)])))

    def rerank(self, task: str, prompts: Sequence[Prepared]) -> Callable[[], Made]:
        """What is to be measured."""

        def odds() -> Made:
            states = [np.asarray(state) for state in self.engine.stream(prompts, shared=True)]
            return Made(np.stack(states) @ self.model._direction)

        if task == SEEN_BEFORE:
            odds()
            self.engine._heads.clear()
        else:
            self.engine._forget()
        return odds


def unit(states: Result) -> Result:
    """Rows of length 1."""
    made: Result = states / np.linalg.norm(states, axis=1, keepdims=True)
    return made


class Prompts:
    """Items of a task and their prompts, made by Sightline's preparer for every engine alike; no network is read."""

    def __init__(self, kind: str, folder: str, tasks: Tasks) -> None:
        self._tasks = tasks
        tokenizer = Tokenizer(Path(folder) / "tokenizer.json")
        longest = 8192 if kind == "embed" else 10_240
        self._preparer = Preparer(tokenizer, Reader(Settings()), Budgets(max_length=longest))
        rows = Checkpoint(Path(folder)).head_rows((tokenizer.word_id("yes"), tokenizer.word_id("no"))).numpy()
        self.direction: Result | None = rows[0] - rows[1] if kind == "rerank" else None
        """What log-odds are the product with; None for vectors."""

    def of(self, task: str) -> tuple[list[Item], list[Prepared]]:
        """Items, or documents of one query, and a prompt for each."""
        asked = self._tasks[task]()
        if isinstance(asked, list):
            return asked, [self._preparer.embedding(item) for item in asked]
        query, documents = asked
        question = self._preparer.read(query)
        return documents, [self._preparer.pair(question, self._preparer.read(document)) for document in documents]


def tasks_of(kind: str, size: Size) -> Tasks:
    """All that a process may be asked for: what a CPU is given, and a GPU."""
    return {**small.tasks(kind, size), **large.tasks(kind, size)}


def peer(name: str, folder: str, dtype: str, device: str) -> Peer:
    """An engine by its name."""
    if name == "transformers":
        from bench.peer import Transformers

        return Transformers(Path(folder), dtype, device)
    from bench.peer import SentenceTransformers

    return SentenceTransformers(Path(folder), dtype, device)


def main() -> None:
    """Read, answer, until the pipe closes."""
    name, kind, folder, dtype, threads, size, device = sys.argv[1:]
    torch.set_num_threads(int(threads))
    place = Path(tempfile.mkdtemp(prefix="sightline-bench-")) / "result.npy"
    ours = None if name in PEERS else Ours(kind, folder, dtype, device)
    other = None if ours else peer(name, folder, dtype, device)
    prompts_of = Prompts(kind, folder, tasks_of(kind, cast(Size, size)))
    say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        task = asked["task"]
        chosen, prompts = prompts_of.of(task)
        if ours:
            stages = ours.stages
            run = ours.embed(task, chosen, prompts) if kind == "embed" else ours.rerank(task, prompts)
        else:
            assert other is not None
            stages = other.stages
            texts = kind == "embed" and not prompts[0].visuals
            shown = [f"{SYSTEM}{item.texts[0]}{END}" for item in chosen] if texts else prompts
            run = partial(of_peer, other, shown, asked["batch"], prompts_of.direction)
        stages.seconds.update(vision=0.0, decoder=0.0)
        try:
            with observed() as seen:
                made = run()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            say({"failed": "the GPU's memory did not do"})
            continue
        np.save(place, made.result)
        say(seen | stages.seconds | {"padding": made.padding, "result": str(place)})


def of_peer(other: Peer, shown: Sequence[str | Prepared], batch: int, direction: Result | None) -> Made:
    """Vectors, or the log-odds of their hidden states."""
    states, padding = other.states(shown, batch)
    return Made(unit(states) if direction is None else states @ direction, padding)


def say(what: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
