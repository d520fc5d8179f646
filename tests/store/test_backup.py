"""A copy of an index: whole or none, equal in what it answers, never trusted blindly."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import StoreError
from sightline.library import Library
from sightline.store import backup
from sightline.store.backup import LIST_NAME, back_up, restore
from sightline.testing import ToyEmbedder

WORDS = ("red bicycle", "green car", "自行车", "bread", "nothing of all this")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for number, text in enumerate([*WORDS[:4], "a green bicycle", "red bread", "the night"]):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def place(tmp_path: Path, folder: Path) -> Iterator[Path]:
    place = tmp_path / "index"
    with Library.open(place, embedder=ToyEmbedder()) as library:
        library.add(folder, columns={"year": 2024})
        hit = library.search("bread")[0]
        library.labels.put("q", json.dumps("bread"), hit.id, -1, path=hit.path, kind=hit.kind)
        library.optimize()
        library.remove(folder / "6.txt")
    yield place


def told(place: Path) -> Any:
    with Library.open(place, embedder=ToyEmbedder()) as library:
        assert library.check() == []
        hits = [library.search(words, where="year=2024") for words in WORDS]
        return hits, list(library.files()), list(library.labels), library.stats().rows, library.roots, library.model


def test_a_restored_index_answers_as_the_index_did(place: Path, folder: Path, tmp_path: Path) -> None:
    report = back_up(place, tmp_path / "copy")
    assert report.rows == 6 and report.bytes == sum(
        path.stat().st_size for path in (tmp_path / "copy").rglob("*") if path.is_file() and path.name != LIST_NAME
    )
    again = restore(tmp_path / "copy", tmp_path / "again")
    assert (again.rows, again.files, again.bytes) == (report.rows, report.files, report.bytes)
    assert told(tmp_path / "again") == told(place)
    with Library.open(tmp_path / "again", embedder=ToyEmbedder()) as library:  # and it goes on from there
        assert library.add(folder).indexed == 1
        library.optimize()
        assert library.check() == []


def test_a_copy_is_not_changed_by_what_comes_after(place: Path, folder: Path, tmp_path: Path) -> None:
    before = told(place)
    back_up(place, tmp_path / "copy")
    with Library.open(place, embedder=ToyEmbedder()) as library:
        library.remove(folder)
        library.optimize()
    restore(tmp_path / "copy", tmp_path / "again")
    assert told(tmp_path / "again") == before


def test_a_copy_that_cannot_be_finished_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []
    copy = backup._copy

    def full(source: Path, target: Path) -> tuple[int, str]:
        taken.append(target)
        if len(taken) == 3:
            raise OSError(28, "No space left on device")
        return copy(source, target)

    monkeypatch.setattr(backup, "_copy", full)
    with pytest.raises(StoreError, match="cannot be copied: No space left"):
        back_up(place, tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"files", "index"}


def test_a_copy_with_one_byte_changed_is_refused_and_nothing_is_made(place: Path, tmp_path: Path) -> None:
    back_up(place, tmp_path / "copy")
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file() and path.name != LIST_NAME]
    assert len(files) > 10
    for file in files:
        whole = file.read_bytes()
        for broken in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[: len(whole) // 2], None):
            file.unlink()
            if broken is not None:
                file.write_bytes(broken)
            with pytest.raises(StoreError, match=r"copy is damaged|is gone"):
                restore(tmp_path / "copy", tmp_path / "again")
            assert not list(tmp_path.glob("again*"))
            file.write_bytes(whole)
    restore(tmp_path / "copy", tmp_path / "again")


@pytest.mark.parametrize("name", ["../out.txt", "/etc/passwd", "items.lance/../../x", "items.lance", "other", "a\0b"])
def test_a_copy_that_names_other_files_is_refused(place: Path, tmp_path: Path, name: str) -> None:
    back_up(place, tmp_path / "copy")
    about = json.loads((tmp_path / "copy" / LIST_NAME).read_text())
    about["files"][name] = [1, "0" * 64]
    (tmp_path / "copy" / LIST_NAME).write_text(json.dumps(about))
    with pytest.raises(StoreError, match="no index has"):
        restore(tmp_path / "copy", tmp_path / "again")


def test_a_link_in_a_copy_is_not_followed(place: Path, tmp_path: Path) -> None:
    back_up(place, tmp_path / "copy")
    file = next((tmp_path / "copy" / "items.lance" / "data").iterdir())
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="no index has"):
        restore(tmp_path / "copy", tmp_path / "again")


def test_a_newer_copy_and_no_copy_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no copy of an index"):
        restore(place, tmp_path / "again")
    back_up(place, tmp_path / "copy")
    about = json.loads((tmp_path / "copy" / LIST_NAME).read_text())
    (tmp_path / "copy" / LIST_NAME).write_text(json.dumps({**about, "backup": 2}))
    with pytest.raises(StoreError, match=r"format 2.*upgrade"):
        restore(tmp_path / "copy", tmp_path / "again")


def test_what_is_there_stays(place: Path, folder: Path, tmp_path: Path) -> None:
    for target in (place, folder):
        with pytest.raises(StoreError, match="is there already"):
            back_up(place, target)
    (tmp_path / "empty").mkdir()
    back_up(place, tmp_path / "empty")
    with pytest.raises(StoreError, match="is there already"):
        restore(tmp_path / "empty", place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_index_that_cannot_be_written_can_be_copied(place: Path, tmp_path: Path) -> None:
    place.chmod(0o500)
    try:
        assert back_up(place, tmp_path / "copy").rows == 6
    finally:
        place.chmod(0o700)
