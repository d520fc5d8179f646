"""An index is copied at random moments while another process indexes, changes and removes files.

A trial is one copy: restored, its rows must each be there once and read; files that its ledger calls done must have
exactly their rows; and indexing the same folder again must end in the rows that an uninterrupted run gives. Every
label that was said before the copy began must be in it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sightline.library import Library
from sightline.search import ingest
from sightline.store.backup import restore
from sightline.testing import ToyEmbedder
from tests.torture.tally import Tally

NUM_FILES = 60
NAME = "backup while writing"


def trials(number: int, seed: int) -> Tally:
    """``number`` copies of an index that is never at rest."""
    started = time.perf_counter()
    chance = random.Random(seed)
    tally = Tally(NAME)
    between: list[Path] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, index = Path(scratch, "files"), Path(scratch, "index")
        folder.mkdir()
        for file in range(NUM_FILES):
            _write(folder / f"{file}.txt", file, 0)
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.backups", str(index), str(folder), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdin is not None and writer.stdout is not None
        try:
            writer.stdout.readline()
            for trial in range(number):
                time.sleep(chance.uniform(0.0, 0.2))
                copy = Path(scratch, f"copy-{trial}")
                with Library.open(index) as library:
                    labels = {label.query for label in library.labels}
                    made = library.backup(copy)
                # the files stand still while the copy is judged; the index goes on
                writer.stdin.write("stop\n")
                writer.stdin.flush()
                while writer.stdout.readline().strip() != "stopped":
                    if writer.poll() is not None:
                        raise RuntimeError("the writer died")
                tally += _judge(copy, Path(scratch, f"again-{trial}"), folder, labels, made.rows, between)
                writer.stdin.write("go\n")
                writer.stdin.flush()
        finally:
            writer.kill()
            writer.communicate()
    said = tally.said or f"{len(between)} of {number} copies in the middle of a write"
    return Tally(NAME, tally.trials, tally.lost, tally.duplicated, tally.unopenable, tally.deaths, tally.wrong,
                 time.perf_counter() - started, said)  # fmt: skip


def _judge(copy: Path, again: Path, folder: Path, labels: set[str], num_rows: int, between: list[Path]) -> Tally:
    try:
        restore(copy, again)
        with Library.open(again, embedder=ToyEmbedder()) as library:
            problems = [p for p in library.check() if p.code not in ("unfinished", "changed_file", "missing_file")]
            # what a writer that is killed leaves: files that are pending, rows of files that are going
            if problems or any(library.files("pending")):
                between.append(copy)
            ids = list(library._store.ids())
            duplicated = len(ids) - len(set(ids))
            wrong = int(len(ids) != num_rows)
            said = {label.query for label in library.labels}
            library.add(folder)
            library.prune(dry_run=False, force=True)
            left = library.check()
            wanted = {f.name for f in folder.iterdir()}
            have = {Path(state.path).name for state in library.files("done")}
            rows = {Path(row.path).name: row.text for row in library._store.get(list(library._store.ids()))}
            texts = {f.name: f.read_text(encoding="utf-8").strip() for f in folder.iterdir()}
            wrong += len(left) + int(have != wanted) + int({name: t.strip() for name, t in rows.items()} != texts)
    except Exception as error:  # whatever it is, the copy does not open
        return Tally(NAME, trials=1, unopenable=1, said=f"{type(error).__name__}: {error}"[:200])
    bad = [p.code for p in problems if p.code not in ("row_count", "unknown_rows")]
    note = "; ".join([*(f"{p.code}" for p in left), *bad])[:200]
    return Tally(NAME, trials=1, lost=len(labels - said), duplicated=duplicated, wrong=wrong + len(bad), said=note)


def _write(path: Path, file: int, turn: int) -> None:
    path.write_text(f"Note {file}, turn {turn}: word{file} word{turn} bicycle.", encoding="utf-8")


def _churn(index: Path, folder: Path, seed: int) -> None:
    """Add, change and remove files for ever, in many small commits; stand still between "stop" and "go"."""
    import select

    chance = random.Random(seed)
    vars(ingest)["COMMIT_ROWS"] = 4
    with Library.open(index, embedder=ToyEmbedder()) as library:
        library.add(folder)
        print("ready", flush=True)
        turn = 0
        while True:
            turn += 1
            for file in chance.sample(range(NUM_FILES), 8):
                path = folder / f"{file}.txt"
                if chance.random() < 0.3 and path.exists():
                    path.unlink()
                    library.remove(path)
                else:
                    _write(path, file, turn)
            report: Any = library.add(folder)
            if turn % 7 == 0:
                library.optimize()
            hits = library.search("bicycle", k=1)
            library.labels.put(f"q{turn}", json.dumps(turn), hits[0].id, 1, path=hits[0].path, kind=hits[0].kind)
            if report.interrupted:
                return
            if select.select([sys.stdin], [], [], 0)[0]:
                sys.stdin.readline()
                print("stopped", flush=True)
                if not sys.stdin.readline():
                    return


if __name__ == "__main__":
    _churn(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
