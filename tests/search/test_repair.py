"""What is wrong with an index is found, told, and repaired where no model is needed."""

import os
from collections.abc import Iterator
from pathlib import Path

import lance
import numpy as np
import pytest

from sightline.errors import IndexLockedError
from sightline.library import Library, repair_ledger
from sightline.store.lance import LanceStore
from sightline.store.ledger import LEDGER_NAME
from sightline.store.lock import WriterLock
from sightline.store.schema import Filter, Row, path_id
from sightline.testing import ToyEmbedder
from tests.search.test_rebuild import damage

NAMES = [f"note-{n}.txt" for n in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_text(f"Note {number} about word{number} and a bicycle.")
    return folder


@pytest.fixture
def library(tmp_path: Path, folder: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "index", embedder=ToyEmbedder()) as library:
        library.add(folder, columns={"year": 2024})
        assert library.check() == []
        yield library


def codes(library: Library) -> list[str]:
    return sorted(problem.code for problem in library.check())


def repaired(library: Library, *wanted: str) -> None:
    """A dry run says what will be done and does nothing; the repair does it."""
    before = library.check()
    files = {path: path.stat().st_mtime_ns for path in library.path.rglob("*") if path.is_file()}
    looked = library.repair()
    assert looked.dry_run and sorted({one.code for one in looked.repaired}) == sorted(wanted)
    assert all("would be" in one.detail for one in looked.repaired)
    assert library.check() == before
    assert files == {path: path.stat().st_mtime_ns for path in library.path.rglob("*") if path.is_file()}
    done = library.repair(dry_run=False)
    assert sorted({one.code for one in done.repaired}) == sorted(wanted)
    assert list(done.left) == library.check()
    assert not {one.code for one in done.left} & set(wanted)


def sound_after_indexing(library: Library, folder: Path) -> None:
    library.add(folder)
    assert library.check() == []
    assert sorted(Path(hit.path).name for hit in library.search("bicycle", where="year=2024")) == NAMES


def test_a_sound_index_needs_nothing(library: Library) -> None:
    report = library.repair(dry_run=False)
    assert (report.repaired, report.left) == ((), ())


def test_rows_that_are_there_twice(library: Library, folder: Path) -> None:
    first = lance.dataset(str(library.path / "items.lance"))
    lance.write_dataset(first.to_table(), str(library.path / "items.lance"), mode="append")
    assert set(codes(library)) == {"duplicate_id", "row_count"}
    repaired(library, "duplicate_id", "row_count")
    assert library.check() == [] and library.stats().rows == len(NAMES)
    sound_after_indexing(library, folder)


def test_a_vector_that_is_none(library: Library, folder: Path) -> None:
    path = str(library.path / "items.lance")
    dataset = lance.dataset(path)
    dataset.delete("path LIKE '%note-2.txt'")
    table = dataset.to_table().slice(0, 1)
    row = {name: table[name][0].as_py() for name in table.schema.names}
    row.update(id="f" * 32, path=str(folder / "note-2.txt"), path_id=path_id(str(folder / "note-2.txt")))
    row["vector"] = [0.0] * library.model.dim
    lance.write_dataset(
        lance.dataset(path).to_table().slice(0, 0).from_pylist([row], table.schema), path, mode="append"
    )
    assert codes(library) == ["bad_vector"]
    repaired(library, "bad_vector")
    assert codes(library) == ["unfinished"]
    sound_after_indexing(library, folder)


def test_rows_that_the_ledger_does_not_know(library: Library, folder: Path) -> None:
    library._ledger.forget([str(folder / "note-1.txt"), str(folder / "note-4.txt")])
    (folder / "note-4.txt").write_text("Note 4 about word4 and a bicycle, changed since.")
    stranger = str(folder / "gone.txt")
    vector = np.ones(library.model.dim, np.float32)
    library._store.add([Row(id="e" * 32, path_id=path_id(stranger), path=stranger, kind="text", vector=vector)])
    assert codes(library) == ["unknown_rows"] * 3
    repaired(library, "unknown_rows")
    assert codes(library) == ["unfinished"] * 2
    assert library._store.count(Filter(path_prefix=stranger)) == 0
    sound_after_indexing(library, folder)


def test_rows_that_are_missing(library: Library, folder: Path) -> None:
    library._store.delete_paths([path_id(str(folder / "note-5.txt"))])
    repaired(library, "row_count")
    sound_after_indexing(library, folder)


def test_rows_of_a_file_that_was_skipped(library: Library, folder: Path) -> None:
    library._ledger.skip(str(folder / "note-0.txt"), "corrupt")
    assert "row_count" in codes(library)
    repaired(library, "row_count")
    sound_after_indexing(library, folder)


def test_versions_of_the_past_that_cannot_be_read(library: Library, folder: Path) -> None:
    library.optimize()
    manifests = library._store._manifests()
    for manifest in manifests[2:4]:
        os.truncate(manifest, 0)
    repaired(library, "bad_version")
    assert not manifests[2].exists() and len(list((library.path / "damaged").iterdir())) == 2
    sound_after_indexing(library, folder)


def test_a_damaged_index_of_a_column(library: Library, folder: Path) -> None:
    library.optimize()
    index = next(one for one in library._store._table.list_indices() if one.columns == ["path"])
    files = (library.path / "items.lance" / "_indices" / str(index.index_uuid)).iterdir()
    os.truncate(max(files, key=lambda file: file.stat().st_size), 10)
    repaired(library, "damaged_index")
    sound_after_indexing(library, folder)


def test_a_vector_index_that_finds_too_little_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 32)).astype(np.float32)
    store = LanceStore(tmp_path / "index", dim=32, index_from=256)
    path = str(tmp_path / "a.png")
    store.add(
        Row(id=f"{n:032x}", path_id=path_id(path), path=path, kind="image", vector=vector)
        for n, vector in enumerate(vectors)
    )
    assert store.optimize().vector_index and store.check() == []
    before = next(one for one in store._table.list_indices() if one.columns == ["vector"])
    shares = iter([0.4, 0.4])
    recall = store.recall
    monkeypatch.setattr(store, "recall", lambda: next(shares, None) or recall())
    assert [problem.code for problem in store.check()] == ["low_recall"]
    store.repair()
    after = next(one for one in store._table.list_indices() if one.columns == ["vector"])
    assert after.index_uuid != before.index_uuid and store.check() == []
    store.close()


