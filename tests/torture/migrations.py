"""A migration of the ledger killed at points spread over all its steps: what is left is the old format or the new.

A trial: a ledger of the first format with some hundred files is opened by a child that kills itself (SIGKILL) after
a given number of steps of SQLite's machine. Then its pages must fit together, its format must be one of those there
are, with exactly the tables of that format, and opening it must bring it to the newest with every file in it.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sightline.store import ledger as ledger_module
from sightline.store.ledger import LEDGER_NAME, Ledger
from tests.torture.tally import Tally

NUM_FILES = 300
FIRST_STEPS = 400
"""Opening and the migrations there really are."""
TIMEOUT_S = 120.0


def _weigh(db: sqlite3.Connection) -> None:
    """A migration as a later version may bring it: a column, an index, every row written."""
    db.execute("ALTER TABLE files ADD COLUMN weight INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE files SET weight = size * 2")
    db.execute("CREATE INDEX files_weight ON files (weight)")


def with_a_later_one() -> None:
    """The migrations there are, and one more."""
    vars(ledger_module)["MIGRATIONS"] = [*ledger_module.MIGRATIONS, _weigh]


def trials(number: int, seed: int) -> Tally:
    """``number`` kills, from the first step to the last."""
    started = time.perf_counter()
    tally = Tally("migration killed")
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch, "first")
        _first_format(first)
        shapes = _shapes(Path(scratch, "shapes"))
        steps = _child(_copied(first, Path(scratch, "whole")), 0)
        chance = random.Random(seed)
        left: dict[int, int] = {}
        for trial in range(number):
            folder = _copied(first, Path(scratch, f"trial-{trial}"))
            # half of the kills among the first steps and half among all: the last migration takes nearly all of them
            most = min(steps, FIRST_STEPS) if trial % 2 else steps
            width = most / number
            _child(folder, max(1, round(trial * width + chance.random() * width)))
            tally += _judge(folder, shapes, left)
    formats = ", ".join(f"{num} x {version}" for version, num in sorted(left.items()))
    said = tally.said or f"{steps} steps; formats left behind: {formats}"
    return Tally(tally.test, tally.trials, tally.lost, 0, tally.unopenable, tally.deaths, tally.wrong,
                 time.perf_counter() - started, said)  # fmt: skip


def _judge(folder: Path, shapes: dict[int, set[str]], left: dict[int, int]) -> Tally:
    with contextlib.closing(sqlite3.connect(folder / LEDGER_NAME)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        sound = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        half = version not in shapes or _shape(db) != shapes[version]
    left[version] = left.get(version, 0) + 1
    kept = list(ledger_module.MIGRATIONS)
    with_a_later_one()
    try:
        ledger = Ledger(folder)
        num_files = len(list(ledger.files("done")))
        weighed = ledger.read("SELECT COUNT(*) FROM files WHERE weight = size * 2")[0][0]
        ledger.close()
    except Exception as error:  # whatever it is, the ledger does not open
        return Tally("migration killed", trials=1, unopenable=1, said=f"version {version}: {error}")
    finally:
        vars(ledger_module)["MIGRATIONS"] = kept
    wrong = int(half or not sound or weighed != NUM_FILES)
    return Tally(
        "migration killed",
        trials=1,
        lost=NUM_FILES - num_files,
        wrong=wrong,
        said=f"version {version} is half done" if wrong else "",
    )


def _first_format(folder: Path) -> None:
    """A ledger as the first version made it, with files in it."""
    folder.mkdir()
    kept = list(ledger_module.MIGRATIONS)
    vars(ledger_module)["MIGRATIONS"] = kept[:1]
    try:
        ledger = Ledger(folder)
        with ledger.batch():
            for number in range(NUM_FILES):
                ledger.begin(f"/files/{number}.txt", number, number, f"hash-{number}")
                ledger.done(f"/files/{number}.txt", 1)
        ledger.close()
    finally:
        vars(ledger_module)["MIGRATIONS"] = kept


def _shapes(folder: Path) -> dict[int, set[str]]:
    """Tables and indexes of each format, by its number."""
    shapes: dict[int, set[str]] = {}
    migrations = [*ledger_module.MIGRATIONS, _weigh]
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, applied_s REAL NOT NULL)")
    for number, migrate in enumerate(migrations, start=1):
        migrate(db)
        shapes[number] = _shape(db)
    db.close()
    return shapes


def _shape(db: sqlite3.Connection) -> set[str]:
    rows = db.execute("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master")
    return {" ".join(row[0].split()) for row in rows}


def _copied(source: Path, target: Path) -> Path:
    target.mkdir()
    (target / LEDGER_NAME).write_bytes((source / LEDGER_NAME).read_bytes())
    return target


def _child(folder: Path, steps: int) -> int:
    """Open the ledger in a child that dies after so many steps; 0 lets it live. Steps that it took, if it lived."""
    command = [sys.executable, "-m", "tests.torture.migrations", str(folder), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode not in (0, -9):
        raise RuntimeError(done.stderr[-500:])
    return int(done.stdout or 0)


def _die_after(folder: Path, steps: int) -> int:
    import os
    import signal

    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    connect = sqlite3.connect

    def watched(*given: object, **options: object) -> sqlite3.Connection:
        db = connect(*given, **options)  # type: ignore[call-overload]
        db.set_progress_handler(step, 1)
        return db  # type: ignore[no-any-return]

    vars(sqlite3)["connect"] = watched
    with_a_later_one()
    Ledger(folder).close()
    return taken


if __name__ == "__main__":
    print(_die_after(Path(sys.argv[1]), int(sys.argv[2])))
