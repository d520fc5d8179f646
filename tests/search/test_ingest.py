"""Indexing: incremental, resumable, one failure at a time, everything accounted for."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.errors import ItemError, MediaError, StoreError
from sightline.media.units import UnitError
from sightline.search import ingest as ingest_module
from sightline.search.events import Event, FileDeferred, FileDone, FileSkipped, FileStarted, FileUnchanged, UnitFailed
from sightline.search.find import find
from sightline.search.ingest import ingest
from sightline.search.problems import Problems
from sightline.search.prune import drop
from sightline.search.reading import Plan
from sightline.settings import Settings
from sightline.store.exact import ExactStore
from sightline.store.ledger import Ledger
from sightline.testing import ToyEmbedder
from sightline.types import AddReport, Unit


class LineSource:
    """Each line of a file is a page; a line may be a mishap."""

    def __init__(self) -> None:
        self.num_read = 0
        self.closed = False
        self.before_end = lambda path: None

    def units(self, path: str) -> Iterator[Unit | UnitError]:
        self.num_read += 1
        for page, line in enumerate(Path(path).read_text().splitlines(), start=1):
            if self.closed:
                raise MediaError("crash")
            if line == "broken page":
                yield UnitError(code="corrupt", page=page)
            elif line == "broken file":
                raise MediaError("crash")
            elif line == "slow":
                time.sleep(0.02)
            else:
                yield Unit(kind="page", page=page, title=Path(path).name, text=line)
        self.before_end(path)

    def close(self) -> None:
        self.closed = True


class Index:
    """An index in memory with its ledger on disk, and a folder of files."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        (folder / "index").mkdir()
        self.ledger = Ledger(folder / "index")
        self.store = ExactStore(dim=64)
        self.embedder: Any = ToyEmbedder()
        self.source = LineSource()
        self.events: list[Event] = []
        self.settings = Settings()

    def write(self, name: str, *lines: str) -> Path:
        path = self.files / name
        path.write_text("\n".join(lines))
        return path

    def add(self, **options: Any) -> AddReport:
        self.events.clear()
        self.source.num_read = 0
        plan = Plan(
            store=self.store,
            ledger=self.ledger,
            source=self.source,
            settings=self.settings,
            count_tokens=self.embedder.count_tokens,
            fingerprint=self.embedder.card.fingerprint,
            **options,
        )
        report = ingest(find([self.files]), plan, self.embedder, on_event=self.events.append)
        assert report.seen == report.indexed + report.unchanged + len(report.skipped) + report.deferred
        outcomes = [e for e in self.events if isinstance(e, (FileDone, FileUnchanged, FileSkipped, FileDeferred))]
        assert len(outcomes) == report.seen
        return report

    def texts(self) -> list[str]:
        return sorted(row.text for row in self.store.get(list(self.store.ids())))

    def rows(self) -> list[tuple[Any, ...]]:
        rows = self.store.get(list(self.store.ids()))
        return sorted((r.id, r.path, r.page, r.title, r.text, r.modified_s, r.vector.tobytes()) for r in rows)

    def fresh(self) -> "Index":
        """The same files in an index of their own, indexed in one go."""
        folder = self.files.parent / f"fresh-{time.monotonic_ns()}"
        folder.mkdir()
        other = Index(folder)
        other.files = self.files
        other.add()
        return other


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path)
    yield index
    index.ledger.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sightline-reading")]


def change(path: Path, text: str) -> None:
    """New content, and a time that differs even on a coarse clock."""
    path.write_text(text)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


# --- incremental ---


def test_a_second_run_reads_and_embeds_nothing(index: Index) -> None:
    index.write("a", "one", "two")
    index.write("b", "three")
    assert index.add() == AddReport(seen=2, indexed=2, units=3)
    assert index.add() == AddReport(seen=2, unchanged=2)
    assert (index.embedder.num_embedded, index.source.num_read) == (3, 0)


def test_a_touched_file_is_hashed_once_and_unchanged(index: Index) -> None:
    path = index.write("a", "one")
    index.add()
    change(path, "one")
    assert index.add().unchanged == 1
    assert index.source.num_read == 0
    state = index.ledger.file(os.fspath(path))
    assert state is not None
    assert state.mtime_ns == path.stat().st_mtime_ns


