"""How fast are items embedded? Sightline beside plain transformers: same weights, same items, one run.

    python bench/embed.py                      # float32
    python bench/embed.py --dtype bfloat16 --task text --save

Texts are tokenized in the measured time by both; pictures and videos are decoded, resized and cut into patches before
it, and both engines get the same patches. Batches of transformers are sorted by true length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.measure import SCRATCH, TABLE_HEAD, Bench, Stages, arguments, work_of
from bench.peer import Prompt, Transformers, unit
from bench.small import checkpoint, items, shape_of
from sightline.embed import Embedder
from sightline.prep.prepare import Prepared
from sightline.types import Item

Vectors = NDArray[np.float32]
ONE_AT_A_TIME = "short text, one at a time"
SYSTEM = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>\n<|im_start|>assistant\n"


def main() -> None:
    given = arguments(__doc__)
    bench = Bench("embed", given)
    folder = checkpoint(SCRATCH, given.dtype, quick=given.quick)
    work = items(quick=given.quick)
    embedder = Embedder.load(str(folder), dtype=given.dtype)
    peer = Transformers(folder, given.dtype)
    network = embedder._engine.model
    stages = Stages(network.visual, network.language_model)
    print(f"peak of a matrix product in {given.dtype}: {bench.peak} GFLOP/s, {given.threads} threads\n{TABLE_HEAD}")
    tasks = {"text": work.texts, ONE_AT_A_TIME: work.queries, "image": work.images, "video": work.videos}
    for task, members in tasks.items():
        prompts = [embedder._preparer.embedding(item) for item in members]
        size = work_of(prompts, shape_of(quick=given.quick))
        is_text = not prompts[0].visuals
        ours: Vectors | None = None
        if bench.wanted("sightline", task):
            run = partial(from_prompts, embedder, prompts)
            if is_text:
                run = partial(from_texts, embedder, members, single=task == ONE_AT_A_TIME)
            ours = bench.measure("sightline", task, size, run, stages, embedder._engine._forget)
        for batch in [1] if task == ONE_AT_A_TIME else given.batch:
            if not bench.wanted("transformers", task) or (batch > 1 and batch // 2 >= len(members)):
                continue
            shown: Sequence[Prompt] = [f"{SYSTEM}{item.texts[0]}{END}" for item in members] if is_text else prompts
            run = partial(peer.states, shown, batch)
            theirs = bench.measure(f"transformers, batch {batch}", task, size, run, peer.stages)
            if ours is not None:
                check(ours, unit(theirs), given.dtype, task)
    bench.close()


def from_texts(embedder: Embedder, items: Sequence[Item], *, single: bool) -> tuple[Vectors, int]:
    """Through the public door."""
    if single:
        return np.concatenate([embedder.embed([item]) for item in items]), 0
    return embedder.embed(items), 0


def from_prompts(embedder: Embedder, prompts: Sequence[Prepared]) -> tuple[Vectors, int]:
    """From ids and patches."""
    return unit(np.stack([np.asarray(state) for state in embedder._engine.stream(prompts)])), 0


def check(ours: Vectors, theirs: Vectors, dtype: str, task: str) -> None:
    """Both engines computed the same thing, or the comparison means nothing."""
    worst = 1 - float((ours * theirs).sum(1).min())
    if worst > (1e-5 if dtype == "float32" else 2e-2):
        raise SystemExit(f"{task}: the engines disagree, 1 - cosine is {worst:.1e}")


if __name__ == "__main__":
    main()
