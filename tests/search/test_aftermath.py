"""After a step back to an older version of the rows, the next run looks again at what the step may have taken."""

import os
from pathlib import Path

import pytest

from sightline.library import Library
from sightline.store import durable
from sightline.store.durable import begin_session, make_folder
from sightline.store.ledger import Ledger
from sightline.testing import ToyEmbedder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.txt").write_text(f"Note {number}, word{number}.")
    return folder


def test_rows_that_a_lying_disk_lost_come_back_with_the_next_run(tmp_path: Path, notes: Path) -> None:
    index = tmp_path / "a.sightline"
    with Library.open(index, embedder=ToyEmbedder()) as library:
        library.add([notes])
        (notes / "0.txt").write_text("As many rows as before, and other words.")
        (notes / "new.txt").write_text("A new note.")
        library.add([notes])
    head = min((index / "items.lance" / "_versions").glob("*.manifest"), key=lambda path: path.name)
    os.truncate(head, 0)
    embedder = ToyEmbedder()
    with Library.open(index, embedder=embedder) as library:
        assert (index / "stepped-back").exists(), "it is remembered until a writer has seen to it"
        report = library.add([notes])
        assert report.seen == 7 and not (index / "stepped-back").exists()
        texts = {library.row(hit.id).text for hit in library.search("note words", k=20)}  # type: ignore[union-attr]
        assert "As many rows as before, and other words." in texts and "A new note." in texts
        assert "Note 0, word0." not in texts and len(texts) == 7
        assert library.check() == []
        assert library.add([notes]).unchanged == 7


def test_a_new_folder_is_on_the_disk_with_all_it_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    make_folder(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    synced.clear()
    with Library.open(tmp_path / "c" / "d.sightline", embedder=ToyEmbedder()):
        assert {str(tmp_path), str(tmp_path / "c"), str(tmp_path / "c" / "d.sightline")} <= set(synced)


def test_a_removal_killed_after_the_rows_went_is_not_called_done(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "a.sightline"
    with Library.open(index, embedder=ToyEmbedder()) as library:
        library.add([notes])
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Ledger, "forget", interrupted)
            library.remove([notes / "0.txt"])
    with Library.open(index, embedder=ToyEmbedder()) as library:
        report = library.add([notes])
        assert (report.indexed, report.unchanged) == (1, 5)
        assert library.stats().rows == 6 and library.check() == []


def interrupted(*_: object) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("restarted", [False, True])
def test_a_data_file_with_its_size_but_not_its_contents_is_noticed_after_the_machine_went_down(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    index = tmp_path / "a.sightline"
    with Library.open(index, embedder=ToyEmbedder()) as library:
        library.add([notes])
        (notes / "new.txt").write_text("A new note.")
        library.add([notes])
    data = max((index / "items.lance" / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    contents = data.read_bytes()
    begin_session(index)  # as a writer leaves it that never came to its end
    if restarted:
        monkeypatch.setattr(durable, "boot_id", lambda: "another")
        data.write_bytes(bytes(len(contents) // 2) + contents[len(contents) // 2 :])
    with Library.open(index, embedder=ToyEmbedder()) as library:
        assert (index / "stepped-back").exists() == restarted, "a killed process has left everything to the system"
        assert library.add([notes]).seen == 7
        assert library.stats().rows == 7 and library.check() == []
    assert not (index / "writing").exists()
