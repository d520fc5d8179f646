"""How fast are the true shapes on a GPU? One run fills a column of the table of docs/performance.md.

    python -m bench.gpu --size 2b --save          # then --size 8b; ten minutes each were planned for
    python -m bench.gpu --device cpu --quick      # shows that the script runs
    python -m bench.table --write

Random weights of the true shape, written once (4 and 17 GB). First the numbers are looked at: vectors in bf16 beside
those in float32, and every engine beside ours; then all are timed in turns, as on a CPU (``bench/measure.py``).

NOT MEASURED YET: written without a GPU at hand, and run on a CPU with the size ``tiny`` only.
"""

from __future__ import annotations

from argparse import Namespace
from multiprocessing import get_context
from pathlib import Path
from typing import Final, cast

from bench import large
from bench.measure import PEERS, SCRATCH, Bench, arguments
from bench.small import checkpoint
from bench.worker import Prompts, Result
from sightline.embed import Embedder
from sightline.types import Item

LEAST_COSINE: Final = 0.98
AIMS: Final[dict[str, dict[str, float]]] = {
    large.PAGES: {"2b": 29, "8b": 11},
    large.IMAGES: {"2b": 280, "8b": 90},
    large.LONG_TEXTS: {"2b": 300, "8b": 62},
    large.VIDEOS: {"2b": 15, "8b": 5},
    large.QUERIES: {"2b": 167, "8b": 83},
    large.DOCUMENTS: {"2b": 700, "8b": 140},
}
"""Items a second on one H100 that we mean to reach; short texts of 6 and 12 milliseconds."""


def look_at_numbers(folder: Path, given: Namespace) -> None:
    """Vectors of two items of each kind in the dtype asked for, beside float32.

    Raises:
        SystemExit: they are not the same.
    """
    vectors: list[Result] = []
    few = [item for task in large.tasks("embed", given.size).values() for item in cast(list[Item], task())[:2]]
    for dtype in ("float32", given.dtype):
        embedder = Embedder.load(str(folder), dtype=dtype, device=given.device)
        vectors.append(embedder.embed(few))
    worst = float((vectors[0] * vectors[1]).sum(1).min())
    print(f"{given.dtype} beside float32: cosine {worst:.5f} at worst of {len(vectors[0])} items", flush=True)
    if worst < LEAST_COSINE:
        raise SystemExit(f"the numbers are wrong: a cosine of {worst:.3f} to float32")


def main() -> None:
    """Numbers, then times."""
    given = arguments(__doc__, device="cuda", dtype="bfloat16", size="2b", batch=[1, 32])
    folder = checkpoint(SCRATCH, given.dtype, given.size)
    looking = get_context("spawn").Process(target=look_at_numbers, args=(folder, given))  # its memory goes with it
    looking.start()
    looking.join()
    if looking.exitcode:
        raise SystemExit(looking.exitcode)
    engines = given.engine
    for kind in ("embed", "rerank"):
        asked = large.tasks(kind, given.size)
        chosen = [task for task in given.task or asked if task in asked]
        if not chosen:
            continue
        given.engine = [name for name in engines if kind == "embed" or name != PEERS[1]]
        prompts = Prompts(kind, str(folder), asked)
        bench = Bench(kind, given, folder)
        for task in chosen:
            bench.run(task, prompts.of(task)[1])
        bench.close()


if __name__ == "__main__":
    main()
