"""What the other process does in the tests of locks and kills: ``child.py VERB FOLDER [ARGUMENTS]``. Started, never forked."""

import sys
import time
from pathlib import Path

import numpy as np

from sightline.errors import SightlineError
from sightline.store.schema import Row, path_id

DIM = 16
BATCH = 8


def row(number: int) -> Row:
    vector = np.random.default_rng(number).standard_normal(DIM).astype(np.float32)
    path = f"/files/{number // 4}"
    return Row(id=f"row-{number:05d}", path_id=path_id(path), path=path, kind="page", page=number % 4, text=f"w{number}",
               vector=vector, columns={f"c{number % 3}": number})  # fmt: skip


def say(word: str) -> None:
    print(word, flush=True)


def write(folder: Path, total: int) -> None:
    """Add rows in batches up to a total, saying which are acknowledged; look up what is there first, as a resume must."""
    from sightline.store.lance import LanceStore

    store = LanceStore(folder, dim=DIM, lock_timeout_s=10)
    say("open")
    for start in range(0, total, BATCH):
        numbers = range(start, min(start + BATCH, total))
        have = store.existing([row(number).id for number in numbers])
        missing = [row(number) for number in numbers if row(number).id not in have]
        if missing:
            store.add(missing)
        say(f"ack {numbers[-1] + 1}")
        if start and start % (BATCH * 6) == 0:
            store.optimize()
    say("end")


class NoLock:
    """What happens when the lock does not work, as on some network disks."""

    depth = 1

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def same(folder: Path, total: int, unlocked: bool) -> None:
    """Add the same rows as another process at the same time."""
    from sightline.store.lance import LanceStore

    store = LanceStore(folder, dim=DIM, lock_timeout_s=60)
    if unlocked:
        store.lock = NoLock()  # type: ignore[assignment]
    for start in range(0, total, BATCH):
        say("ready")  # the two begin each batch together
        sys.stdin.readline()
        for _ in range(20):
            try:
                store.add([row(number) for number in range(start, start + BATCH)])
                break
            except SightlineError:  # a conflict of two commits is an error the caller sees, not a duplicate
                if not unlocked:
                    raise
                time.sleep(0.05)
    say("end")


def hold(folder: Path) -> None:
    """Hold the lock until the end."""
    from sightline.store.lock import WriterLock

    with WriterLock(folder):
        say("held")
        time.sleep(600)


def read(folder: Path) -> None:
    """Say the count for every line read."""
    from sightline.store.lance import LanceStore

    store = LanceStore(folder)
    say("open")
    for _ in sys.stdin:
        say(f"{store.count()} {len(store.search_vector(row(0).vector, 1000))} {len(store.search_words('w3', 9)[0])}")


def read_only(folder: Path, user: int) -> None:
    """As a user who may not write: search, then try to write."""
    import os

    from sightline.store.lance import LanceStore
    from sightline.store.ledger import Ledger

    if os.geteuid() == 0:
        os.setgid(user)
        os.setuid(user)
    store = LanceStore(folder)
    ledger = Ledger(folder)
    say(
        f"{store.count()} {len(store.search_vector(row(0).vector, 5))} {len(store.search_words('w3', 9)[0])} {store.check()}"
    )
    say(f"{ledger.counts()} {ledger.read_meta()}")
    for write in (lambda: store.add([row(1)]), lambda: store.delete_paths([row(0).path_id]), store.optimize,
                  lambda: ledger.begin("/x", 1, 1, "h"), lambda: ledger.write_meta({"a": 1})):  # fmt: skip
        try:
            write()
            say("written")
        except SightlineError as error:
            say(f"{type(error).__name__} {error}")


if __name__ == "__main__":
    verb, folder = sys.argv[1], Path(sys.argv[2])
    if verb == "write":
        write(folder, int(sys.argv[3]))
    elif verb == "same":
        same(folder, int(sys.argv[3]), sys.argv[4] == "unlocked")
    elif verb == "hold":
        hold(folder)
    elif verb == "read":
        read(folder)
    elif verb == "read-only":
        read_only(folder, int(sys.argv[3]))
