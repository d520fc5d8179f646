"""SIGKILL at random moments of indexing, until it is done. A trial is a kill of a process at work."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

from tests.search.corpus import make
from tests.torture import oracle
from tests.torture.tally import Tally
from tests.torture.victims import Report, Victims

NAME = "SIGKILL at random moments"
NUM_FILES = 200
KILLS = 100
"""Of one index, before it may come to its end: more than enough to need as many runs."""
MOST_UNITS = 10
"""Embedded between two kills, out of about 240; a commit takes 4."""
DELAY_S = 0.002
NUM_CHANGED = 6


def trials(number: int, seed: int) -> Tally:
    """``number`` kills, spread over as many indexes of 200 mixed files as it takes."""
    chance = random.Random(seed)
    tally = Tally(NAME)
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        corpus = Path(scratch, "corpus")
        make(corpus, NUM_FILES)
        (corpus / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nonsense" * 10)
        (corpus / "broken.pdf").write_bytes(b"%PDF-1.4\nnonsense")
        while tally.trials < number:
            room = Path(scratch, "room")
            shutil.copytree(corpus, room / "files")
            tally += _index(victims, room, min(KILLS, number - tally.trials), chance)
            shutil.rmtree(room, ignore_errors=True)  # SQLite takes its own files away as well
    return tally


def _index(victims: Victims, room: Path, most: int, chance: random.Random) -> Tally:
    """One index, killed and gone on with; then what an uninterrupted run makes of the same files."""
    index, files, report = room / "killed.sightline", room / "files", Report()
    tally = Tally(NAME)
    while tally.trials < most:
        victim = victims.start("index", room / "log", folder=str(index), files=str(files), delay_s=DELAY_S,
                               commit_rows=4, pool=True, merge=chance.random() < 0.2)  # fmt: skip
        working = victim.wait_for("unit", chance.randint(0, MOST_UNITS))
        if working:
            time.sleep(chance.uniform(0.0, 0.03))
            victim.kill()
        status = victim.wait()
        report.take(victim.log)
        if status != -9:
            if status != 0:
                return tally + Tally(NAME, deaths=1, said=f"exit {status}: {report.error} {report.crash}")
            break
        tally += oracle.judge(NAME, index, report)
        if tally.trials == most // 2:
            _change(files, report, chance)
    whole = oracle.Whole.of(files, room / "whole.sightline", pool=True)
    return tally + oracle.finish(NAME, index, files, whole, pool=True)


def _change(files: Path, report: Report, chance: random.Random) -> None:
    """The world goes on meanwhile: indexed files get other words."""
    notes = sorted(path for path in report.files if Path(path).name.startswith("note-"))
    for path in chance.sample(notes, min(NUM_CHANGED, len(notes))):
        Path(path).write_text(f"Changed while {path} was in work.\n" * chance.randint(1, 9), encoding="utf-8")
        del report.files[path]
