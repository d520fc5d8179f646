"""How fast are documents scored? Sightline beside plain transformers: same weights, same pairs, one run.

    python bench/rerank.py --dtype bfloat16 --save

Both get prompts made before the measured time. transformers computes only the two rows of the head that matter, which
is kinder to it than its own class is; the official code scores pairs one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.measure import SCRATCH, TABLE_HEAD, Bench, Stages, arguments, work_of
from bench.peer import Transformers
from bench.small import checkpoint, items, shape_of
from sightline.prep.prepare import Prepared
from sightline.rerank import Reranker

Odds = NDArray[np.float32]
SEEN_BEFORE = "text query, images seen before"


def main() -> None:
    given = arguments(__doc__)
    bench = Bench("rerank", given)
    folder = checkpoint(SCRATCH, given.dtype, quick=given.quick)
    work = items(quick=given.quick)
    reranker = Reranker.load(str(folder), dtype=given.dtype)
    engine, preparer = reranker._engine, reranker._preparer
    peer = Transformers(folder, given.dtype)
    stages = Stages(engine.model.visual, engine.model.language_model)
    print(f"peak of a matrix product in {given.dtype}: {bench.peak} GFLOP/s, {given.threads} threads\n{TABLE_HEAD}")
    tasks = {
        "text query, texts": (work.text_query, work.documents),
        "text query, images": (work.text_query, work.pages),
        SEEN_BEFORE: (work.text_query, work.pages),
        "image query, texts": (work.image_query, work.documents),
    }
    for task, (query, documents) in tasks.items():
        question = preparer.read(query)
        prompts = [preparer.pair(question, preparer.read(document)) for document in documents]
        size = work_of(prompts, shape_of(quick=given.quick))
        ours: Odds | None = None
        if bench.wanted("sightline", task):
            before = engine._forget
            if task == SEEN_BEFORE:
                odds(reranker, prompts)
                before = engine._heads.clear
            ours = bench.measure("sightline", task, size, partial(odds, reranker, prompts), stages, before)
        for batch in given.batch:
            if task == SEEN_BEFORE or not bench.wanted("transformers", task):
                continue
            if batch > 1 and batch // 2 >= len(documents):
                continue
            run = partial(odds_of_peer, peer, reranker, prompts, batch)
            theirs = bench.measure(f"transformers, batch {batch}", task, size, run, peer.stages)
            if ours is not None:
                check(ours, theirs, given.dtype, task)
    bench.close()


def odds(reranker: Reranker, prompts: Sequence[Prepared]) -> tuple[Odds, int]:
    """Log-odds of documents of one query."""
    states = [np.asarray(state) for state in reranker._engine.stream(prompts, shared=True)]
    return np.stack(states) @ reranker._direction, 0


def odds_of_peer(peer: Transformers, reranker: Reranker, prompts: Sequence[Prepared], batch: int) -> tuple[Odds, int]:
    """The same from the hidden states of transformers."""
    states, padding = peer.states(prompts, batch)
    return states @ reranker._direction, padding


def check(ours: Odds, theirs: Odds, dtype: str, task: str) -> None:
    """Both engines computed the same thing, or the comparison means nothing."""
    worst = float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))
    if worst > (1e-4 if dtype == "float32" else 0.2):
        raise SystemExit(f"{task}: the engines disagree, log-odds differ by {worst:.1e}")


if __name__ == "__main__":
    main()
