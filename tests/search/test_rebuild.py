"""An index that is built anew keeps what people said about its hits, whatever happens meanwhile."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.errors import IndexLockedError, StoreError
from sightline.library import Library
from sightline.search import rebuild
from sightline.store.ledger import LEDGER_NAME, Ledger
from sightline.store.lock import WriterLock
from sightline.testing import ToyEmbedder
from sightline.types import Hit

LONG = "\n\n".join(f"Part {n}. " + f"word{n} " * 60 for n in range(6)) + "\n\nThe lighthouse keeper paints his boat."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "bike.txt").write_text("A red bicycle leans on the wall.")
    (folder / "long.txt").write_text(LONG)
    for name, colour in (("red", (220, 10, 10)), ("blue", (10, 10, 220))):
        Image.fromarray(np.full((64, 64, 3), colour, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def place(tmp_path: Path, folder: Path) -> Iterator[Path]:
    """An index with three labels."""
    place = tmp_path / "index"
    with Library.open(place, embedder=ToyEmbedder()) as library:
        library.add(folder)
        red = {"image": np.full((64, 64, 3), (220, 10, 10), np.uint8)}
        for key, query, value in (("red", red, 1), ("boat", "lighthouse keeper boat", 1), ("bike", "red bicycle", -1)):
            say(library, key, library.search(query, k=1)[0], value)
    yield place


def say(library: Library, key: str, hit: Hit, value: int) -> None:
    where: dict[str, Any] = {"page": hit.page, "start_s": hit.start_s, "end_s": hit.end_s}
    library.labels.put(key, json.dumps(key), hit.id, value, path=hit.path, kind=hit.kind, **where)


def said(library: Library) -> list[tuple[str, str, int]]:
    return sorted((json.loads(label.query), Path(label.path).name, label.value) for label in library.labels)


SAID = [("bike", "bike.txt", -1), ("boat", "long.txt", 1), ("red", "red.png", 1)]


@pytest.mark.parametrize("other", ["toy", "another"])
def test_labels_stay_and_find_their_rows_again(place: Path, folder: Path, other: str) -> None:
    with Library.open(place, embedder=ToyEmbedder(model=other, dim=96), rebuild=True) as library:
        assert library.stats().rows == 0 and library.stats().files == 0
        assert said(library) == SAID
        library.add(folder)
        assert said(library) == SAID
        for key, words, value in (("boat", "lighthouse keeper boat", 1), ("bike", "red bicycle", -1)):
            assert library.labels.of_query(key) == {library.search(words, k=1)[0].id: value}
        (picture,) = library.labels.of_query("red")
        row = library.row(picture)
        assert row is not None and Path(row.path).name == "red.png"


def test_labels_outlive_a_second_rebuild_before_anything_was_added(place: Path, folder: Path) -> None:
    for model in ("second", "third"):
        Library.open(place, embedder=ToyEmbedder(model=model), rebuild=True).close()
    with Library.open(place, embedder=ToyEmbedder(model="third")) as library:
        library.add(folder)
        assert all(library.row(label.item) is not None for label in library.labels)
        assert said(library) == SAID


def test_a_file_that_changed_meanwhile_keeps_its_label_but_lends_it_no_row(place: Path, folder: Path) -> None:
    (folder / "bike.txt").write_text("Something else altogether, of no interest.")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "red.png")
    with Library.open(place, embedder=ToyEmbedder(model="another"), rebuild=True) as library:
        library.add(folder)
        assert said(library) == SAID
        assert {json.loads(one.query) for one in library.labels if library.row(one.item) is not None} == {"boat"}


@pytest.mark.parametrize("step", ["before", "said", "renamed", "synced", "unsaid"])
def test_a_rebuild_that_dies_is_finished_by_whoever_opens_the_index(
    place: Path, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(Exception):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Dies

    with monkeypatch.context() as broken:
        if step == "before":
            broken.setattr(Ledger, "batch", die)
        elif step == "said":
            broken.setattr(rebuild, "_take_rows_away", die)
        elif step == "renamed":
            broken.setattr(Path, "rename", die)
        elif step == "synced":
            broken.setattr(rebuild, "sync_folder", die)
        else:
            broken.setattr(Ledger, "write_meta", die)
        with pytest.raises(Dies):
            Library.open(place, embedder=ToyEmbedder(model="another", dim=96), rebuild=True)
    embedder = ToyEmbedder() if step == "before" else ToyEmbedder(model="another", dim=96)
    with Library.open(place, embedder=embedder) as library:
        assert library.stats().rows == (0 if step != "before" else library.stats().rows)
        assert said(library) == SAID
        library.add(folder)
        assert library.check() == []
        assert all(library.row(label.item) is not None for label in library.labels)


def test_an_index_that_another_process_empties_is_not_opened(place: Path) -> None:
    ledger = Ledger(place)
    ledger.write_meta({rebuild.EMPTYING: True})
    ledger.close()
    with WriterLock(place), pytest.raises(IndexLockedError):
        Library.open(place, embedder=ToyEmbedder())


def test_an_index_that_another_process_writes_is_not_rebuilt(place: Path) -> None:
    with WriterLock(place), pytest.raises(IndexLockedError):
        Library.open(place, embedder=ToyEmbedder(), rebuild=True)
    with Library.open(place) as library:
        assert library.check() == []


def test_a_damaged_ledger_is_put_aside_and_its_labels_saved(place: Path, folder: Path) -> None:
    damage(place / LEDGER_NAME)
    with pytest.raises(StoreError, match="damaged"), Library.open(place, embedder=ToyEmbedder()) as library:
        list(library.files())
    with Library.open(place, embedder=ToyEmbedder(), rebuild=True) as library:
        assert said(library) == SAID
        library.add(folder)
        assert library.check() == []
    assert [path.name.endswith(LEDGER_NAME) for path in (place / "damaged").iterdir()].count(True) == 1


def damage(path: Path) -> None:
    """Overwrite the page that the table of files begins on; labels stand on others."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page, size = (
        db.execute(one).fetchone()[0]
        for one in ("SELECT rootpage FROM sqlite_master WHERE name = 'files'", "PRAGMA page_size")
    )
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
