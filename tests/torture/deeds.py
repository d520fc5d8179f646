"""What the children of ``victims`` do. Each takes ``say``, which writes a line of its report, and its options."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sightline import library as library_module
from sightline.errors import IndexLockedError, SightlineError, StoreError
from sightline.library import Library
from sightline.search import ingest, reading
from sightline.search.events import FileDone
from sightline.store.lance import LanceStore
from sightline.store.schema import Row, path_id
from sightline.testing import ToyEmbedder
from tests.torture import faults, oracle
from tests.torture.here import Here, decoding_here

Say = Callable[..., None]


class Slow(ToyEmbedder):
    """Takes its time for each unit, and says so."""

    def __init__(self, say: Say, delay_s: float) -> None:
        super().__init__(dim=oracle.DIM)
        self._say, self._delay_s = say, delay_s

    def stream(self, items: Any, **options: Any) -> Iterator[Any]:
        for vector in super().stream(items, **options):
            if self._delay_s:
                time.sleep(self._delay_s)
            yield vector
            self._say("unit")


def _set_up(commit_rows: int, pool: bool) -> None:
    vars(ingest)["COMMIT_ROWS"] = commit_rows  # many commits, many moments to be killed at
    if not pool:
        vars(library_module)["DecodePool"] = Here


def _told(say: Say) -> Callable[[Any], None]:
    def tell(event: Any) -> None:
        if isinstance(event, FileDone):
            say("file", event.path, event.units)

    return tell


def index(
    say: Say,
    *,
    folder: str,
    files: str,
    delay_s: float = 0.0,
    commit_rows: int = 8,
    pool: bool = False,
    merge: bool = False,
) -> None:
    """Add a folder to an index; with ``merge``, optimize it first."""
    _set_up(commit_rows, pool)
    with Library.open(folder, embedder=Slow(say, delay_s)) as library:
        if merge:
            say("unit")
            library.optimize()
        report = library.add([files], on_event=_told(say))
        say("report", report.seen, report.indexed, report.unchanged, len(report.skipped), report.deferred)


def life(
    say: Say,
    *,
    folder: str,
    files: str,
    point: dict[str, Any] | None = None,
    journal: str = "",
    graves: str = "",
    budget: int = -1,
) -> None:
    """A short life of an index: made, filled, merged; files change, come and go; merged again."""
    _set_up(6, pool=False)
    index, source = Path(folder), Path(files)
    if journal:
        faults.keep_journal(Path(journal), Path(graves))
    if point is not None:
        _arm(index, **point)
    if budget >= 0:
        faults.arm(index, "count", 0)
        faults.limit_bytes(budget)
    try:
        with Library.open(folder, embedder=ToyEmbedder(dim=oracle.DIM)) as library:
            library.add([source], on_event=_told(say))
            library.optimize()
            for path in oracle.changing(source):
                say("change", path)
                oracle.change(path)
            library.add([source], on_event=_told(say))
            for path in oracle.leaving(source):
                say("remove", path)
                library.remove([path])
                say("removed", path)
            library.optimize()
            for path in oracle.leaving(source):
                say("change", path)
            library.add([source], on_event=_told(say))
    finally:
        if faults.library() is not None:
            say("seen", faults.seen())


def _arm(index: Path, name: str, deed: faults.Deed, nth: int, error: int = 0) -> None:
    """Make ready for one point of ``oracle.POINTS``, or for everything with the name ""."""
    letters, part, inside = oracle.POINTS[name]
    if not inside:
        faults.arm(index, deed, nth, letters=letters, part=part, error=error)
        return
    owner: Any = {"LanceStore": LanceStore, "Reading": reading.Reading, "ToyEmbedder": ToyEmbedder}[inside[0]]
    plain = getattr(owner, inside[1])
    passed = [0]

    def instead(*values: Any, **options: Any) -> Any:
        passed[0] += 1
        if passed[0] == nth and not letters:
            if part == "after":
                plain(*values, **options)
            os.kill(os.getpid(), 9)
        if letters:  # armed only inside
            faults.arm(index, deed, nth, letters=letters, part=part, error=error)
        try:
            return plain(*values, **options)
        finally:
            if letters:
                faults.disarm()

    setattr(owner, inside[1], instead)


def _row(number: int, text: str = "") -> Row:
    vector = np.random.default_rng(number).standard_normal(oracle.DIM).astype(np.float32)
    path = f"/group/{number // oracle.GROUP}"
    return Row(id=f"row-{number:06d}", path_id=path_id(path), path=path, kind="page", page=number % oracle.GROUP,
               text=text, vector=vector)  # fmt: skip


class _NoLock:
    """What happens where locks do not work, as on some network disks."""

    depth = 1

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def unlocked(say: Say, *, folder: str, rounds: int, gate: str) -> None:
    """Without the lock, add in each round the rows that another process adds at the same time."""
    store = LanceStore(Path(folder), dim=oracle.DIM)
    store.lock = _NoLock()  # type: ignore[assignment]
    for number in range(rounds):
        rows = [_row(number * oracle.GROUP + one) for one in range(oracle.GROUP)]
        say("ready")
        while not Path(f"{gate}-{number}").exists():
            time.sleep(0.0005)
        for _ in range(50):
            try:
                store.add(rows)
                break
            except StoreError:  # two commits met: an error the caller sees, and no duplicate
                time.sleep(0.02)
        else:
            raise StoreError(f"round {number} never got in")
        say("added", number)
    store.close()


def patient(say: Say, *, folder: str, files: str, gate: str) -> None:
    """Add a folder as one of two writers; the one that is refused says by whom, and tries again."""
    _set_up(4, pool=False)
    while not Path(gate).exists():
        time.sleep(0.0005)
    for _ in range(2000):
        try:
            with Library.open(folder, embedder=ToyEmbedder(dim=oracle.DIM)) as library:
                say("adding")
                library.add([files], on_event=_told(say))
            return
        except IndexLockedError as error:
            say("locked", error)
            time.sleep(0.01)
    raise StoreError("the lock never came free")


def read(say: Say, *, folder: str, queries: int, seed: int) -> None:
    """Ask again and again; every answer must be of one version: whole groups, one text in each."""
    store = LanceStore(Path(folder))
    chance = np.random.default_rng(seed)
    say("ready")
    for number in range(queries):
        if number % 50 == 49:
            store.close()
            store = LanceStore(Path(folder))
        wrong = ""
        try:
            way = number % 4
            if way < 2:
                hits = store.search_vector(chance.standard_normal(oracle.DIM), 10_000)
                wrong = _torn([(hit.path, hit.text) for hit in hits])
            elif way == 2:
                words, pieces = store.search_words("generation", 10_000)
                wrong = _torn([(hit.path, hit.text) for hit in words]) or _torn([(h.path, h.text) for h in pieces])
            elif store.count() % oracle.GROUP:
                wrong = f"{store.count()} rows"
        except SightlineError as error:
            wrong = f"{type(error).__name__} {error} {error.__cause__!r}"
        say("wrong" if wrong else "query", wrong.replace("\n", " "))
    store.close()


def _torn(hits: list[tuple[str, str]]) -> str:
    groups: dict[str, list[str]] = {}
    for path, text in hits:
        groups.setdefault(path, []).append(text)
    for path, texts in groups.items():
        if len(texts) != oracle.GROUP or len(set(texts)) != 1:
            return f"{path}: {len(texts)} rows, {sorted(set(texts))}"
    return ""


def churn(say: Say, *, folder: str, stop: str, keep_s: float) -> None:
    """Write for the readers: groups come, are replaced and go, files are merged, old versions dropped."""
    from sightline.store import lance as lance_module

    vars(lance_module)["KEEP_S"] = keep_s
    store = LanceStore(Path(folder), dim=oracle.DIM)
    say("ready")
    number = 0
    while not Path(stop).exists():
        group = number % 24
        rows = [_row(group * oracle.GROUP + one, f"generation {number}") for one in range(oracle.GROUP)]
        if number % 5 == 4:
            store.delete_paths([rows[0].path_id])
        else:
            store.add(rows)
        if number % 9 == 8:
            store.optimize()
            say("optimized")
        say("wrote")
        number += 1
    store.close()


def look(say: Say, *, folder: str) -> None:
    """Search."""
    with Library.open(folder, embedder=ToyEmbedder(dim=oracle.DIM)) as library:
        say("found", len(library.search("note number", k=5)))


def refused(say: Say, *, folder: str, files: str, user: int) -> None:
    """Where nothing can be written: search, then try to add, and say why not and with which exit code."""
    if user:
        os.setgid(user)
        os.setuid(user)
    with decoding_here(), Library.open(folder, embedder=ToyEmbedder(dim=oracle.DIM)) as library:
        say("found", len(library.search("note number", k=5)))
        try:
            library.add([files])
            say("written")
        except StoreError as error:
            say("exit", error.exit_code, error)