def test_a_changed_file_replaces_its_rows(index: Index) -> None:
    path = index.write("a", "one", "two", "three")
    index.write("b", "four")
    index.add()
    change(path, "one\nfive")
    assert index.add() == AddReport(seen=2, indexed=1, unchanged=1, units=2)
    assert index.texts() == ["five", "four", "one"]
    assert index.rows() == index.fresh().rows()


def test_content_that_changed_behind_the_same_time_needs_verify(index: Index) -> None:
    path = index.write("a", "one")
    before = path.stat()
    index.add()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index.add().unchanged == 1
    assert index.add(verify=True).indexed == 1
    assert index.texts() == ["two"]


@pytest.mark.parametrize("copies", [2, 5])
def test_the_same_content_at_several_paths_is_embedded_once(index: Index, copies: int) -> None:
    for number in range(copies):
        index.write(f"copy-{number}", "one", "two")
    report = index.add()
    assert (report.indexed, report.units) == (copies, 2 * copies)
    assert index.embedder.num_embedded == 2
    assert len({row.path for row in index.store.get(list(index.store.ids()))}) == copies


def test_a_moved_file_is_not_embedded_again(index: Index) -> None:
    path = index.write("a", "one", "two")
    index.add()
    path.rename(index.files / "b")
    assert index.add().indexed == 1
    assert index.embedder.num_embedded == 2
    done = [event for event in index.events if isinstance(event, FileDone)]
    assert done[0].reused == 2


def test_a_copied_vector_equals_an_embedded_one(index: Index) -> None:
    index.write("a", "one", "two")
    index.add()
    index.write("b", "one", "two")
    index.add()
    vectors: dict[str, set[bytes]] = {}
    for row in index.store.get(list(index.store.ids())):
        vectors.setdefault(row.text, set()).add(row.vector.tobytes())
    assert all(len(different) == 1 for different in vectors.values())


def test_columns_are_kept_changed_and_filterable(index: Index) -> None:
    path = index.write("a", "one")
    index.add(columns={"album": "summer"})
    assert index.add().unchanged == 1
    change(path, "two")
    index.add()
    assert [dict(row.columns) for row in index.store.get(list(index.store.ids()))] == [{"album": "summer"}]
    assert index.add(columns={"album": "winter"}).indexed == 1
    assert [dict(row.columns) for row in index.store.get(list(index.store.ids()))] == [{"album": "winter"}]
    assert index.embedder.num_embedded == 2


def test_passages_of_one_text_have_their_own_rows(index: Index) -> None:
    words = " ".join(f"word{number}." for number in range(100))

    def units(path: str) -> Iterator[Unit]:
        yield Unit(kind="text", title="t", text=words)
        yield Unit(kind="text", title="t", text=words)

    index.source.units = units  # type: ignore[method-assign]
    index.settings = Settings(text_passage_tokens=16)
    index.write("a", "x")
    report = index.add()
    assert report.units == len(list(index.store.ids())) >= 12
    assert all(len(text.split()) <= 16 for text in index.texts())


# --- failures ---


def test_a_broken_page_costs_itself(index: Index) -> None:
    index.write("a", "one", "broken page", "three")
    report = index.add()
    assert (report.indexed, report.units, report.skipped) == (1, 2, ())
    (failed,) = [event for event in index.events if isinstance(event, UnitFailed)]
    assert (failed.place, failed.code) == ("page 2", "corrupt")


def test_a_file_that_breaks_midway_keeps_what_was_read(index: Index) -> None:
    index.write("a", "one", "broken file", "three")
    assert index.add().units == 1


