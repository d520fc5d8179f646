"""The rules of the store on disk: durability, damage, several processes, upkeep."""

import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import psutil
import pytest

from sightline.errors import IndexLockedError, IndexMismatchError, StoreError
from sightline.store import durable, lance as lance_module
from sightline.store.durable import NewFiles
from sightline.store.lance import LanceStore
from sightline.store.ledger import Ledger
from sightline.store.schema import Filter, Row, path_id

DIM = 16
MakeRow = Callable[..., Row]


def start(child: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(child), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.rglob(pattern), key=lambda path: path.stat().st_mtime_ns)


def head(folder: Path) -> Path:
    return min((folder / "items.lance" / "_versions").glob("*.manifest"), key=lambda path: path.name)


def sound(folder: Path) -> LanceStore:
    store = LanceStore(folder)
    found = list(store.ids())
    assert len(found) == len(set(found)) == store.count()
    assert store.check() == []
    assert len(store.search_vector(np.ones(DIM), 10_000)) == store.count()
    return store


# --- layout ----------------------------------------------------------------------------------------------------------


def test_the_columns_are_those_of_the_rules(folder: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=300)
    vector = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    store.add([make_row(1, vector=vector, columns={"rating": 5})])
    dataset = lance.dataset(str(folder / "items.lance"))
    types = {field.name: str(field.type) for field in dataset.schema}
    assert types["vector"] == "fixed_size_list<item: halffloat>[300]"
    assert types["vector_small"] == "fixed_size_list<item: halffloat>[256]"
    assert types["bits"] == "fixed_size_list<item: uint8>[38]"
    assert types["user_rating"] == "int64"
    assert {"id", "path_id", "kind", "page", "start_s", "end_s", "title", "text"} <= set(types)
    assert not dataset.schema.field("id").nullable
    assert b"lance-schema:unenforced-primary-key" in b" ".join(dataset.schema.field("id").metadata)
    (record,) = dataset.to_table().to_pylist()
    small = np.array(record["vector_small"], np.float32)
    assert np.linalg.norm(small) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(small, vector[:256] / np.linalg.norm(vector[:256]), atol=1e-3)
    np.testing.assert_array_equal(np.unpackbits(np.array(record["bits"], np.uint8))[:300], vector > 0)
    assert not dataset.has_stable_row_ids, "stable row ids stay off"


def test_narrow_vectors_have_no_small_copy(folder: Path) -> None:
    LanceStore(folder, dim=256)
    assert "vector_small" not in lance.dataset(str(folder / "items.lance")).schema.names


def test_opening(folder: Path, make_row: MakeRow) -> None:
    with pytest.raises(StoreError, match="no index"):
        LanceStore(folder)
    assert not folder.exists()
    with pytest.raises(StoreError, match="at least one"):
        LanceStore(folder, dim=0)
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1)])
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.count()
    assert LanceStore(folder).count() == LanceStore(folder, dim=DIM).count() == 1
    with pytest.raises(IndexMismatchError, match="16 numbers, the model makes 32"):
        LanceStore(folder, dim=32)
    (tmp := folder.parent / "file").write_text("x")
    with pytest.raises(StoreError):
        LanceStore(tmp, dim=DIM)


def test_a_creation_that_was_killed_is_done_again(folder: Path) -> None:
    (folder / "making" / "items.lance" / "_versions").mkdir(parents=True)
    assert LanceStore(folder, dim=DIM).count() == 0
    assert not (folder / "making").exists()


# --- fsync -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Paths brought to the disk so far."""
    seen: set[str] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_every_write_is_on_the_disk_before_it_is_acknowledged(
    folder: Path, make_row: MakeRow, synced: set[str]
) -> None:
    table = folder / "items.lance"

    def files() -> set[str]:
        # the hint is Lance's own, is written over, and is not needed: see the next test
        return {str(path) for path in table.rglob("*") if path.is_file() and "hint" not in path.name}

    store = LanceStore(folder, dim=DIM)
    for write in (
        lambda: None,
        lambda: store.add([make_row(n) for n in range(20)]),
        lambda: store.add([make_row(30, columns={"rating": 5})]),
        lambda: store.delete_paths([make_row(3).path_id]),
        store.optimize,
        lambda: store.add([make_row(40)]),
    ):
        before = files()
        if write():
            new = files() - before
            assert new and new <= synced, write
            assert {
                str(parent) for path in new for parent in Path(path).parents if table in (parent, *parent.parents)
            } <= synced
            assert str(folder) in synced
            assert len(synced) < 10 + 2 * len(new), "a write syncs what is new, not everything"
        else:
            assert before <= synced, "a new index"
        synced.clear()


