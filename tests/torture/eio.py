"""The Nth sync of a life of an index fails, or the Nth thing done to its files at all. A trial is one failure.

After a failed sync nothing of that file is on the disk: the kernel may drop what it could not write, and forget. So the
process must stop without another word, must not try again, and the next one starts from what was safe before.

SQLite says nothing of two of its own: the sync of the folder when it makes a new file, which the ledger does itself
afterwards, and those of the last merging of its log into its file, which is done again at the next start. There the
process may go on, and only the power cut tells whether that was right.
"""

from __future__ import annotations

import errno
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from sightline.store.ledger import LEDGER_NAME, STAMP_NAME
from tests.torture import oracle, power
from tests.torture.failpoints import fresh, prepare, settle
from tests.torture.tally import Tally
from tests.torture.victims import Report, Victims

SYNC: Final = "failed sync at the Nth call"
ANY: Final = "I/O error at the Nth call"


def trials(number: int, seed: int) -> list[Tally]:
    """Half of ``number`` fail a sync, spread evenly over all of them; half fail anything else, at random."""
    chance = random.Random(seed)
    sync, other = Tally(SYNC), Tally(ANY)
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        if not victims.can_fault:
            return [Tally(SYNC, said="not tried: no C compiler")]
        room = Path(scratch, "room")
        corpus, whole = prepare(Path(scratch))
        syncs = _life(victims, room, corpus, "sync", "count", 0)[1].seen
        calls = _life(victims, room, corpus, "", "count", 0)[1].seen
        half = (number + 1) // 2
        first = chance.random()
        for one in range(half):
            nth = 1 + int((one + first) * syncs / half) % syncs
            sync += _fail(victims, room, corpus, whole, SYNC, nth, chance)
        for _ in range(number - half):
            other += _fail(victims, room, corpus, whole, ANY, chance.randint(1, calls), chance)
    return [sync + Tally(SYNC, said=f"of {syncs} syncs"), other + Tally(ANY, said=f"of {calls} calls")]


def _is_made_good(index: Path, journal: Path) -> bool:
    """Whether the sync that failed was one of those that SQLite passes over."""
    is_new = True
    for entry in power.journal(journal):
        if entry.what == "x":
            return entry.path.name.startswith(LEDGER_NAME) or (is_new and entry.path == index)
        is_new = is_new and not entry.path.name.startswith(STAMP_NAME)
    return False


def _life(victims: Victims, room: Path, corpus: Path, name: str, deed: str, nth: int) -> tuple[int | None, Report]:
    index, files = fresh(room, corpus)
    point = {"name": name, "deed": deed, "nth": nth, "error": errno.EIO}
    victim = victims.start("life", room / "log", folder=str(index), files=str(files), point=point,
                           journal=str(room / "journal"), graves=str(room / "graves"))  # fmt: skip
    return victim.wait(), Report().take(victim.log)


def _fail(
    victims: Victims, room: Path, corpus: Path, whole: oracle.Whole, name: str, nth: int, chance: random.Random
) -> Tally:
    syncing = name == SYNC
    status, report = _life(victims, room, corpus, "sync" if syncing else "", "fail", nth)
    index, files = room / "a.sightline", room / "files"
    tally = Tally(name, 1)
    if status not in (0, 1):
        tally += Tally(name, deaths=1, said=f"exit {status} {report.crash}")
    if syncing and (status == 0 or report.late) and not _is_made_good(index, room / "journal"):
        tally += Tally(name, wrong=1 + report.late, said=f"exit {status}, {report.late} acknowledged after it")
    if syncing:
        power.cut(index, room / "journal", room / "graves", chance, all_of_it=True)
        with power.another_start():
            tally += replace(oracle.judge(name, index, report), trials=0)
    judged = oracle.judge(name, index, report)
    settle(files)
    done = tally + Tally(name, lost=judged.lost, duplicated=judged.duplicated, unopenable=judged.unopenable,
                         wrong=judged.wrong, said=judged.said) + oracle.finish(name, index, files, whole)  # fmt: skip
    return done if done.clean else replace(done, said=f"{nth}: {done.said}; {report.error}")