def test_failed_units_are_kept_until_the_file_is_done_again(index: Index) -> None:
    pages = index.write("a", "one", "broken page", "three")
    index.write("b", "one more", "broken file")
    many = index.write("c", "fine", *["broken page"] * 100)
    index.add()
    kept = [(Path(one.path).name, one.code, one.detail) for one in Problems(index.ledger).skipped()]
    assert kept[:2] == [
        ("a", "corrupt", "page 2: the file is damaged and cannot be decoded"),
        ("b", "crash", "the rest after 1 units: the decoder process died"),
    ]
    assert len(kept) == 22
    assert kept[-1] == ("c", "corrupt", "and 81 more")
    assert index.add(partly=Problems(index.ledger)).unchanged == 3
    assert index.add(partly=Problems(index.ledger), retry=True).indexed == 3
    change(pages, "one\ntwo\nthree")
    index.add()
    drop(index.store, index.ledger, [os.fspath(many)])
    assert {Path(one.path).name for one in Problems(index.ledger).skipped()} == {"b"}


def test_a_unit_that_the_model_refuses_costs_itself(index: Index) -> None:
    index.write("a", "one", "poison")
    index.write("b", "poison")
    report = index.add()
    assert (report.indexed, report.units) == (1, 1)
    assert [(Path(s.path).name, s.code) for s in report.skipped] == [("b", "corrupt")]


class Unsound(ToyEmbedder):
    """Gives a vector that is not finite, or zero, for some texts."""

    def stream(self, items: Any, **options: Any) -> Iterator[Any]:
        held: list[Any] = []

        def watched() -> Iterator[Any]:
            for item in items:
                held.append(item)
                yield item

        vector: Any
        for vector in super().stream(watched(), **options):
            text = held.pop(0).text
            yield {"nan": vector * np.nan, "inf": vector * np.inf, "zero": vector * 0}.get(text, vector)


def test_vectors_that_are_not_finite_are_never_stored(index: Index) -> None:
    index.embedder = Unsound()
    index.write("a", "one", "nan", "inf", "zero", "two")
    assert index.add().units == 2
    assert index.texts() == ["one", "two"]
    assert [event.code for event in index.events if isinstance(event, UnitFailed)] == ["nan"] * 3


def test_a_failing_file_is_tried_twice_and_again_when_asked_or_changed(index: Index) -> None:
    path = index.write("a", "broken file")
    for tried in [1, 1, 0, 0]:
        report = index.add()
        assert [(one.code, one.path) for one in report.skipped] == [("crash", os.fspath(path))]
        assert index.source.num_read == tried
    assert index.add(retry=True).skipped
    assert index.source.num_read == 1
    change(path, "broken file\n")
    index.add()
    assert index.source.num_read == 1
    change(path, "fine")
    assert index.add().indexed == 1


def test_what_is_no_media_is_skipped_with_its_code(index: Index) -> None:
    (index.files / "a.bin").write_bytes(bytes(range(256)) * 10)
    (index.files / "empty").write_bytes(b"")
    os.mkfifo(index.files / "pipe")
    index.write("fine", "one")
    report = index.add()
    codes = {Path(one.path).name: one.code for one in report.skipped}
    assert codes["empty"] == "empty"
    assert codes["pipe"] == "not_file"
    assert set(codes) == {"a.bin", "empty", "pipe"}
    assert {Path(state.path).name: state.code for state in index.ledger.failures()} == codes


def test_a_file_that_became_unreadable_content_loses_its_rows(index: Index) -> None:
    path = index.write("a", "one")
    index.add()
    change(path, "broken file")
    assert index.add().skipped[0].code == "crash"
    assert index.texts() == []
    change(path, "")
    assert index.add().skipped[0].code == "empty"