@pytest.mark.parametrize("hint", [b"", b"garbage", b'{"version":1}', b'{"version":99}', None])
def test_the_hint_of_the_newest_version_is_only_a_hint(filled: Path, hint: bytes | None) -> None:
    path = filled / "items.lance" / "_versions" / "latest_version_hint.json"
    path.unlink() if hint is None else path.write_bytes(hint)
    assert sound(filled).count() == 30


def test_what_a_dead_writer_left_is_synced_before_anyone_builds_on_it(
    folder: Path, make_row: MakeRow, synced: set[str]
) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1)])
    store.close()
    synced.clear()
    with LanceStore(folder).writing():
        assert str(newest(folder / "items.lance", "*.lance")) in synced
        assert str(head(folder)) in synced


@pytest.mark.parametrize("call", [0, 1, 2, 4])
def test_a_failed_fsync_takes_the_write_back(
    folder: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1)])
    reader = LanceStore(folder)
    calls = iter(range(1000))
    real = os.fsync

    def fails(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreError, match="cannot be written"):
        store.add([make_row(2)])
    monkeypatch.undo()
    assert store.count() == reader.count() == 1
    with pytest.raises(StoreError, match="could not be brought to the disk"):
        store.add([make_row(3)])
    again = sound(folder)
    again.add([make_row(2)])
    assert again.count() == 2