def test_files_that_changed_or_are_gone_are_left_to_index(library: Library, folder: Path) -> None:
    (folder / "note-1.txt").unlink()
    (folder / "note-2.txt").write_text("Note 2 about word2 and a bicycle, changed.")
    report = library.repair(dry_run=False)
    assert report.repaired == ()
    assert [(one.code, Path(one.path).name) for one in report.left] == [
        ("missing_file", "note-1.txt"),
        ("changed_file", "note-2.txt"),
    ]


def test_another_writer_is_not_disturbed(library: Library) -> None:
    with WriterLock(library.path), pytest.raises(IndexLockedError):
        library.repair(dry_run=False)


def test_a_damaged_ledger_starts_again_and_everything_is_found(library: Library, folder: Path) -> None:
    hit = library.search("word3", k=1)[0]
    library.labels.put("q", "{}", hit.id, 1, path=hit.path, kind=hit.kind)
    place = library.path
    library.close()
    assert repair_ledger(place) is None
    damage(place / LEDGER_NAME)
    before = (place / LEDGER_NAME).read_bytes()
    looked = repair_ledger(place)
    assert looked is not None and "would be put aside" in looked.detail
    assert (place / LEDGER_NAME).read_bytes() == before
    assert repair_ledger(place, dry_run=False) is not None
    embedder = ToyEmbedder()
    with Library.open(place, embedder=embedder) as again:
        assert [(label.item, label.value) for label in again.labels] == [(hit.id, 1)]
        repaired(again, "unknown_rows")
        embedded = embedder.num_embedded
        sound_after_indexing(again, folder)
        assert embedder.num_embedded == embedded + 1  # the query
