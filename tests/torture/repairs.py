"""An index is damaged in one to three of eight ways at once; a repair and one run of indexing make it whole again.

Afterwards every file is there once with the row that an undamaged index has, every label is there, and ``check``
finds nothing. A dry run before it must change no byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np

from sightline.library import Library, repair_ledger
from sightline.store.ledger import LEDGER_NAME, Ledger
from sightline.store.schema import Row, path_id
from sightline.testing import ToyEmbedder
from tests.torture.tally import Tally

NUM_FILES = 24
NAME = "damage and repair"


def trials(number: int, seed: int) -> Tally:
    """``number`` damaged indexes."""
    started = time.perf_counter()
    chance = random.Random(seed)
    tally = Tally(NAME)
    with tempfile.TemporaryDirectory() as scratch:
        folder, first = Path(scratch, "files"), Path(scratch, "first")
        folder.mkdir()
        for file in range(NUM_FILES):
            (folder / f"{file}.txt").write_text(f"Note {file}: word{file} bicycle.", encoding="utf-8")
        with Library.open(first, embedder=ToyEmbedder()) as library:
            library.add(folder)
            library.optimize()
            library.remove(folder / "0.txt")
            library.add(folder)
            hit = library.search("word3", k=1)[0]
            library.labels.put("q", json.dumps("word3"), hit.id, 1, path=hit.path, kind=hit.kind)
            wanted = _rows(library)
        for trial in range(number):
            index = Path(scratch, f"trial-{trial}")
            shutil.copytree(first, index)
            ways = chance.sample(sorted(WAYS), chance.randint(1, 3))
            # the ledger's file last: the others must read it
            for way in sorted(ways, key=lambda way: way == "ledger page"):
                WAYS[way](index, folder, chance)
            tally += _judge(index, folder, wanted, ways)
            shutil.rmtree(index)
    return Tally(NAME, tally.trials, tally.lost, tally.duplicated, tally.unopenable, tally.deaths, tally.wrong,
                 time.perf_counter() - started, tally.said)  # fmt: skip


def _judge(index: Path, folder: Path, wanted: dict[str, tuple[str, bytes]], ways: list[str]) -> Tally:
    said = ", ".join(ways)
    try:
        planned = repair_ledger(index)
        if planned is None:
            with Library.open(index) as library:  # opening heals what it can: that is no dry run
                before = _bytes(index)
                planned_too = library.repair().repaired
            wrong = int(_bytes(index) != before)
        else:
            wrong, planned_too = 0, (planned,)
        repair_ledger(index, dry_run=False)
        with Library.open(index, embedder=ToyEmbedder()) as library:
            done = library.repair(dry_run=False)
            wrong += len([one for one in done.left if one.code != "unfinished"])
            library.add(folder)
            left = library.check()
            ids = list(library._store.ids())
            lost = len(wanted.keys() - _rows(library).keys()) + int(len(list(library.labels)) != 1)
            wrong += int(_rows(library) != wanted) + len(left)
        wrong += int(not planned_too)
    except Exception as error:  # whatever it is, the index does not open or is not repaired
        return Tally(NAME, trials=1, unopenable=1, said=f"{said}: {type(error).__name__}: {error}"[:200])
    bad = bool(wrong or lost or len(ids) != len(set(ids)))
    note = f"{said}: {[one.code for one in (*left, *done.left)]}"[:200] if bad else ""
    return Tally(NAME, trials=1, lost=lost, duplicated=len(ids) - len(set(ids)), wrong=wrong, said=note)


def _rows(library: Library) -> dict[str, tuple[str, bytes]]:
    rows = library._store.get(sorted(set(library._store.ids())))
    return {row.id: (row.path, row.vector.tobytes()) for row in rows}


def _bytes(index: Path) -> dict[str, str]:
    """Hashes of all files but those that merely reading a database writes."""
    files = (path for path in index.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal", ".lock")))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- ways of damage --------------------------------------------------------------------------------------------------


def _some(folder: Path, chance: random.Random) -> list[Path]:
    return chance.sample(sorted(folder.iterdir()), chance.randint(1, 5))


def _doubled(index: Path, folder: Path, chance: random.Random) -> None:
    place = str(index / "items.lance")
    table = lance.dataset(place).to_table()
    lance.write_dataset(table.slice(0, chance.randint(1, len(table))), place, mode="append")


def _zeroed(index: Path, folder: Path, chance: random.Random) -> None:
    place = str(index / "items.lance")
    table = lance.dataset(place).to_table()
    row = {name: table[name][0].as_py() for name in table.schema.names}
    path = str(chance.choice(sorted(folder.iterdir())))
    row.update(id=f"{chance.getrandbits(128):032x}", path=path, path_id=path_id(path), vector=[0.0] * 64)
    lance.write_dataset(table.slice(0, 0).from_pylist([row], table.schema), place, mode="append")


def _forgotten(index: Path, folder: Path, chance: random.Random) -> None:
    ledger = Ledger(index)
    ledger.forget([str(path) for path in _some(folder, chance)])
    ledger.close()


def _missing(index: Path, folder: Path, chance: random.Random) -> None:
    gone = ", ".join(f"'{path_id(str(path))}'" for path in _some(folder, chance))
    lance.dataset(str(index / "items.lance")).delete(f"path_id IN ({gone})")


def _stranger(index: Path, folder: Path, chance: random.Random) -> None:
    path = str(folder / f"gone-{chance.random()}.txt")
    vector = np.ones(64, np.float32)
    with Library.open(index) as library:
        library._store.add([Row(id=path_id(path), path_id=path_id(path), path=path, kind="text", vector=vector)])


def _past(index: Path, folder: Path, chance: random.Random) -> None:
    manifests = sorted((index / "items.lance" / "_versions").glob("*.manifest"))
    for manifest in chance.sample(manifests[2:], 2):
        os.truncate(manifest, chance.choice((0, 20)))


def _skipped(index: Path, folder: Path, chance: random.Random) -> None:
    ledger = Ledger(index)
    for path in _some(folder, chance):
        if ledger.file(str(path)) is not None:
            ledger.skip(str(path), "corrupt")
    ledger.close()


def _ledger_page(index: Path, folder: Path, chance: random.Random) -> None:
    db = sqlite3.connect(index / LEDGER_NAME)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'files'").fetchone()[0]
    size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    with (index / LEDGER_NAME).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(chance.randbytes(size))


WAYS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "doubled rows": _doubled,
    "zero vector": _zeroed,
    "forgotten files": _forgotten,
    "missing rows": _missing,
    "strange rows": _stranger,
    "past versions": _past,
    "skipped with rows": _skipped,
    "ledger page": _ledger_page,
}
