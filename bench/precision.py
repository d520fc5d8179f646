"""What fewer bits do to the order of answers: vectors and scores in bf16 and with int8 weights beside those in fp32.

The files and questions of the demo with the built-in models, and a random checkpoint of 117 M parameters on the items
of the other benchmarks: cosine to fp32, share of the ten nearest that stay, and how far probabilities move.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.measure import SCRATCH, commit, device
from bench.small import Size, checkpoint, items
from sightline.cli.demo import files
from sightline.cli.demo.queries import QUERIES
from sightline.embed import Embedder
from sightline.errors import SightlineError
from sightline.media.pool import DecodePool
from sightline.model.int8 import can_int8
from sightline.rerank import Reranker
from sightline.types import Item, Unit

NEAREST: Final = 10
JUDGED: Final = 12
"""Documents that the reranker sees for each question."""


def demo_units(folder: Path) -> Iterator[Unit]:
    """Everything that an index of the demo's files would hold."""
    files.make(folder / "files", folder / "queries")
    with DecodePool() as pool:
        for path in sorted((folder / "files").rglob("*")):
            if path.is_file():
                try:
                    yield from (unit for unit in pool.units(path) if isinstance(unit, Unit))
                except SightlineError:
                    continue  # some files of the demo are broken on purpose


def kept(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Share of the nearest documents of each query that both find: (Q, N) similarities each."""
    nearest = [np.argsort(-scores, 1, kind="stable")[:, :NEAREST] for scores in (one, other)]
    shares = [len(set(a) & set(b)) / len(a) for a, b in zip(*nearest, strict=True)]
    return float(np.mean(shares))


def compare(name: str, models: tuple[str, str], documents: Sequence[Item], queries: Sequence[Item]) -> None:
    """One JSON line for each arithmetic."""
    arithmetics = ["float32", "bfloat16", *(["int8"] if can_int8() else [])]
    reference: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None
    for dtype in arithmetics:
        embedder = Embedder.load(models[0], dtype=dtype, device="cpu")
        reranker = Reranker.load(models[1], dtype=dtype, device="cpu")
        start = time.process_time()
        found = embedder.embed(documents), embedder.embed(queries)
        embed_s = time.process_time() - start
        judged = np.stack([reranker.score(query, documents[:JUDGED]) for query in queries[:JUDGED]])
        if reference is None:
            reference = (*found, judged)
        cosines = (found[0] * reference[0]).sum(1)
        row = {
            "engine": "sightline",
            "task": f"precision, {name}",
            "dtype": dtype,
            "items": len(documents),
            "queries": len(queries),
            "items_s": round((len(documents) + len(queries)) / embed_s, 3),
            "cosine_mean": round(float(cosines.mean()), 6),
            "cosine_min": round(float(cosines.min()), 6),
            "nearest_kept": round(kept(reference[1] @ reference[0].T, found[1] @ found[0].T), 4),
            "best_kept": round(
                float(np.mean((found[1] @ found[0].T).argmax(1) == (reference[1] @ reference[0].T).argmax(1))), 4
            ),
            "probability_moved_mean": round(float(np.abs(judged - reference[2]).mean()), 5),
            "probability_moved_max": round(float(np.abs(judged - reference[2]).max()), 5),
            "device": device(),
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__},
            "commit": commit(),
        }
        print(json.dumps(row, ensure_ascii=False), flush=True)


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny random model and a few items")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size: Size = "tiny" if given.quick else "small"
    work = items(size)
    mixed = [*work.documents, *work.images, *work.texts]
    folder = str(checkpoint(SCRATCH, "bfloat16", size))
    compare("random weights", (folder, folder), mixed, work.queries)
    if not given.quick:
        with tempfile.TemporaryDirectory() as place:
            units = [unit.as_item() for unit in demo_units(Path(place))]
            words = [Item(text=query.words) for query in QUERIES if query.words]
            compare("built-in, files of the demo", ("builtin", "builtin"), units, words)


if __name__ == "__main__":
    main()
