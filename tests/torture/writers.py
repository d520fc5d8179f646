"""Two writers at once. A trial is a run of both: with the lock, and with the lock out of order."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from tests.torture import oracle
from tests.torture.tally import Tally
from tests.torture.victims import Report, Victims

LOCKED: Final = "two writers, one lock"
UNLOCKED: Final = "two writers, no lock"
KILL_EVERY: Final = 4
"""In one of so many runs, the writer that has the lock is killed and the other takes over."""
ROUNDS: Final = 20
"""Batches that two writers without a lock add at the same moment to one index."""


def trials(number: int, seed: int) -> list[Tally]:
    """``number`` runs, half of them with the lock."""
    chance = random.Random(seed)
    locked, unlocked = Tally(LOCKED), Tally(UNLOCKED)
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        files, room = Path(scratch, "files"), Path(scratch, "room")
        oracle.make_notes(files, 4)
        whole = oracle.Whole.of(files, Path(scratch, "whole.sightline"))
        refusals = 0
        while locked.trials < number // 2:
            room.mkdir()
            kills = locked.trials % KILL_EVERY == KILL_EVERY - 1
            one, refused = _run(victims, room, files, whole, kills, chance)
            locked, refusals = locked + one, refusals + refused
            shutil.rmtree(room)
        locked += Tally(LOCKED, said=f"{refusals} refusals named the owner")
        while unlocked.trials < number - number // 2:
            room.mkdir()
            unlocked += _unlocked(victims, room, min(ROUNDS, number - number // 2 - unlocked.trials))
            shutil.rmtree(room)
    return [locked, unlocked]


def _run(
    victims: Victims, room: Path, files: Path, whole: oracle.Whole, kills: bool, chance: random.Random
) -> tuple[Tally, int]:
    index, gate = room / "a.sightline", room / "gate"
    pair = [
        victims.start("patient", room / f"log{one}", folder=str(index), files=str(files), gate=str(gate))
        for one in range(2)
    ]
    gate.touch()
    killed = None
    if kills:
        killed = chance.choice(pair)
        if killed.wait_for("adding" if chance.random() < 0.5 else "file", 1):
            killed.kill()
    statuses = [victim.wait() for victim in pair]
    reports = [Report().take(victim.log) for victim in pair]
    tally = Tally(LOCKED, 1)
    for victim, status, report in zip(pair, statuses, reports, strict=True):
        if status != 0 and not (victim is killed and status == -9):
            tally += Tally(LOCKED, deaths=1, said=f"exit {status} {report.error} {report.crash}")
    pids = {str(victim.pid) for victim in pair}
    words = [word for report in reports for word in report.words if word.startswith("locked")]
    # a writer that looked between the lock and the name in it finds its own name of before, or none
    named = [match[1] for word in words if (match := re.search(r"by pid (\d+) ", word))]
    wrong = [pid for pid in named if pid not in pids]
    acked = Report(files={path: units for report in reports for path, units in report.files.items()})
    tally += Tally(LOCKED, wrong=len(wrong), said=f"refused by {wrong[0]}" if wrong else "")
    judged = oracle.judge(LOCKED, index, acked)
    return tally + Tally(LOCKED, lost=judged.lost, duplicated=judged.duplicated, unopenable=judged.unopenable,
                         said=judged.said) + oracle.finish(LOCKED, index, files, whole), len(named)  # fmt: skip


def _unlocked(victims: Victims, room: Path, rounds: int) -> Tally:
    """The declared key alone keeps rows from being there twice."""
    from sightline.store.lance import LanceStore

    index, gate = room / "a.sightline", room / "gate"
    LanceStore(index, dim=oracle.DIM).close()
    pair = [
        victims.start("unlocked", room / f"log{one}", folder=str(index), rounds=rounds, gate=str(gate))
        for one in range(2)
    ]
    for number in range(rounds):
        if all(victim.wait_for("ready", number + 1) for victim in pair):
            Path(f"{gate}-{number}").touch()
    statuses = [victim.wait() for victim in pair]
    reports = [Report().take(victim.log) for victim in pair]
    bad = [f"exit {status} {report.error} {report.crash}" for status, report in zip(statuses, reports, strict=True)
           if status != 0]  # fmt: skip
    store = LanceStore(index)
    ids = list(store.ids())
    problems = store.check()
    store.close()
    return Tally(UNLOCKED, rounds, lost=rounds * oracle.GROUP - len(set(ids)), duplicated=len(ids) - len(set(ids)),
                 deaths=len(bad), wrong=len(problems),
                 said=bad[0] if bad else problems[0].detail if problems else "")  # fmt: skip
