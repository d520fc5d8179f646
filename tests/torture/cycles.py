"""What wears an index out: files that come, go and change names; restarts and merges; a clock that jumps.

A trial of the first table row is a cycle of deleting, adding again and renaming; of the second a query, whose answers
must be the same before and after; of the third a jump of the clock.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from sightline.library import Library
from sightline.store import lance as lance_module
from sightline.store.lance import LanceStore
from sightline.store.schema import Row, path_id
from sightline.testing import ToyEmbedder
from tests.torture import oracle
from tests.torture.here import decoding_here
from tests.torture.tally import Tally

CYCLES: Final = "delete, add again, rename"
RECALL: Final = "answers after restart and merge"
CLOCK: Final = "clock jumps"
NUM_FILES: Final = 40
MOST_WASTE: Final = 1.2
"""Size of the data after merging, over that of an index made of the same files at once."""
DAY_S: Final = 24 * 3600.0


def trials(number: int, seed: int) -> list[Tally]:
    """``number`` cycles and as many queries, and six jumps of the clock."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, decoding_here():
        return [
            _cycles(Path(scratch, "cycles"), number, chance),
            _recall(Path(scratch, "recall"), number, seed),
            _clock(Path(scratch, "clock")),
        ]


@contextmanager
def _keeping(seconds: float) -> Iterator[None]:
    """Old versions are kept so long, instead of a day."""
    names: dict[str, Any] = vars(lance_module)
    before = names["KEEP_S"]
    names["KEEP_S"] = seconds
    try:
        yield
    finally:
        names["KEEP_S"] = before


def _open(index: Path) -> Library:
    return Library.open(index, embedder=ToyEmbedder(dim=oracle.DIM))


def _bytes(index: Path) -> int:
    return sum(path.stat().st_size for path in (index / "items.lance" / "data").iterdir())


def _cycles(room: Path, number: int, chance: random.Random) -> Tally:
    files, index, away = room / "files", room / "a.sightline", room / "away"
    oracle.make_notes(files, NUM_FILES)
    away.mkdir()
    tally = Tally(CYCLES)
    with _open(index) as library:
        library.add([files])
        for cycle in range(number):
            one = chance.choice(sorted(files.iterdir()))
            two = chance.choice([path for path in sorted(files.iterdir()) if path != one])
            one.rename(away / one.name)
            library.prune(dry_run=False)
            gone = library.stats()
            (away / one.name).rename(one)
            two.rename(two.with_name(f"note-{cycle:03d}-{two.name[-7:]}"))
            library.add([files])
            library.prune(dry_run=False)
            stats = library.stats()
            told = sum(state.units for state in library.files())
            good = (gone.files, stats.files, stats.pending) == (NUM_FILES - 1, NUM_FILES, 0) and stats.rows == told
            tally += Tally(CYCLES, 1, wrong=int(not good),
                           said="" if good else f"cycle {cycle}: {gone.files}, {stats.files} files, "
                           f"{stats.rows} rows, {told} told")  # fmt: skip
        with _keeping(0.0):
            for _ in range(3):
                library.optimize()
                time.sleep(0.01)
        problems = library.check()
    with _open(room / "whole.sightline") as library:
        library.add([files])
        library.optimize()
    with _keeping(0.0), _open(room / "whole.sightline") as library:
        time.sleep(0.01)
        library.optimize()
    waste = _bytes(index) / _bytes(room / "whole.sightline")
    have, want = oracle.rows(index), oracle.rows(room / "whole.sightline")
    return tally + Tally(CYCLES, lost=len(set(want) - set(have)), duplicated=oracle.duplicates(index),
                         wrong=len(set(have) - set(want)) + len(problems) + int(waste > MOST_WASTE),
                         said=problems[0].detail if problems else f"{waste:.2f} x the bytes of a new index")  # fmt: skip


def _recall(room: Path, number: int, seed: int) -> Tally:
    """With a vector index, built from 1,000 rows on."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((1500, oracle.DIM)).astype(np.float32)
    queries = rng.standard_normal((number, oracle.DIM)).astype(np.float32)
    rows = [
        Row(id=f"row-{n:05d}", path_id=path_id(f"/{n}"), path=f"/{n}", kind="image", vector=vectors[n], text=f"w{n}")
        for n in range(len(vectors))
    ]
    store = LanceStore(room, dim=oracle.DIM, index_from=1000)
    for start in range(0, len(rows), 300):
        store.add(rows[start : start + 300])

    def answers() -> list[list[str]]:
        return [[hit.id for hit in store.search_vector(query, 10)] for query in queries]

    exact = answers()
    first = store.optimize().recall or 0.0
    indexed = answers()
    store.close()
    store = LanceStore(room, dim=oracle.DIM, index_from=1000)
    again = answers()
    second = store.optimize().recall or 0.0
    merged = answers()
    store.close()
    differ = sum(one != two for one, two in zip(indexed, again, strict=True))
    differ += sum(one != two for one, two in zip(indexed, merged, strict=True))
    near = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, indexed, strict=True)])
    said = f"recall {near:.3f} of exact; {first:.3f} before and {second:.3f} after"
    return Tally(RECALL, number, wrong=differ + int(near < 0.95) + int(first != second), said=said)


def _clock(room: Path) -> Tally:
    """A day forth and back, and another time zone: nothing is indexed again, and readers keep what they read."""
    files, index = room / "files", room / "a.sightline"
    oracle.make_notes(files, NUM_FILES)
    tally = Tally(CLOCK)
    real, zone = time.time, os.environ.get("TZ")
    with _open(index) as library:
        library.add([files])
        try:
            for jump_s, name in ((DAY_S, ""), (-DAY_S, ""), (2 * DAY_S, ""), (-400 * DAY_S, ""),
                                 (0.0, "Pacific/Auckland"), (3600.0, "America/New_York")):  # fmt: skip
                vars(time)["time"] = lambda jump_s=jump_s: real() + jump_s
                if name:
                    os.environ["TZ"] = name
                    time.tzset()
                report = library.add([files])
                library.optimize()
                found = len(library.search("note number", k=NUM_FILES))
                bad = report.indexed + (report.unchanged != NUM_FILES) + (found != NUM_FILES)
                said = "" if not bad else f"after {jump_s:g} s {name}: {report.indexed} indexed again, {found} found"
                tally += Tally(CLOCK, 1, wrong=bad, said=said)
        finally:
            vars(time)["time"] = real
            os.environ.pop("TZ", None)
            if zone is not None:
                os.environ["TZ"] = zone
            time.tzset()
        (files / "note-000.txt").write_text("Changed after all.", encoding="utf-8")
        last = library.add([files])
        wrong = int(last.indexed != 1) + len(library.check())
    shutil.rmtree(room)
    return tally + Tally(CLOCK, wrong=wrong)