def test_a_file_that_cannot_be_opened_for_now_keeps_its_rows(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    path = index.write("a", "one")
    index.add()
    change(path, "two")

    def refuse(*_: object) -> None:
        raise MediaError("unreadable")

    with monkeypatch.context() as patch:
        patch.setattr("sightline.search.reading.identify", refuse)
        assert index.add().skipped[0].code == "unreadable"
    assert index.texts() == ["one"]
    assert index.add().indexed == 1
    assert index.texts() == ["two"]


@pytest.mark.parametrize("code", ["unreadable", "not_file"])
@pytest.mark.parametrize("commit_rows", [1, 1000])
def test_a_disk_that_fails_while_a_file_is_decoded_costs_no_rows(
    index: Index, monkeypatch: pytest.MonkeyPatch, code: str, commit_rows: int
) -> None:
    """Nothing is learnt of the content, so what an earlier reading found stays, and the next run reads it again."""
    monkeypatch.setattr(ingest_module, "COMMIT_ROWS", commit_rows)
    path = index.write("a", "one", "two")
    index.add()
    change(path, "three\nfour")

    def fail(_: str) -> None:
        raise MediaError(code)

    index.source.before_end = fail
    for _ in range(3):
        report = index.add()
        assert [one.code for one in report.skipped] == [code]
        assert {"one", "two"} <= set(index.texts())
        assert index.source.num_read == 1
    index.source.before_end = lambda p: None
    assert index.add().indexed == 1
    assert index.texts() == ["four", "three"]


def test_a_file_that_breaks_a_decoder_because_it_is_being_written_is_deferred(index: Index) -> None:
    path = index.write("a", "one")
    index.add()
    change(path, "two\nbroken file")

    def units(path: str) -> Iterator[Unit | UnitError]:
        change(Path(path), "two\nthree\nfour")
        raise MediaError("corrupt")
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index.source, "units", units)
        report = index.add()
    assert (report.deferred, report.skipped) == (1, ())
    assert index.texts() == ["one"]
    assert index.add().indexed == 1
    assert index.texts() == ["four", "three", "two"]


def test_a_file_that_changes_while_it_is_read_is_deferred(index: Index) -> None:
    path = index.write("a", "one")
    index.add()
    change(path, "two\nthree")
    index.source.before_end = lambda p: change(Path(p), "two\nthree\nfour")
    report = index.add()
    assert (report.deferred, report.indexed) == (1, 0)
    assert index.texts() == ["one"]
    index.source.before_end = lambda p: None
    assert index.add().indexed == 1
    assert index.texts() == ["four", "three", "two"]


def test_a_file_that_vanishes_while_it_is_read_is_deferred(index: Index) -> None:
    index.write("a", "one")
    index.source.before_end = os.unlink
    assert index.add().deferred == 1
    assert index.texts() == []


# --- resuming ---


class Dies(Exception):
    pass


@pytest.mark.parametrize("step", ["begin", "add", "delete", "put back", "done"])
@pytest.mark.parametrize("commit_rows", [1, 3, 1000])
def test_dying_between_any_two_steps_loses_and_doubles_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch, step: str, commit_rows: int
) -> None:
    monkeypatch.setattr(ingest_module, "COMMIT_ROWS", commit_rows)
    index.write("a", "one", "two", "three", "four")
    index.write("b", "five")
    index.add()
    change(index.files / "a", "one\nsix\nseven\neight\nnine")
    index.write("c", "ten", "eleven")

    deleted: list[Any] = []

    def die(*_: object) -> Any:
        raise Dies

    def add_unless_deleted(rows: Any) -> int:
        if deleted:
            raise Dies
        return ExactStore.add(index.store, rows)

    def delete(path_ids: Any) -> int:
        deleted.extend(path_ids)
        return ExactStore.delete_paths(index.store, path_ids)

    owner, name, mishap = {
        "begin": (index.store, "add", die),
        "add": (index.ledger, "done", die),
        "delete": (index.store, "delete_paths", die),
        "put back": (index.store, "add", add_unless_deleted),
        "done": (index.ledger, "batch", die),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, mishap)
        patch.setattr(index.store, "delete_paths", die if step == "delete" else delete)
        with pytest.raises(Dies):
            index.add()
    assert set(index.texts()) >= {"five"}
    index.add()
    assert index.rows() == index.fresh().rows()
    assert index.add().unchanged == 3


def test_resuming_embeds_only_what_is_missing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "COMMIT_ROWS", 4)
    index.write("a", *[f"line {number}" for number in range(10)])

    class DiesLate(ToyEmbedder):
        def stream(self, items: Any, **options: Any) -> Iterator[Any]:
            for number, vector in enumerate(super().stream(items, **options)):
                if number == 6:
                    raise Dies
                yield vector

    index.embedder = DiesLate()
    with pytest.raises(Dies):
        index.add()
    assert len(index.texts()) == 4
    index.embedder = ToyEmbedder()
    assert index.add().units == 10
    assert index.embedder.num_embedded == 6


