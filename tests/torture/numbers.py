"""What the model is made to say: memory that runs out, numbers that are none, neighbours of every kind.

A trial is one item. Three rows: items lost to shortages of memory (one shortage for every twenty items); vectors that are
not finite or are zero, of which none may be stored or returned; items whose vector depends on who shares their batch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sightline.embed import Embedder
from sightline.model.vl import QwenVL
from sightline.store.exact import ExactStore
from sightline.store.schema import Row, path_id
from sightline.types import Item
from tests.parity.checkpoints import random_checkpoint
from tests.torture.tally import Tally

TOLERANCE = 1e-5
"""Largest difference in a value of a float32 vector, alone or in company: as docs/vectors.md says."""
BF16_COSINE = 0.999
"""Least cosine of a bfloat16 vector to itself in company: as docs/vectors.md says."""
SHORTAGES = 20
"""Items for one shortage of memory: 100 in 2,000."""
WORDS = ["a", "red", "bicycle", "stands", "by", "the", "sea", "and", "nobody", "knows", "whose", "it", "is"]


@contextmanager
def every_pass(changed: Callable[[Callable[..., Any], Any, Any], Any]) -> Iterator[None]:
    """Let ``changed(forward, network, ids, …)`` stand for the network's own pass."""
    forward = QwenVL.forward

    def instead(self: QwenVL, *args: Any, **kwargs: Any) -> Any:
        return changed(lambda: forward(self, *args, **kwargs), self, args[0])

    QwenVL.forward = instead  # type: ignore[method-assign]
    try:
        yield
    finally:
        QwenVL.forward = forward  # type: ignore[method-assign]


def texts(number: int, rng: np.random.Generator) -> list[Item]:
    """Items of 1 to 40 words, every eighth with a picture."""
    made = []
    for index in range(number):
        words = " ".join(rng.choice(WORDS, int(rng.integers(1, 40))))
        picture = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) if index % 8 == 0 else None
        made.append(Item(text=f"{index} {words}", image=picture))
    return made


def close(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether two vectors are one within the tolerance."""
    return bool(np.abs(found - wanted).max() <= TOLERANCE)


def shortages(
    embedder: Embedder, items: Sequence[Item], wanted: NDArray[np.float32], rng: np.random.Generator
) -> Tally:
    """Memory runs out again and again, never twice for one item alone: nothing is lost and nothing changes."""
    kinds = [
        lambda: torch.OutOfMemoryError("out of memory"),
        lambda: RuntimeError("can't allocate memory"),
        MemoryError,
    ]
    left, after, quiet, deepest = len(items) // SHORTAGES, 0, 1, 0

    def scarce(run: Callable[[], Any], network: QwenVL, ids: Any) -> Any:
        nonlocal left, after, quiet
        # the pass after a shortage goes through, so that an item alone gets its second try
        if left and after >= quiet:
            left, after, quiet = left - 1, 0, int(rng.integers(1, 3))
            raise rng.choice(kinds)()  # type: ignore[arg-type]
        after += 1
        return run()

    injected = left
    results: list[Any] = []
    with every_pass(scarce):
        for result in embedder.stream(items):
            results.append(result)
            deepest = max(deepest, embedder._engine._most_tokens // embedder._engine.max_tokens)
    missing = [place for place, result in enumerate(results) if not isinstance(result, np.ndarray)]
    wrong = sum(not close(r, wanted[place]) for place, r in enumerate(results) if isinstance(r, np.ndarray))
    return Tally(
        "memory runs out",
        trials=len(items),
        lost=len(items) - len(results) + len(missing),
        wrong=wrong + left,
        said=f"{injected - left} shortages, batches cut to 1/{deepest}",
    )


def unsound(embedder: Embedder, items: Sequence[Item], wanted: NDArray[np.float32], rng: np.random.Generator) -> Tally:
    """A third of the states is spoilt in the first pass, and half of those in float32 too."""
    values = [float("nan"), float("inf"), -float("inf"), 0.0]
    passes = count()
    spoilt_twice = 0
    given = 0

    def spoil(run: Callable[[], Any], network: QwenVL, ids: Any) -> Any:
        nonlocal spoilt_twice
        states = run()
        again = network is not embedder._engine.model
        number = next(passes)
        for row in range(len(states)):
            if rng.random() < (0.5 if again else 1 / 3):
                bad = values[(number + row) % 4]
                states[row] = (
                    bad
                    if rng.random() < 0.5 or bad == 0.0
                    else states[row].index_fill(0, torch.tensor([row % states.shape[1]]), bad)
                )
                spoilt_twice += again
        return states

    store = ExactStore(dim=embedder.card.dim)
    wrong = refused = 0
    with every_pass(spoil):
        for place, result in enumerate(embedder.stream(items)):
            given += 1
            if not isinstance(result, np.ndarray):
                refused += 1
                wrong += result.code != "nan"
                continue
            wrong += not close(result, wanted[place])
            name = f"/item/{place}"
            store.add([Row(id=str(place), path_id=path_id(name), path=name, kind="text", vector=result)])
    stored = store.vectors([str(place) for place in range(len(items))])
    wrong += sum(not np.isfinite(v).all() or not v.any() for v in stored.values())
    found = store.search_vector(wanted[0], len(items))
    wrong += sum(not np.isfinite(hit.score) for hit in found) + abs(len(found) - (len(items) - refused))
    return Tally(
        "vectors that are no numbers",
        trials=len(items),
        lost=len(items) - given,
        wrong=wrong + abs(refused - spoilt_twice),
        said=f"{refused} refused, the others computed again",
    )


def company(embedder: Embedder, items: Sequence[Item], wanted: NDArray[np.float32], rng: np.random.Generator) -> Tally:
    """Every item in batches of 2 to 64, shuffled, with a long neighbour: the vector it has alone."""
    exact = embedder.card.dtype == "float32"
    worst, wrong, tried = 0.0, 0, 0
    long = Item(text="a long neighbour " * 60)
    for size in (2, 3, 5, 8, 16, 32, 64):
        order = rng.permutation(len(items))
        for begin in range(0, len(order), size):
            places = order[begin : begin + size]
            found = embedder.embed([*(items[place] for place in places), long])[:-1]
            away = np.abs(found - wanted[places]).max(1) if exact else 1 - (found * wanted[places]).sum(1)
            worst, tried = max(worst, float(away.max())), tried + len(places)
            wrong += int((away > (TOLERANCE if exact else 1 - BF16_COSINE)).sum())
    said = f"largest difference {worst:.1e}" if exact else f"least cosine {1 - worst:.6f}"
    return Tally(f"alone or among 2 to 64, {embedder.card.dtype}", trials=tried, wrong=wrong, said=said)


def trials(number: int, seed: int) -> list[Tally]:
    """``number`` items through the first two, a quarter of them in company."""
    rng = np.random.default_rng(seed)
    items, few = texts(number, rng), max(2, number // 4)
    tallies = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = str(random_checkpoint(Path(folder) / "tiny"))
        for dtype, tests, most in (
            ("float32", (shortages, unsound), number),
            ("float32", (company,), few),
            ("bfloat16", (company,), few),
        ):
            embedder = Embedder.load(checkpoint, device="cpu", dtype=dtype)
            wanted = np.stack([embedder.embed([item])[0] for item in items[:most]])
            for test in tests:
                started = time.perf_counter()
                tally = test(embedder, items[:most], wanted, rng)
                tallies.append(replace(tally, seconds=time.perf_counter() - started))
    return tallies
