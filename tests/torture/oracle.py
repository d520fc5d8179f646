"""What must be true of an index: nothing acknowledged is lost, nothing is there twice, it opens by itself."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lance

from sightline.errors import SightlineError
from sightline.library import Library
from sightline.search.events import Event, FileDone
from sightline.store.lance import LanceStore
from sightline.testing import ToyEmbedder
from tests.torture.here import decoding_here
from tests.torture.tally import Tally
from tests.torture.victims import Report

DIM: Final = 16
GROUP: Final = 8
"""Rows that are written together by the writers that are watched by readers."""

POINTS: Final[dict[str, tuple[str, str, tuple[str, str] | None]]] = {
    "": ("", "", None),
    "sync": ("s", "", None),
    "decoded": ("", "", ("Reading", "_tell_units")),
    "embedded": ("", "after", ("ToyEmbedder", "_one")),
    "begun": ("", "", ("LanceStore", "add")),
    "data file": ("w", "/data/", None),
    "transaction": ("cwlr", "/_transactions/", None),
    "manifest begun": ("cw", "/_versions/", None),
    "manifest linked": ("lr", "/_versions/", None),
    "added": ("", "after", ("LanceStore", "add")),
    "ledger": ("ws", "ledger.sqlite", None),
    "index build": ("cwlr", "/_indices/", None),
    "compaction": ("cwlru", "", ("LanceStore", "optimize")),
    "delete": ("cwlr", "", ("LanceStore", "delete_paths")),
}
"""Places where a process can be stopped: letters and part of the path (see faults.c), and the method inside which they
count. Without letters, the process dies where the method begins, or "after" it."""


# --- files -----------------------------------------------------------------------------------------------------------


def make_notes(folder: Path, number: int) -> None:
    """Small texts of one or several passages."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in range(number):
        words = " ".join(f"word{(one * 7 + step) % 97}" for step in range(20 + one % 3 * 300))
        (folder / f"note-{one:03d}.txt").write_text(f"Note number {one}.\n\n{words}\n", encoding="utf-8")


def changing(folder: Path) -> list[str]:
    """Files that change once in the life of an index."""
    return [os.fspath(path) for path in sorted(folder.glob("note-*3.txt"))]


def change(path: str) -> None:
    """Longer or shorter than before, and the same however often."""
    stem = Path(path).stem
    Path(path).write_text(f"Changed {stem}.\n\n" + f"other {stem} " * (5 + int(stem[-3:]) % 50 * 20), encoding="utf-8")


def leaving(folder: Path) -> list[str]:
    """Files that are taken out of the index, and brought back at the end."""
    return [os.fspath(path) for path in sorted(folder.glob("note-*5.txt"))]


# --- indexes ---------------------------------------------------------------------------------------------------------


def add(index: Path, files: Path, *, pool: bool = False) -> Report:
    """Bring an index to its end, here, in this process."""
    report = Report()

    def tell(event: Event) -> None:
        if isinstance(event, FileDone):
            report.files[event.path] = event.units

    with decoding_here(not pool), Library.open(index, embedder=ToyEmbedder(dim=DIM)) as library:
        library.add([files], on_event=tell)
    return report


def rows(index: Path) -> list[tuple[Any, ...]]:
    """Everything in the index, without the times of files."""
    store = LanceStore(index)
    try:
        found = store.get(sorted(store.ids()))
        return sorted((r.id, r.path, r.kind, r.page, r.start_s, r.end_s, r.title, r.text, r.vector.tobytes())
                      for r in found)  # fmt: skip
    finally:
        store.close()


def duplicates(index: Path) -> int:
    """Rows beyond the first of each id, as Lance itself reads them."""
    ids = lance.dataset(str(index / "items.lance")).to_table(columns=["id"])["id"].to_pylist()
    return len(ids) - len(set(ids))


@dataclass(frozen=True, slots=True)
class Whole:
    """What an uninterrupted run makes of the same files."""

    rows: list[tuple[Any, ...]]

    @classmethod
    def of(cls, files: Path, scratch: Path, *, pool: bool = False) -> Whole:
        """Run it."""
        add(scratch, files, pool=pool)
        return cls(rows(scratch))


def judge(name: str, index: Path, report: Report) -> Tally:
    """One trial, right after the index was hit: it opens, and what was acknowledged is there once."""
    try:
        library = Library.open(index, embedder=ToyEmbedder(dim=DIM))
    except SightlineError as error:
        return Tally(name, 1, unopenable=1, said=f"does not open: {error}")
    except Exception as error:  # anything else is worse: a traceback instead of a sentence
        return Tally(name, 1, unopenable=1, wrong=1, said=f"does not open: {error!r}")
    with library:
        states = {state.path: state for state in library.files()}
    try:
        table = lance.dataset(str(index / "items.lance")).to_table(columns=["id", "path"])
    except (OSError, ValueError) as error:
        return Tally(name, 1, unopenable=1, said=f"opens, and does not read: {str(error)[:200]}")
    have = Counter(table["path"].to_pylist())
    twice = table.num_rows - len(set(table["id"].to_pylist()))
    lost = [
        path
        for path, units in report.files.items()
        if path not in states or states[path].status != "done" or states[path].units != units or have[path] != units
    ]
    back = [path for path in report.removed if have[path] or path in states]
    said = ""
    if lost:
        state = states.get(lost[0])
        said = f"lost {Path(lost[0]).name}: {state and (state.status, state.units)}, {have[lost[0]]} rows"
    elif twice:
        said = f"{twice} rows twice"
    elif back:
        said = f"{Path(back[0]).name} had been removed and is back"
    return Tally(name, 1, lost=len(lost), duplicated=twice, wrong=len(back), said=said)


def _shown(some: list[tuple[Any, ...]]) -> str:
    """A row in a few words: where it is from, what it says, and a part of its vector."""
    return "; ".join(f"{Path(row[1]).name} {row[:1] + row[2:6]} {row[6:8]!r:.160} {row[8].hex()[:16]}" for row in some)


def finish(name: str, index: Path, files: Path, whole: Whole, *, pool: bool = False) -> Tally:
    """The end of a trial: the next run brings the index to what an uninterrupted one makes, and finds it sound."""
    try:
        add(index, files, pool=pool)
        have = rows(index)
        again = add(index, files, pool=pool)
        with Library.open(index) as library:
            problems = [one for one in library.check() if one.code not in ("skipped", "partly_skipped")]
    except SightlineError as error:
        return Tally(name, unopenable=1, said=f"cannot be gone on with: {error}")
    gone, new = sorted(set(whole.rows) - set(have)), sorted(set(have) - set(whole.rows))
    missing, other = len(gone), len(new)
    said = ""
    if missing or other:
        said = f"{missing} rows missing and {other} others at the end: {_shown(gone[:1])} and {_shown(new[:1])}"
    said = said or (f"check: {problems[0].detail}" if problems else "")
    said = said or (f"{len(again.files)} files indexed again" if again.files else "")
    return Tally(name, lost=missing, wrong=other + len(problems) + len(again.files),
                 duplicated=duplicates(index), said=said)  # fmt: skip
