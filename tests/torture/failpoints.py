"""SIGKILL at twelve named moments in the life of an index. A trial is a kill at one of them, by turns."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.torture import oracle
from tests.torture.tally import Tally
from tests.torture.victims import Report, Victims

NAMES: Final = [name for name in oracle.POINTS if name not in ("", "sync")]
NUM_FILES = 12
CALLS: Final = 8
"""How often a method may be entered before the process dies in it."""


def trials(number: int, seed: int) -> Tally:
    """``number`` kills over the twelve points."""
    chance = random.Random(seed)
    tally = Tally(f"SIGKILL at {len(NAMES)} named points")
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        names = [name for name in NAMES if victims.can_fault or not oracle.POINTS[name][0]]
        corpus, whole = prepare(Path(scratch))
        most = {name: _count(victims, Path(scratch, "room"), corpus, name) for name in names}
        while tally.trials < number:
            name = names[tally.trials % len(names)]
            tally += _kill(victims, Path(scratch, "room"), corpus, whole, name, most[name], chance)
    if len(names) < len(NAMES):
        tally += Tally("", said=f"only {', '.join(names)}: no C compiler")
    return tally


def prepare(scratch: Path) -> tuple[Path, oracle.Whole]:
    """Files as they are at first, and what must be in the index at the end."""
    corpus, changed = scratch / "corpus", scratch / "room" / "files"
    oracle.make_notes(corpus, NUM_FILES)
    fresh(changed.parent, corpus)
    settle(changed)
    whole = oracle.Whole.of(changed, scratch / "room" / "whole.sightline")
    return corpus, whole


def fresh(room: Path, corpus: Path) -> tuple[Path, Path]:
    """An empty room with the files as they were at first: where the index will be, and the files."""
    shutil.rmtree(room, ignore_errors=True)
    shutil.copytree(corpus, room / "files")
    return room / "a.sightline", room / "files"


def settle(files: Path) -> None:
    """The files as they are at last, however far their changes have come."""
    for path in oracle.changing(files):
        oracle.change(path)


def _count(victims: Victims, room: Path, corpus: Path, name: str) -> int:
    """How many moments a point has in a whole life."""
    if not oracle.POINTS[name][0]:
        return CALLS
    index, files = fresh(room, corpus)
    point = {"name": name, "deed": "count", "nth": 0}
    victim = victims.start("life", room / "log", folder=str(index), files=str(files), point=point)
    victim.wait()
    return Report().take(victim.log).seen


def _kill(
    victims: Victims, room: Path, corpus: Path, whole: oracle.Whole, name: str, most: int, chance: random.Random
) -> Tally:
    nth = max(most, 1)
    while True:
        index, files = fresh(room, corpus)
        nth = chance.randint(1, nth)
        point = {"name": name, "deed": chance.choice(["kill before", "kill after"]), "nth": nth}
        victim = victims.start("life", room / "log", folder=str(index), files=str(files), point=point)
        status, report = victim.wait(), Report().take(victim.log)
        if status == -9:
            break
        if status != 0 or nth == 1:  # it should have come to that point
            return Tally(name, 1, deaths=1, said=f"{name} {nth}: exit {status} {report.error} {report.crash}")
    judged = oracle.judge(name, index, report)
    settle(files)
    done = judged + oracle.finish(name, index, files, whole)
    return done if done.clean else replace(done, said=f"{name} {nth}: {done.said}")
