"""A rebuild with another model is killed (SIGKILL) while the old index goes, or while the new one grows.

The first at one of the calls to the system that Python tells its audit hooks of, the second after some files.

Whatever moment it was: the index opens, with the old model or with the new one; every label is there; and when the
rebuild is done again, every file is in the index once and every label has its row.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sightline.errors import IndexMismatchError
from sightline.library import Library
from sightline.search import ingest
from sightline.search.events import FileDone
from sightline.testing import ToyEmbedder
from tests.torture.tally import Tally

NUM_FILES = 40
NUM_LABELS = 12
NAME = "rebuild killed"


def old() -> ToyEmbedder:
    return ToyEmbedder()


def new() -> ToyEmbedder:
    return ToyEmbedder(dim=96, model="another")


def trials(number: int, seed: int) -> Tally:
    """``number`` kills."""
    started = time.perf_counter()
    chance = random.Random(seed)
    tally = Tally(NAME)
    left: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder, first = Path(scratch, "files"), Path(scratch, "first")
        folder.mkdir()
        for file in range(NUM_FILES):
            (folder / f"{file}.txt").write_text(f"Note {file}: word{file} bicycle.", encoding="utf-8")
        with Library.open(first, embedder=old()) as library:
            library.add(folder)
            for file in range(NUM_LABELS):
                hit = library.search(f"word{file}", k=1)[0]
                library.labels.put(f"q{file}", json.dumps(file), hit.id, 1, path=hit.path, kind=hit.kind)
        whole = Path(scratch, "whole")
        shutil.copytree(first, whole)
        num_calls = int(_go(_start(whole, folder, 0), 0)[0])
        for trial in range(number):
            index = Path(scratch, f"trial-{trial}")
            shutil.copytree(first, index)
            if trial % 2:
                _go(_start(index, folder, chance.randint(1, num_calls)), NUM_FILES)
            else:
                _go(_start(index, folder, 0), chance.randint(0, NUM_FILES))
            tally += _judge(index, folder, left)
            shutil.rmtree(index)
    said = tally.said or ", ".join(f"{num} {what}" for what, num in sorted(left.items()))
    return Tally(NAME, tally.trials, tally.lost, tally.duplicated, tally.unopenable, tally.deaths, tally.wrong,
                 time.perf_counter() - started, said)  # fmt: skip


def _start(index: Path, folder: Path, calls: int) -> subprocess.Popen[str]:
    """A child that rebuilds; with ``calls``, it kills itself at that call to the system."""
    command = [sys.executable, "-m", "tests.torture.rebuilds", str(index), str(folder), str(calls)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _go(child: subprocess.Popen[str], num_files: int) -> list[str]:
    """Kill the child after it has told so many files, unless it has done so. What it said."""
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(num_files + 1)]
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return said


def _judge(index: Path, folder: Path, left: dict[str, int]) -> Tally:
    try:
        try:
            library = Library.open(index, embedder=new())
            state = "new, empty" if not library.stats().rows else "new, begun"
            state = "new, whole" if library.stats().files == NUM_FILES else state
        except IndexMismatchError:
            library = Library.open(index, embedder=old())
            state = "old"
        left[state] = left.get(state, 0) + 1
        with library:
            lost = NUM_LABELS - len({label.query for label in library.labels})
            if state == "old":
                lost += NUM_FILES - library.stats().files
        with Library.open(index, embedder=new(), rebuild=state == "old") as library:
            library.add(folder)
            ids = list(library._store.ids())
            lost += NUM_FILES - library.stats().files
            lost += sum(library.row(label.item) is None for label in library.labels)
            problems = library.check()
    except Exception as error:  # whatever it is, the index does not open or does not go on
        return Tally(NAME, trials=1, unopenable=1, said=f"{type(error).__name__}: {error}"[:200])
    note = "; ".join(problem.detail for problem in problems)[:200]
    return Tally(
        NAME,
        trials=1,
        lost=lost,
        duplicated=len(ids) - len(set(ids)),
        wrong=len(problems),
        said=f"{note}" if note else "",
    )


def _rebuild(index: Path, folder: Path, calls: int) -> None:
    """Says how many calls emptying took, then a line for each file."""
    vars(ingest)["COMMIT_ROWS"] = 4
    taken = 0
    emptying = True

    def hook(name: str, _: object) -> None:
        nonlocal taken
        if emptying and name.startswith(("open", "os.", "shutil.", "sqlite3.", "fcntl.")):
            taken += 1
            if taken == calls:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with Library.open(index, embedder=new(), rebuild=True) as library:
        emptying = False
        print(taken, flush=True)
        library.add(folder, on_event=lambda event: print(event, flush=True) if isinstance(event, FileDone) else None)


if __name__ == "__main__":
    _rebuild(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