@pytest.mark.parametrize("verb", ["add", "optimize"])
def test_a_write_that_failed_without_a_word_is_taken_back(
    folder: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Lance commits a file of which the last write failed; seen with EIO while it merged files."""
    store = LanceStore(folder, dim=DIM)
    for number in range(3):
        store.add([make_row(number)])
    real, known = NewFiles.sync, set((folder / "items.lance" / "data").iterdir())

    def cut(self: NewFiles) -> int:
        for path in set((folder / "items.lance" / "data").iterdir()) - known:
            os.truncate(path, max(0, path.stat().st_size - 40))
        return real(self)

    monkeypatch.setattr(NewFiles, "sync", cut)
    with pytest.raises(StoreError, match="cannot be written"):
        store.optimize() if verb == "optimize" else store.add([make_row(9)])
    monkeypatch.undo()
    assert sound(folder).count() == 3
    assert sound(folder).optimize().files_after == 1


def test_one_commit_costs_few_milliseconds_of_sync(folder: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(n) for n in range(256)])
    files = NewFiles(folder / "items.lance")
    assert files.sync() > 0
    assert files.sync() == 0


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(folder: Path, make_row: MakeRow) -> Path:
    """An index of 30 rows, written ten by ten."""
    store = LanceStore(folder, dim=DIM)
    for first in (0, 10, 20):
        store.add([make_row(n, text="word") for n in range(first, first + 10)])
    store.close()
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: random.Random(0).randbytes(500),
        lambda data: data[: len(data) // 2],
        lambda data: b"\0" * len(data),
        lambda data: random.Random(0).randbytes(300) + data[-16:],
    ],
    ids=["zero-bytes", "garbage", "half", "zeros", "garbage-with-foot"],
)
def test_a_damaged_newest_manifest_heals(
    filled: Path, make_row: MakeRow, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    bad = head(filled)
    bad.write_bytes(damage(bad.read_bytes()))
    contents = bad.read_bytes()
    with caplog.at_level(logging.WARNING):
        store = sound(filled)
    assert store.count() == 20
    assert "was damaged (manifest)" in caplog.text and str(filled / "damaged") in caplog.text
    (aside,) = (filled / "damaged").iterdir()
    assert aside.read_bytes() == contents
    caplog.clear()
    store.add([make_row(n, text="word") for n in range(20, 40)])
    store.optimize()
    assert sound(filled).count() == 40
    assert caplog.text == "", "it is told once"


@pytest.mark.parametrize("size", [0, 700])
def test_a_data_file_cut_short_heals(filled: Path, size: int) -> None:
    os.truncate(newest(filled / "items.lance" / "data", "*"), size)
    assert sound(filled).count() == 20


def test_a_deletion_file_cut_short_heals(filled: Path, make_row: MakeRow) -> None:
    LanceStore(filled).delete_paths([make_row(3).path_id])
    os.truncate(newest(filled / "items.lance" / "_deletions", "*"), 20)
    assert sound(filled).count() == 30


def test_lost_transaction_files_do_no_harm(filled: Path, make_row: MakeRow) -> None:
    shutil.rmtree(filled / "items.lance" / "_transactions")
    store = sound(filled)
    assert store.add([make_row(77)]) == 1
    assert sound(filled).count() == 31


def cut_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 10)


@pytest.mark.parametrize("damage", [shutil.rmtree, cut_files])
def test_damaged_indexes_are_built_again(
    filled: Path, make_row: MakeRow, damage: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    LanceStore(filled).optimize()
    for index in (filled / "items.lance" / "_indices").iterdir():
        damage(index)
    with caplog.at_level(logging.WARNING):
        store = sound(filled)
    assert "built again" in caplog.text
    assert len(store.search_words("word", 100)[0]) == len(store.search_words("word", 100)[1]) == 30
    assert store.existing(["row-00007"]) == {"row-00007"}
    store.add([make_row(50, text="word")])
    assert len(store.search_words("word", 100)[0]) == 31


def test_damage_that_reaches_acknowledged_rows_is_not_healed_in_silence(filled: Path) -> None:
    files = sorted((filled / "items.lance" / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(files[0], 0)
    with pytest.raises(StoreError, match=r"beyond what can be repaired.*Restore a backup"):
        LanceStore(filled)
    assert not (filled / "damaged").exists(), "nothing was moved"


def test_an_index_without_any_version_says_so(filled: Path) -> None:
    for manifest in (filled / "items.lance" / "_versions").iterdir():
        manifest.unlink()
    with pytest.raises(StoreError, match="no version of it can be read"):
        LanceStore(filled)


@pytest.mark.slow
def test_power_cuts_lose_only_what_was_not_acknowledged(
    folder: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a write whose fsync never came are cut to nothing, to a part, or kept, in 25 random states."""
    chance = random.Random(7)
    real_sync = NewFiles.sync
    number = 0
    store = LanceStore(folder, dim=DIM)
    acknowledged: set[str] = set()
    for trial in range(25):
        rows = [make_row(n, text="word", path=f"/{n % 5}") for n in range(number, number + 10)]
        store.add(rows)
        acknowledged |= {row.id for row in rows}
        number += 10
        before = set(folder.rglob("*"))
        deleted: set[str] = set()

        def cut(self: NewFiles) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(NewFiles, "sync", cut)
        verb = trial % 4
        with pytest.raises(KeyboardInterrupt):
            store.lock.__enter__()  # as if inside a run: the first sync of a run is not what is tested
            try:
                if verb == 0:
                    store.delete_paths([path_id(f"/{trial % 5}")])
                elif verb == 1:
                    store.optimize()
                else:
                    columns = {f"c{trial}": 1} if verb == 2 else {}
                    store.add([make_row(n, text="word", columns=columns) for n in range(number, number + 10)])
            finally:
                store.lock.__exit__(None, None, None)
        monkeypatch.setattr(NewFiles, "sync", real_sync)
        if verb == 0:
            deleted = {row.id for row in store.get(sorted(acknowledged)) if row.path == f"/{trial % 5}"}
        for path in sorted(set(folder.rglob("*")) - before):
            if path.is_file():
                fate = chance.choice(["kept", "empty", "part"])
                if fate != "kept":
                    os.truncate(path, 0 if fate == "empty" else chance.randrange(path.stat().st_size))
        store = sound(folder)
        present = set(store.ids())
        assert acknowledged - deleted <= present, (trial, verb)
        assert {hit.id for hit in store.search_words("word", 10_000)[0]} == present
        acknowledged = present
    assert len(acknowledged) > 100


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["locked", "unlocked"])
def test_two_writers_of_the_same_rows_make_no_duplicates(folder: Path, child: Path, lock: str) -> None:
    LanceStore(folder, dim=DIM).close()
    writers = [start(child, "same", folder, 64, lock) for _ in range(2)]
    try:
        for _ in range(64 // 8):
            assert [line(writer) for writer in writers] == ["ready", "ready"]
            for writer in writers:
                assert writer.stdin is not None
                writer.stdin.write("go\n")
                writer.stdin.flush()
        assert [line(writer) for writer in writers] == ["end", "end"]
    finally:
        for writer in writers:
            end(writer)
    assert sound(folder).count() == 64


@pytest.mark.slow
def test_killed_at_random_moments(folder: Path, child: Path) -> None:
    """20 SIGKILLs of a writer that adds and optimizes: it opens, no acknowledged row is lost, none is there twice."""
    chance = random.Random(11)
    acknowledged, kills, total = 0, 0, 100_000
    while kills < 20:
        writer = start(child, "write", folder, total)
        assert line(writer) == "open"
        deadline = time.monotonic() + chance.uniform(0.0, 0.5)
        watcher = psutil.Process(writer.pid)
        while time.monotonic() < deadline:
            time.sleep(0.001)
        watcher.kill()
        kills += 1
        assert writer.stdout is not None
        for said in writer.stdout.read().splitlines():
            if said.startswith("ack "):
                acknowledged = max(acknowledged, int(said[4:]))
        writer.communicate()
        store = sound(folder)
        present = set(store.ids())
        assert {f"row-{n:05d}" for n in range(acknowledged)} <= present
        assert len(present) <= acknowledged + 8, "at most one batch was committed and not acknowledged"
        rows = store.get(sorted(present))
        assert all(row.text == f"w{int(row.id[4:])}" for row in rows)
        store.close()
    assert acknowledged > 50


def test_a_reader_sees_what_another_process_wrote(folder: Path, child: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1)])
    reader = start(child, "read", folder)
    try:
        assert line(reader) == "open"
        assert reader.stdin is not None
        for expected, write in [
            ("1 1 0", lambda: None),
            ("11 11 1", lambda: store.add([make_row(n, text=f"w{n}") for n in range(2, 12)])),
            ("10 10 0", lambda: store.delete_paths([make_row(3).path_id])),
            ("10 10 0", store.optimize),
            ("11 11 1", lambda: store.add([make_row(3, text="w3", columns={"new": 1})])),
        ]:
            write()
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert line(reader) == expected
    finally:
        end(reader)


