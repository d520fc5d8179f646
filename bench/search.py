"""How long does the index take to answer? Vectors and words, without any model.

    python -m bench.search [--rows 10000 --rows 100000] [--dim 2048] [--save]

Rows of random vectors around a hundred centres and words of a small vocabulary. Approximate search (from 50,000 rows)
is compared with the exact scan of the same rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import RESULTS, commit, device
from bench.watch import observed
from sightline.store.exact import ExactStore
from sightline.store.lance import LanceStore
from sightline.store.schema import Filter, Row

QUERIES = 50
CHUNK = 5_000


def rows(count: int, dim: int) -> Iterator[list[Row]]:
    """Rows in chunks, the same in every run."""
    draw = np.random.default_rng(5)
    centres = draw.standard_normal((100, dim)).astype(np.float32)
    words = np.array([f"word{index}" for index in range(2_000)])
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        vectors = centres[draw.integers(0, 100, size)] + draw.standard_normal((size, dim)).astype(np.float32)
        yield [
            Row(
                id=f"{start + index:032x}",
                path_id=f"{(start + index) // 10:032x}",
                path=f"/files/{(start + index) // 10}.txt",
                kind="text",
                title=f"file {(start + index) // 10}",
                text=" ".join(draw.choice(words, 40)),
                vector=vectors[index],
            )
            for index in range(size)
        ]


def timed(ask: Callable[[int], Any]) -> dict[str, float]:
    """Milliseconds of one query after another."""
    ask(0)
    times = []
    for index in range(QUERIES):
        start = time.perf_counter()
        ask(index)
        times.append((time.perf_counter() - start) * 1e3)
    return {"p50_ms": float(np.median(times)), "p95_ms": float(np.quantile(times, 0.95))}


def run(count: int, dim: int) -> list[dict[str, Any]]:
    """Every kind of question to one index."""
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        store = LanceStore(Path(folder), dim=dim)
        oracle = ExactStore(dim)
        start = time.perf_counter()
        for some in rows(count, dim):
            store.add(some)
            if count <= 100_000:
                oracle.add(some)
        added = time.perf_counter() - start
        with observed() as seen:
            store.optimize()
        draw = np.random.default_rng(9)
        asked = [row.vector + 0.5 * draw.standard_normal(dim) for row in next(rows(CHUNK, dim))[:QUERIES]]
        few = Filter.of({"path": "/files/7.txt"})
        kinds: dict[str, Callable[[int], Any]] = {
            "vector": lambda index: store.search_vector(asked[index], 10),
            "vector of one file": lambda index: store.search_vector(asked[index], 10, few),
            "words": lambda index: store.search_words(f"word{index} word{index + 7}", 10),
        }
        found = []
        for kind, ask in kinds.items():
            found.append({"task": kind, "rows": count, "dim": dim} | timed(ask))
        pairs = [(store.search_vector(one, 10), oracle.search_vector(one, 10)) for one in asked]
        recall = np.mean([len({a.id for a in ours} & {b.id for b in exact}) / 10 for ours, exact in pairs])
        found[0]["recall_at_10"] = float(recall)
        built = {"task": "build", "rows": count, "dim": dim, "rows_s": count / added, "optimize_s": seen["wall_s"]}
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        found.append(built | {"optimize_extra_mb": seen["extra_mb"], "bytes_a_row": size / count})
        store.close()
    return found


def main() -> None:
    """One line of JSON for each kind of question and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--quick", action="store_true", help="few rows: shows that the script runs")
    parser.add_argument("--save", action="store_true", help="append the rows to bench/results/")
    given = parser.parse_args()
    if given.quick:
        given.rows, given.dim = [300], 64
    lines = []
    for count in given.rows or [10_000, 50_000]:
        for row in run(count, given.dim):
            about = {"device": device(), "commit": commit()}
            lines.append(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in (row | about).items()}))
            print(lines[-1], flush=True)
    if given.save:
        with (RESULTS / "search.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    main()
