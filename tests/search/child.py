"""Indexes a folder with a slow toy model, so that it can be killed meanwhile. ``child.py INDEX FOLDER DELAY_S``.

Waits for a line, so that it can be started ahead of time; prints a line for each unit that was embedded, and the
report as JSON when it ends.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from sightline.library import Library
from sightline.search import ingest
from sightline.testing import ToyEmbedder


class SlowEmbedder(ToyEmbedder):
    delay_s = 0.0

    def stream(self, items: Any, **options: Any) -> Iterator[Any]:
        for vector in super().stream(items, **options):
            time.sleep(self.delay_s)
            yield vector
            print("unit", flush=True)


def main() -> None:
    index, folder, delay_s = sys.argv[1:]
    vars(ingest)["COMMIT_ROWS"] = 8  # many commits, many moments to be killed at
    embedder = SlowEmbedder()
    embedder.delay_s = float(delay_s)
    sys.stdin.readline()
    with Library.open(index, embedder=embedder) as library:
        report = library.add([folder])
        print(
            json.dumps(
                {
                    "seen": report.seen,
                    "indexed": report.indexed,
                    "unchanged": report.unchanged,
                    "deferred": report.deferred,
                    "skipped": [(one.path, one.code) for one in report.skipped],
                    "interrupted": report.interrupted,
                    "embedded": embedder.num_embedded,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