def test_a_locked_index_can_be_read_but_not_written(folder: Path, child: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1)])
    owner = start(child, "hold", folder)
    try:
        assert line(owner) == "held"
        for write in (lambda: store.add([make_row(2)]), lambda: store.delete_paths(["x"]), store.optimize):
            with pytest.raises(IndexLockedError, match=f"pid {owner.pid} "):
                write()
        assert store.count() == LanceStore(folder).count() == 1
    finally:
        end(owner)
    assert store.add([make_row(2)]) == 1, "the lock of a dead owner is taken over"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        yield Path(scratch) / "a.sightline"


def test_a_read_only_folder_can_be_searched(open_folder: Path, child: Path, make_row: MakeRow) -> None:
    folder = open_folder
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(n, text=f"w{n}") for n in range(10)])
    ledger = Ledger(folder)
    ledger.begin("/a", 1, 2, "h")
    ledger.write_meta({"model": "m"})
    ledger.close()
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    process = start(child, "read-only", folder, 65534)
    try:
        says = process.communicate(timeout=60)[0].splitlines()
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert says[:2] == ["10 5 1 []", "{'pending': 1, 'done': 0, 'skipped': 0} {'model': 'm'}"]
    assert len(says) == 7
    for said in says[2:]:
        assert said.startswith("StoreError the index cannot be written"), said


# --- upkeep ----------------------------------------------------------------------------------------------------------


def test_many_small_commits_become_few_files(folder: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM)
    for n in range(40):
        store.add([make_row(n)])
    report = store.optimize()
    assert (report.rows, report.files_before, report.files_after) == (40, 40, 1)
    assert (report.vector_index, report.recall) == (False, None), "small indexes are searched exactly"
    assert sound(folder).count() == 40


def test_optimize_indexes_every_filter_column(folder: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(n, columns={"rating": n, "who": "a", "seen": True}) for n in range(10)])
    store.optimize()
    store.add([make_row(n, columns={"late": 1.5}) for n in range(10, 20)])
    store.optimize()
    dataset = lance.dataset(str(folder / "items.lance"))
    indexed = {field for index in dataset.describe_indices() for field in index.field_names}
    users = {"user_rating", "user_who", "user_seen", "user_late"}
    assert indexed == {"id", "path_id", "path", "kind", "modified_s", "words", "pieces"} | users
    for where, number in (("rating>=5", 5), ("late=1.5", 10), ("kind=image", 20), ("path=/files/0003.png", 1)):
        assert store.count(Filter.of(where)) == len(store.search_vector(np.ones(DIM), 99, Filter.of(where))) == number


