"""A thousand pictures and PDFs that broke decoders, indexed three times by processes of their own.

A trial is one file. Nothing may be lost: every file that was seen has one outcome in the report and in the ledger. A
death is that of the process that indexes; a file that is skipped by one run must be skipped by the next for the same
reason, and no run after the second may try it. The corpus lies beside the project, under ../shared/hostile.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import psutil

from sightline.errors import MEDIA_CODES
from sightline.library import Library
from sightline.media.pool import DecodePool
from sightline.media.units import UnitError
from sightline.settings import Settings
from sightline.testing import ToyEmbedder
from sightline.types import Item, Unit, VideoFrames
from tests.torture.tally import Tally

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = ROOT.parent / "shared" / "hostile"
RUNS: Final = 3
MAX_S: Final = 30.0
"""Processor seconds of one file."""
MAX_WALL_S: Final = 300.0
"""Seconds of the clock of one file: more, for other work may hold the machine."""
MAX_BYTES: Final = 1.5 * 2**30
"""How far the process that indexes may grow over what it holds when idle."""
RUN_S: Final = 3600.0


def files() -> list[Path]:
    """The pictures and PDFs of the corpus; none where it is not."""
    return sorted(path for kind in ("pillow", "pdf") for path in CORPUS.glob(f"{kind}/*") if path.is_file())


def trials(number: int, seed: int) -> list[Tally]:
    """Index ``number`` files of the corpus, chosen at random; no row where the corpus is not."""
    chosen = files()
    if not chosen:
        print(f"corpus: left out, for {CORPUS.name} is not beside the project", file=sys.stderr)
        return []
    if number < len(chosen):
        chosen = sorted(random.Random(seed).sample(chosen, number))
    before = [_signature(path) for path in chosen]
    with tempfile.TemporaryDirectory(prefix="sightline-corpus-") as folder:
        (Path(folder) / "files.json").write_text(json.dumps([os.fspath(path) for path in chosen]))
        runs = [_run(Path(folder)) for _ in range(RUNS)]
    told = [run for run in runs if run is not None]
    wrong = list(_wrong(told))
    wrong += [f"{path.name} was changed" for path, was in zip(chosen, before, strict=True) if _signature(path) != was]
    lost = sum(len(chosen) - len(run.outcomes) + abs(run.unaccounted) for run in told)
    return [
        Tally(
            "hostile pictures and PDFs",
            trials=len(chosen),
            lost=lost,
            duplicated=sum(run.duplicated for run in told),
            deaths=runs.count(None),
            wrong=len(wrong),
            said=wrong[0] if wrong else _figures(told),
        )
    ]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run told.

    Attributes:
        outcomes: path -> ``done`` or the code of a skip, as the ledger has it.
        unaccounted: files seen that are in no count of the report, or in two.
        duplicated: rows with the id of another.
        rows: rows in the index.
        decoded: files that were given to a decoder.
        slowest: processor seconds, seconds of the clock and name of the file that took longest.
        grown: bytes by which the process grew at most.
    """

    outcomes: dict[str, str]
    unaccounted: int
    duplicated: int
    rows: int
    decoded: list[str]
    slowest: list[Any]
    grown: int


def _run(folder: Path) -> Run | None:
    """One run in a process of its own; None when it died."""
    command = [sys.executable, "-m", "tests.torture.corpus", os.fspath(folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _wrong(runs: list[Run]) -> Iterator[str]:
    """Every way in which the runs do not agree with what is promised."""
    for run in runs:
        cpu_s, wall_s, name = run.slowest
        if cpu_s > MAX_S or wall_s > MAX_WALL_S:
            yield f"{name} took {cpu_s:.0f} s of a processor, {wall_s:.0f} s in all"
        if run.grown > MAX_BYTES:
            yield f"the process grew by {run.grown / 2**20:.0f} MB"
        yield from (f"{path}: {code}" for path, code in run.outcomes.items() if code not in {"done", *MEDIA_CODES})
    for one, next_one in itertools.pairwise(runs):
        for path, code in one.outcomes.items():
            after = next_one.outcomes.get(path)
            if after != code and "timeout" not in {code, after}:  # a busy machine may make the difference
                yield f"{Path(path).name}: {code}, then {after}"
    if len(runs) == RUNS:
        known = {path for path, code in runs[0].outcomes.items() if code == "done"}
        yield from (f"{Path(path).name} was indexed twice" for path in runs[1].decoded if path in known)
        yield from (f"{Path(path).name} was tried three times" for path in runs[2].decoded if path not in known)


def _figures(runs: list[Run]) -> str:
    if not runs:
        return ""
    first, counts = runs[0], Counter(runs[0].outcomes.values())
    cpu_s, _, name = max(run.slowest for run in runs)
    skips = ", ".join(f"{num} {code}" for code, num in counts.most_common() if code != "done")
    grown = max(run.grown for run in runs) / 2**20
    return f"{counts['done']} indexed as {first.rows} rows; {skips}; slowest {cpu_s:.1f} s ({name}); +{grown:.0f} MB"


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


# --- the process that indexes ----------------------------------------------------------------------------------------


class QuickEmbedder(ToyEmbedder):
    """A direction for each item, without a look at all of its pixels."""

    def _one(self, item: Item) -> Any:
        pictures = [np.asarray(image) for image in item.images]
        if isinstance(item.video, VideoFrames):
            pictures += list(item.video.frames)
        seen = b"".join(picture[::7, ::7].tobytes() for picture in pictures)
        vector = np.full(self.card.dim, 0.01)
        vector[zlib.crc32("".join(item.texts).encode() + seen) % self.card.dim] = 1
        return vector


class TimedPool(DecodePool):
    """Notes what each file takes."""

    decoded: Final[list[str]] = []
    slowest: tuple[float, float, str] = (0.0, 0.0, "")

    def _units(self, asked: Any) -> Generator[Unit | UnitError]:
        name = os.fspath(asked.path)
        assert isinstance(name, str)
        self.decoded.append(name)
        start_s, start_cpu_s = time.monotonic(), _cpu_s()
        try:
            yield from super()._units(asked)
        finally:
            took = (_cpu_s() - start_cpu_s, time.monotonic() - start_s, Path(name).name)
            TimedPool.slowest = max(TimedPool.slowest, took)


def _cpu_s() -> float:
    """Processor seconds of this process and of all children, those that have ended too."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children():
        try:
            times = child.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        total += times.user + times.system
    return total


def main(folder: Path) -> None:
    """One run over the files named in files.json; prints a ``Run``."""
    paths = json.loads((folder / "files.json").read_text())
    settings = Settings(decode_timeout_s=20)
    process, ended = psutil.Process(), threading.Event()
    with (
        mock.patch("sightline.library.DecodePool", TimedPool),
        Library.open(folder / "index", embedder=QuickEmbedder(), settings=settings) as library,
    ):
        idle = process.memory_info().rss
        highest = [idle]

        def watch() -> None:
            while not ended.wait(0.01):
                highest[0] = max(highest[0], process.memory_info().rss)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        report = library.add(paths)
        ended.set()
        watcher.join()
        states = {state.path: state.code or state.status for state in library.files()}
        ids = library._store._opened().to_lance().to_table(columns=["id"])["id"].to_pylist()
        run = {
            "outcomes": states,
            "unaccounted": report.seen - report.indexed - report.unchanged - len(report.skipped) - report.deferred,
            "duplicated": len(ids) - len(set(ids)),
            "rows": len(ids),
            "decoded": TimedPool.decoded,
            "slowest": TimedPool.slowest,
            "grown": highest[0] - idle,
        }
    print(json.dumps(run))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
