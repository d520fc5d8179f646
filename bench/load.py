"""How soon is a model ready, what does it hold, and does its memory stay flat?

    python -m bench.load [--model builtin] [--items 5000] [--save]

Cold start: a new process from nothing to its first vector, three times, files in the page cache. Flat: items of every
kind are made, embedded and dropped; memory is looked at every hundred items, and must not grow after the first fifth.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np

from bench.measure import RESULTS, commit, device
from bench.small import picture, video
from bench.watch import status
from sightline.embed import Embedder
from sightline.types import Item

COLD = """
import json, sys, time
start = time.perf_counter()
import sightline as sl
imported = time.perf_counter()
embedder = sl.Embedder.load(sys.argv[1])
loaded = time.perf_counter()
embedder.embed(["a red bicycle"])
first = time.perf_counter()
embedder.embed(["a blue bicycle"])
from bench.watch import status
print(json.dumps({"import_s": imported - start, "load_s": loaded - imported, "first_s": first - loaded,
                  "second_s": time.perf_counter() - first, "peak_rss_mb": status("VmHWM")}))
"""


def cold(model: str) -> dict[str, float]:
    """The fastest of three new processes."""
    runs = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", COLD, model], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout) | {"process_s": time.perf_counter() - start})
    return min(runs, key=lambda run: run["process_s"])


def mixed(count: int) -> Iterator[Item]:
    """Items as a folder holds them: seven texts, two pictures and a short clip in ten, each another."""
    draw = random.Random(3)
    words = ["red", "green", "small", "house", "river", "invoice", "train", "of", "with", "under", "seven", "paper"]
    for index in range(count):
        if index % 10 < 7:
            yield Item(text=" ".join(draw.choices(words, k=draw.randint(3, 300))))
        elif index % 10 < 9:
            yield Item(image=picture(draw.randint(64, 900), draw.randint(64, 900), index))
        else:
            yield Item(video=video(160, 120, draw.randint(2, 8)))


def flat(embedder: Embedder, count: int) -> dict[str, float]:
    """Memory while ``count`` items go through; MB."""
    seen = []
    start = time.perf_counter()
    results = embedder.stream(mixed(count))
    done = 0
    while chunk := list(islice(results, 100)):
        assert all(isinstance(vector, np.ndarray) for vector in chunk)
        done += len(chunk)
        seen.append(status("VmRSS"))
    settled = seen[len(seen) // 5 :]
    return {
        "items": done,
        "items_s": done / (time.perf_counter() - start),
        "rss_first_mb": seen[0],
        "rss_settled_mb": settled[0],
        "rss_last_mb": settled[-1],
        "grew_mb": settled[-1] - settled[0],
        "spread_mb": max(settled) - min(settled),
    }


def main() -> None:
    """Both, as one line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--quick", action="store_true", help="few items: shows that the script runs")
    parser.add_argument("--save", action="store_true", help="append the rows to bench/results/")
    given = parser.parse_args()
    about = {"model": given.model, "device": device(), "commit": commit()}
    rows = [
        {"task": "cold start"} | cold(given.model) | about,
        {"task": "flat memory"} | flat(Embedder.load(given.model), 200 if given.quick else given.items) | about,
    ]
    lines = [json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}) for row in rows]
    print("\n".join(lines))
    if given.save:
        with (RESULTS / "load.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    main()