def test_above_the_threshold_there_is_a_vector_index_with_its_recall(folder: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM, index_from=2000)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2400, DIM)).astype(np.float32)
    rows = [make_row(n, vector=vectors[n], kind="page" if n % 100 == 0 else "image") for n in range(2400)]
    store.add(rows[:1900])
    assert not store.optimize().vector_index
    store.add(rows[1900:2200])
    report = store.optimize()
    assert report.vector_index and report.recall is not None and report.recall > 0.97
    store.add(rows[2200:])  # not in the index, found all the same
    assert [hit.id for hit in store.search_vector(vectors[2300], 1)] == ["row-02300"]
    assert len(store.search_vector(vectors[0], 30, Filter.of("kind=page"))) == 24, "a narrow filter is scanned"
    assert store.delete_paths(row.path_id for row in rows[:300]) == 300
    report = store.optimize()
    assert report.vector_index and report.recall is not None and report.recall > 0.97
    hits = {hit.id for hit in store.search_vector(vectors[10], 2100)}
    assert not hits & {row.id for row in rows[:300]}
    assert store.check() == []
    assert store.delete_paths(row.path_id for row in rows[300:1000]) == 700
    assert not store.optimize().vector_index
    assert sound(folder).count() == 1400


def test_a_reader_lets_go_of_indexes_that_were_replaced(
    folder: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_module, "LOOK_AGAIN_S", 0.0)
    writer, reader, num_open = LanceStore(folder, dim=DIM), LanceStore(folder), []
    for number in range(40):
        writer.add([make_row(number, text=f"words of {number}")])
        writer.optimize()
        words, pieces = reader.search_words(f"words {number}", 3)
        assert words[0].id == pieces[0].id == f"row-{number:05d}"
        files = psutil.Process().open_files()
        num_open.append(sum(file.path.startswith(str(folder / "items.lance")) for file in files))
    assert max(num_open[20:]) <= max(num_open[:20]) + 4, num_open


def test_old_versions_live_for_a_day_after_their_successor(
    folder: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lance_module.KEEP_S >= 24 * 3600
    store = LanceStore(folder, dim=DIM)
    for n in range(10):
        store.add([make_row(n)])
    store.optimize()
    store.optimize()
    assert len(list((folder / "items.lance" / "data").iterdir())) == 11, "readers may still be at the old files"
    # long after, the index is merged again: the version that was current until now is kept for its readers
    before = store._table.version
    time.sleep(4)
    monkeypatch.setattr(lance_module, "KEEP_S", 3.9)
    store.add([make_row(20)])
    store.optimize()
    versions = [version["version"] for version in lance.dataset(str(folder / "items.lance")).versions()]
    assert min(versions) == before
    assert len(list((folder / "items.lance" / "data").iterdir())) < 11
    assert lance.dataset(str(folder / "items.lance"), version=before).to_table().num_rows == 10
    assert sound(folder).count() == 11


def test_hundred_cycles_of_delete_and_add_leave_no_waste(
    folder: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LanceStore(folder, dim=DIM)
    rows = [make_row(n, text="word") for n in range(50)]
    store.add(rows)
    store.optimize()

    def size() -> int:
        return sum(path.stat().st_size for path in (folder / "items.lance" / "data").iterdir())

    whole = size()
    for n in range(100):
        row = rows[n % 50]
        assert store.delete_paths([row.path_id]) == 1
        assert store.add([row]) == 1
        assert store.count() == 50
    monkeypatch.setattr(lance_module, "KEEP_S", 0.0)
    store.optimize()
    store.optimize()
    time.sleep(0.01)
    store.optimize()
    assert size() <= 1.2 * whole
    assert len(store.search_words("word", 100)[0]) == 50
    assert sound(folder).count() == 50


def test_duplicates_made_behind_our_back_are_found(folder: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1), make_row(2)])
    dataset = lance.dataset(str(folder / "items.lance"))
    dataset.insert(dataset.to_table(filter="id = 'row-00001'"))
    assert [problem.code for problem in store.check()] == ["duplicate_id"]
    assert "row-00001" in store.check()[0].detail


def test_a_full_disk_is_a_clear_error(folder: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync_folder", full)
    with pytest.raises(StoreError, match="the disk is full"):
        store.add([make_row(2)])
    monkeypatch.undo()
    assert sound(folder).count() == 1


def test_errors_do_not_carry_the_words_of_the_library(folder: Path, make_row: MakeRow) -> None:
    store = LanceStore(folder, dim=DIM)
    store.add([make_row(1)])
    shutil.rmtree(folder / "items.lance" / "data")
    with pytest.raises(StoreError) as caught:
        store.search_vector(np.ones(DIM), 1)
    assert "rustc" not in str(caught.value) and "\n" not in str(caught.value)
    assert [problem.code for problem in store.check()] == ["unreadable"]