class Interrupts(ToyEmbedder):
    def stream(self, items: Any, **options: Any) -> Iterator[Any]:
        for number, vector in enumerate(super().stream(items, **options)):
            if number == 5:
                raise KeyboardInterrupt
            yield vector


def test_ctrl_c_commits_what_is_in_hand(index: Index) -> None:
    for number in range(10):
        index.write(f"file-{number}", "one", f"two {number}")
    index.embedder = Interrupts()
    report = index.add()
    assert report.interrupted
    assert report.indexed == 2
    assert report.deferred >= 1
    assert len(index.texts()) == 5
    index.embedder = ToyEmbedder()
    assert index.add().indexed == 8
    assert index.embedder.num_embedded == 15
    assert index.rows() == index.fresh().rows()


def test_a_full_disk_stops_the_work_and_the_next_run_goes_on(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        index.write(f"file-{number}", "one", "slow", "two")

    def full(*_: object) -> int:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(index.store, "add", full)
        with pytest.raises(StoreError, match="full"):
            index.add()
    assert index.add().indexed == 5


def test_an_error_of_the_reading_thread_is_raised(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.write("a", "one")

    def broken(path: str) -> None:
        raise StoreError("the ledger cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(index.ledger, "file", broken)
        with pytest.raises(StoreError, match="ledger"):
            index.add()


def test_a_lost_ledger_costs_reading_but_no_embedding(index: Index) -> None:
    index.write("a", "one", "two")
    index.add()
    index.ledger.forget([os.fspath(index.files / "a")])
    assert index.add(look_up_all=True).indexed == 1
    assert index.embedder.num_embedded == 2


# --- shape of the work ---


def test_units_stream_across_files_in_several_threads(index: Index) -> None:
    index.settings = Settings(decode_workers=4)
    for number in range(40):
        index.write(f"file-{number}", *[f"{number} {line}" for line in range(number % 5)])
    report = index.add()
    assert report.units == sum(number % 5 for number in range(40))
    assert index.rows() == index.fresh().rows()


def test_an_embedder_that_reads_ahead_in_a_thread(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "COMMIT_ROWS", 2)

    class Threaded(ToyEmbedder):
        def stream(self, items: Any, **options: Any) -> Iterator[Any]:
            taken: list[Any] = []
            thread = threading.Thread(target=lambda: taken.extend(items))
            thread.start()
            thread.join()
            yield from super().stream(taken, **options)

    index.embedder = Threaded()
    for number in range(10):
        index.write(f"file-{number}", "one", f"{number}")
    assert index.add().units == 20


def test_events_tell_the_story(index: Index) -> None:
    index.write("a", "one")
    index.add()
    names = [type(event).__name__ for event in index.events]
    assert names == ["FileStarted", "FileDone", "Progress"]
    started = index.events[0]
    assert isinstance(started, FileStarted)
    assert started.bytes == 3


def test_memory_is_bounded_by_bytes_not_by_files(index: Index) -> None:
    """The reader never runs further ahead of a slow model than the queue allows."""
    alive: list[int] = []
    most = 0

    class Big(LineSource):
        def units(self, path: str) -> Iterator[Unit | UnitError]:
            for page in range(1, 30):
                alive.append(1)
                yield Unit(kind="page", page=page, pixels=np.zeros((2000, 4000, 3), np.uint8))  # 24 MB

    class Slow(ToyEmbedder):
        def _one(self, item: Any) -> Any:
            nonlocal most
            most = max(most, len(alive) - self.num_embedded)
            return np.eye(64)[0]

    index.source = Big()
    index.embedder = Slow()
    index.write("a", "x")
    index.write("b", "y")
    assert index.add().units == 58
    assert most <= 256 * 2**20 // 24_000_000 + 3


def test_item_errors_keep_their_reason(index: Index) -> None:
    class Refuses(ToyEmbedder):
        def stream(self, items: Any, **options: Any) -> Iterator[Any]:
            for position, _ in enumerate(items):
                yield ItemError(position, "too_long", "the page does not fit")

    index.embedder = Refuses()
    index.write("a", "one")
    report = index.add()
    assert [(one.code, one.detail) for one in report.skipped] == [("too_long", "the page does not fit")]
