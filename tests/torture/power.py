"""Power cuts: what had not been synced is taken back, in part or whole. A trial is one state of the disk after a cut.

A process is stopped at a random one of all the things it does to the files of its index. What it did until then stands
in a journal (``faults.c``) with what was there before, so that of everything since the last sync, any part can be
undone: written bytes are again what they were, files end where they ended or anywhere between, names that were made
are gone, and names that were taken away or replaced are back. A disk that does as it is told is all that is assumed.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sightline.store import durable
from tests.torture import oracle
from tests.torture.failpoints import fresh, prepare, settle
from tests.torture.tally import Tally
from tests.torture.victims import Report, Victims

NAME = "power cut"
HEAD: Final = struct.Struct("<c7xqqqqqqqqq")


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the journal; see ``struct record`` in faults.c."""

    what: str
    inode: int
    inode2: int
    offset: int
    size: int
    grave: int
    length: int
    path: Path
    path2: Path
    old: bytes
    is_gone: bool = False  # by a failed sync

    def covers(self, other: Entry) -> bool:
        """Whether this write replaces every byte of another."""
        return self.offset <= other.offset and other.offset + other.length <= self.offset + self.length


def journal(file: Path) -> Iterator[Entry]:
    """What was done, in order. A record that the kill cut off is left out: its deed was not done."""
    data = file.read_bytes() if file.exists() else b""
    at = 0
    while at + HEAD.size <= len(data):
        what, inode, inode2, offset, size, grave, n, n2, num_old, length = HEAD.unpack_from(data, at)
        texts = [data[at + HEAD.size :][a:b] for a, b in ((0, n), (n, n + n2), (n + n2, n + n2 + num_old))]
        at += HEAD.size + n + n2 + num_old
        if at <= len(data):
            path, path2 = (Path(text.decode("utf-8", "surrogateescape")) for text in texts[:2])
            yield Entry(what.decode(), inode, inode2, offset, size, grave, length, path, path2, texts[2])


def unsynced(entries: Iterator[Entry]) -> tuple[dict[int, list[Entry]], list[Entry]]:
    """Writes by inode, and changes of names, that no sync has followed.

    A failed sync is none, and no later one makes up for it: what it should have brought down is gone until it is
    written again.
    """
    writes: dict[int, list[Entry]] = {}
    names: list[Entry] = []
    for entry in entries:
        waiting = writes.get(entry.inode, [])
        if entry.what in "wt":
            writes[entry.inode] = [one for one in waiting if not (one.is_gone and entry.covers(one))] + [entry]
        elif entry.what == "s":
            writes[entry.inode] = [one for one in waiting if one.is_gone]
        elif entry.what == "x":
            writes[entry.inode] = [replace(one, is_gone=True) for one in waiting]
        elif entry.what == "S":
            names = [one for one in names if one.inode != entry.inode]
        else:
            names.append(entry)
    return {inode: waiting for inode, waiting in writes.items() if waiting}, names


def cut(index: Path, log: Path, graves: Path, chance: random.Random, *, all_of_it: bool = False) -> int:
    """Take back what had not been synced, as a power cut might. Number of things taken back."""
    writes, names = unsynced(journal(log))
    num = _undo_writes(index, graves, writes, chance, all_of_it)
    # a disk keeps changes of names in order, or it does not: both are tried
    first = 0 if all_of_it else chance.randint(0, len(names))
    in_order = chance.random() < 0.5
    for position in reversed(range(len(names))):
        if position >= first if in_order or all_of_it else chance.random() < 0.5:
            with contextlib.suppress(FileNotFoundError, FileExistsError, NotADirectoryError):
                _undo_name(names[position], graves)
                num += 1
    return num


def _undo_writes(
    index: Path, graves: Path, writes: dict[int, list[Entry]], chance: random.Random, all_of_it: bool
) -> int:
    places = {path.lstat().st_ino: path for folder in (graves, index) for path in folder.rglob("*") if path.is_file()}
    num = 0
    for inode, entries in writes.items():
        place = places.get(inode)
        fate = "lost" if all_of_it else chance.choice(["kept", "lost", "part", "cut"])
        if place is None or fate == "kept":
            continue
        now = place.stat().st_size
        with place.open("r+b") as file:
            for entry in reversed(entries):
                if fate == "lost" or (fate == "part" and chance.random() < 0.5):
                    end = entry.offset + entry.length
                    file.seek(entry.offset)
                    file.write(entry.old + bytes(max(0, end - entry.offset - len(entry.old))))
                    if fate == "lost" and not entry.is_gone:
                        file.truncate(entry.size)
                    num += 1
            if fate == "cut":
                before = min(entry.size for entry in entries)
                file.truncate(chance.randint(min(before, now), now))
                num += 1
    return num


def _undo_name(entry: Entry, graves: Path) -> None:
    kept = graves / str(entry.grave)
    if entry.what in "cl":
        entry.path.unlink()
    elif entry.what == "m":
        shutil.rmtree(entry.path)
    elif entry.what == "u":
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        entry.path.hardlink_to(kept)
    elif entry.what == "r":
        entry.path2.parent.mkdir(parents=True, exist_ok=True)
        entry.path.rename(entry.path2)
        if entry.grave:
            entry.path.hardlink_to(kept)


@contextlib.contextmanager
def another_start() -> Iterator[None]:
    """As if the machine had been started again: this process sees another start than those that were stopped."""
    names: dict[str, Any] = vars(durable)
    before = names["boot_id"]
    names["boot_id"] = lambda: "after the power cut"
    try:
        yield
    finally:
        names["boot_id"] = before


def trials(number: int, seed: int) -> Tally:
    """``number`` states."""
    with another_start():
        return _trials(number, random.Random(seed))


def _trials(number: int, chance: random.Random) -> Tally:
    tally = Tally(NAME)
    undone = 0
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        if not victims.can_fault:
            return Tally(NAME, said="not tried: no C compiler")
        room = Path(scratch, "room")
        corpus, whole = prepare(Path(scratch))
        most = _life(victims, room, corpus, 0, "count")[1].seen
        while tally.trials < number:
            nth = chance.randint(1, most)
            status, report = _life(victims, room, corpus, nth, "kill before")
            if status == 0:  # threads take turns: a life has a few things less, now and then
                most = nth
                continue
            num = cut(room / "a.sightline", room / "journal", room / "graves", chance)
            undone += num
            one = Tally(NAME, 1, deaths=1, said=f"exit {status}: {report.crash}") if status != -9 else Tally(NAME)
            one += oracle.judge(NAME, room / "a.sightline", report)
            settle(room / "files")
            one += oracle.finish(NAME, room / "a.sightline", room / "files", whole)
            tally += one if one.clean else replace(one, said=f"{nth} of {most}, {num} undone: {one.said}")
    return tally + Tally(NAME, said=f"{undone} unsynced writes and names taken back")


def _life(victims: Victims, room: Path, corpus: Path, nth: int, deed: str) -> tuple[int | None, Report]:
    index, files = fresh(room, corpus)
    victim = victims.start(
        "life", room / "log", folder=str(index), files=str(files), point={"name": "", "deed": deed, "nth": nth},
        journal=str(room / "journal"), graves=str(room / "graves"),
    )  # fmt: skip
    return victim.wait(), Report().take(victim.log)
