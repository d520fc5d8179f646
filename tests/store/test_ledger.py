"""The ledger keeps what it was told, whatever the path, whoever reads, whenever it is killed."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sightline.errors import ConfigError, StoreError
from sightline.store import ledger as ledger_module
from sightline.store.ledger import LEDGER_NAME, STAMP_NAME, Ledger, read_stamp
from sightline.store.schema import path_id


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path)
    yield made
    made.close()
    made.close()


def test_the_life_of_a_file(ledger: Ledger) -> None:
    assert ledger.file("/a") is None
    state = ledger.begin("/a", 10, 20, "hash", {"rating": 5})
    assert (state.status, state.attempts, state.units, state.columns) == ("pending", 1, 0, {"rating": 5})
    assert (state.path, state.path_id, state.size, state.mtime_ns) == ("/a", path_id("/a"), 10, 20)
    ledger.done("/a", 3)
    state = ledger.file("/a")  # type: ignore[assignment]
    assert (state.status, state.units) == ("done", 3) and abs(state.updated_s - time.time()) < 60
    assert ledger.begin("/a", 11, 21, "other").units == 3, "its old rows are still in the index"
    ledger.skip("/a", "corrupt", "the file is damaged")
    assert [(f.path, f.code, f.detail, f.units) for f in ledger.failures()] == [
        ("/a", "corrupt", "the file is damaged", 0)
    ]
    ledger.touch("/a", 11, 99)
    state = ledger.file("/a")  # type: ignore[assignment]
    assert (state.status, state.mtime_ns) == ("skipped", 99)
    assert ledger.forget(["/a", "/b"]) == 1
    assert ledger.file("/a") is None


def test_attempts_count_until_the_content_changes(ledger: Ledger) -> None:
    assert [ledger.begin("/a", 1, 1, content).attempts for content in ("x", "x", "x", "y", "y")] == [1, 2, 3, 1, 2]
    ledger.skip("/a", "crash")
    assert ledger.begin("/a", 1, 1, "y").code == ""


def test_a_file_must_be_begun(ledger: Ledger) -> None:
    for verb in (lambda: ledger.done("/a", 1), lambda: ledger.skip("/a", "x"), lambda: ledger.touch("/a", 1, 1)):
        with pytest.raises(StoreError, match="begin it first"):
            verb()


def test_lists_and_counts(ledger: Ledger) -> None:
    for n in range(2500):
        path = f"/{'even' if n % 2 == 0 else 'odd'}/{n:04d}"
        with ledger.batch():
            ledger.begin(path, n, n, f"h{n % 10}")
            if n % 5 == 0:
                ledger.skip(path, "empty")
            elif n % 5 == 1:
                ledger.done(path, 1)
    assert ledger.counts() == {"pending": 1500, "done": 500, "skipped": 500}
    assert ledger.counts("/odd") == {"pending": 750, "done": 250, "skipped": 250}
    assert [f.path for f in ledger.files()] == sorted(f.path for f in ledger.files())
    assert sum(1 for _ in ledger.files()) == 2500
    assert sum(1 for _ in ledger.files("pending", "/even")) == 750
    assert sum(1 for _ in ledger.files(under="/even/")) == 1250 and sum(1 for _ in ledger.files(under="/")) == 2500
    assert [f.path for f in ledger.files(under="/odd/0001")] == ["/odd/0001"]
    assert list(ledger.files(under="/od")) == [] and len(ledger.failures()) == 500
    assert len(ledger.same_content("h3")) == 250
    with pytest.raises(ConfigError, match="pending, done, skipped"):
        list(ledger.files("gone"))  # type: ignore[arg-type]


def test_paths_of_any_bytes(ledger: Ledger, hostile_names: list[str]) -> None:
    names = [*hostile_names, os.fsdecode(b"\xfd/\x80"), "a" * 5000]
    for n, name in enumerate(names):
        ledger.begin(f"/d/{name}", n, 0, "h", {"name": name})
        ledger.done(f"/d/{name}", n)
    assert {f.path for f in ledger.files()} == {f"/d/{name}" for name in names}
    for n, name in enumerate(names):
        state = ledger.file(f"/d/{name}")
        assert state is not None and (state.units, state.columns) == (n, {"name": name})
        assert [f.path for f in ledger.files(under=f"/d/{name}")] == [f"/d/{name}"]
    for n, name in enumerate(names):
        assert ledger.forget([f"/d/{name}"]) == 1
        assert sum(ledger.counts().values()) == len(names) - n - 1


def test_a_batch_is_kept_whole_or_not_at_all(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.batch():
        ledger.begin("/a", 1, 1, "h")
        with ledger.batch():
            ledger.begin("/b", 1, 1, "h")
        raise ZeroDivisionError
    assert list(ledger.files()) == []
    with ledger.batch():
        ledger.begin("/a", 1, 1, "h")
    assert ledger.file("/a") is not None


def test_wal_and_full_synchronous(ledger: Ledger) -> None:
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_threads_read_while_one_writes_and_another_process_too(ledger: Ledger, tmp_path: Path) -> None:
    errors: list[BaseException] = []
    stop = threading.Event()
    other = Ledger(tmp_path)

    def read(handle: Ledger) -> None:
        try:
            while not stop.is_set():
                listed = sum(1 for _ in handle.files())
                assert listed % 2 == 0, "two files come in one transaction"
        except BaseException as error:  # of a thread; the test asserts that there is none
            errors.append(error)

    threads = [threading.Thread(target=read, args=(handle,)) for handle in (ledger, ledger, other)]
    for thread in threads:
        thread.start()
    for n in range(100):
        with ledger.batch():
            ledger.begin(f"/a{n}", 1, 1, "h")
            ledger.begin(f"/b{n}", 1, 1, "h")
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == [] and sum(other.counts().values()) == 200
    other.close()


# --- meta and its copy -----------------------------------------------------------------------------------------------


def test_meta_is_kept_twice(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.read_meta() == {} and read_stamp(tmp_path) is None
    ledger.write_meta({"card": {"model": "builtin", "dim": 64}, "format": 1})
    ledger.write_meta({"format": 2, "created": "2026-11-21", "text": "\udce9 é"})
    wanted = {"card": {"model": "builtin", "dim": 64}, "format": 2, "created": "2026-11-21", "text": "\udce9 é"}
    assert ledger.read_meta() == read_stamp(tmp_path) == wanted
    assert not (tmp_path / f"{STAMP_NAME}.new").exists()


@pytest.mark.parametrize("loss", ["removed", "empty"])
def test_a_lost_ledger_is_told_from_a_new_index(tmp_path: Path, loss: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path)
    assert not ledger.restarted
    ledger.write_meta({"card": {"model": "m"}})
    ledger.begin("/a", 1, 1, "h")
    ledger.close()
    again = Ledger(tmp_path)
    assert not again.restarted and again.counts()["pending"] == 1
    again.close()
    for path in tmp_path.glob(f"{LEDGER_NAME}*"):
        path.unlink()
    if loss == "empty":
        (tmp_path / LEDGER_NAME).touch()
    lost = Ledger(tmp_path)
    assert lost.restarted and "was lost" in caplog.text
    assert lost.read_meta() == {"card": {"model": "m"}} and list(lost.files()) == []
    lost.close()


@pytest.mark.parametrize("text", ["", "garbage", "[1]", "\0"])
def test_a_damaged_stamp_is_no_stamp(tmp_path: Path, text: str) -> None:
    (tmp_path / STAMP_NAME).write_text(text)
    assert read_stamp(tmp_path) is None
    ledger = Ledger(tmp_path)
    ledger.write_meta({"a": 1})
    assert json.loads((tmp_path / STAMP_NAME).read_text()) == {"a": 1}
    ledger.close()


# --- formats ---------------------------------------------------------------------------------------------------------


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    db = sqlite3.connect(tmp_path / LEDGER_NAME)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match=r"format 99.*up to 2.*upgrade"):
        Ledger(tmp_path)


def test_migrations_are_applied_once_in_order_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Ledger(tmp_path)
    old.begin("/a", 1, 1, "h")
    old.close()

    def second(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE files ADD COLUMN note TEXT")

    def broken(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE half (x)")
        raise ZeroDivisionError

    have = ledger_module.MIGRATIONS[:]
    monkeypatch.setattr(ledger_module, "MIGRATIONS", [*have, second, broken])
    with pytest.raises(ZeroDivisionError):
        Ledger(tmp_path)
    monkeypatch.setattr(ledger_module, "MIGRATIONS", [*have, second])
    new = Ledger(tmp_path)
    assert new._db.execute("SELECT number FROM migrations ORDER BY number").fetchall() == [(1,), (2,), (3,)]
    assert new._version() == 3 and new.file("/a") is not None
    assert new._db.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    new.close()


@pytest.mark.parametrize(
    "contents", [b"not a database, but long enough to be looked at" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_ledger_says_what_to_do(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / LEDGER_NAME).write_bytes(contents)
    with pytest.raises(StoreError, match="damaged; move it away"):
        Ledger(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        Ledger(tmp_path / "none")


KILLED = """
import sys
from pathlib import Path
from sightline.store.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), 100000):
    ledger.begin(f"/{n}", n, n, "h")
    ledger.done(f"/{n}", 1)
    print(n, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_was_promised(tmp_path: Path) -> None:
    last = -1
    for pause in (0.0, 0.01, 0.05, 0.2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(last + 1)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = [int(process.stdout.readline())]
        time.sleep(pause)
        process.kill()
        said += [int(one) for one in process.stdout.read().split("\n") if one]
        process.communicate()
        last = max(said)
        ledger = Ledger(tmp_path)
        done = {f.path for f in ledger.files("done")}
        assert {f"/{n}" for n in range(last + 1)} <= done
        assert sum(ledger.counts().values()) <= last + 2
        ledger.close()


def test_a_folder_that_cannot_be_synced_is_an_error_of_ours(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ledger_module, "sync_folder", fail)
    with pytest.raises(StoreError, match="cannot be opened: Input/output error"):
        Ledger(tmp_path)
