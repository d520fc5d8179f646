"""Pruning: what is gone goes, what may only be unmounted stays (safety.md 4e)."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.search.prune import drop, has_vanished, prune, root_of
from sightline.store.exact import ExactStore
from sightline.store.ledger import Ledger
from sightline.store.schema import Row, path_id


class Index:
    def __init__(self, folder: Path) -> None:
        (folder / "index").mkdir()
        self.store = ExactStore(dim=2)
        self.ledger = Ledger(folder / "index")
        self.root = folder / "photos"
        self.root.mkdir()
        for number in range(10):
            self.write(self.root / f"{number}.txt")

    def write(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        name = os.fspath(path)
        self.ledger.begin(name, 1, 1, "hash")
        self.store.add([Row(id=name, path_id=path_id(name), path=name, kind="text", vector=np.ones(2, np.float32))])
        self.ledger.done(name, 1)

    def prune(self, roots: list[Path] | None = None, **options: Any) -> Any:
        return prune(self.store, self.ledger, [os.fspath(root) for root in roots or [self.root]], **options)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path)
    yield index
    index.ledger.close()


def test_looks_first_and_takes_out_when_told(index: Index) -> None:
    for number in range(3):
        (index.root / f"{number}.txt").unlink()
    looked = index.prune()
    assert looked.dry_run
    assert [Path(path).name for path in looked.vanished] == ["0.txt", "1.txt", "2.txt"]
    assert (looked.rows, looked.refused, index.store.count()) == (3, (), 10)
    done = index.prune(dry_run=False)
    assert done.vanished == looked.vanished
    assert index.store.count() == 7
    assert index.ledger.counts()["done"] == 7
    assert index.prune(dry_run=False).vanished == ()


@pytest.mark.parametrize("mishap", ["missing", "empty", "most"])
def test_what_looks_unmounted_is_refused_unless_forced(index: Index, mishap: str) -> None:
    if mishap == "most":
        for number in range(6):
            (index.root / f"{number}.txt").unlink()
    else:
        shutil.rmtree(index.root)
        if mishap == "empty":
            index.root.mkdir()
    report = index.prune(dry_run=False)
    assert report.vanished == ()
    assert index.store.count() == 10
    (refusal,) = report.refused
    assert (refusal.root, refusal.files) == (os.fspath(index.root), 10)
    assert {"missing": "missing", "empty": "empty", "most": "60%"}[mishap] in refusal.reason
    assert len(index.prune(dry_run=False, force=True).vanished) == (6 if mishap == "most" else 10)


def test_half_may_go(index: Index) -> None:
    for number in range(5):
        (index.root / f"{number}.txt").unlink()
    assert len(index.prune(dry_run=False).vanished) == 5


def test_each_root_is_judged_alone(index: Index, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    index.write(stick / "a.txt")
    shutil.rmtree(stick)
    (index.root / "0.txt").unlink()
    report = index.prune([index.root, stick], dry_run=False)
    assert [Path(path).name for path in report.vanished] == ["0.txt"]
    assert [refusal.root for refusal in report.refused] == [os.fspath(stick)]


def test_a_root_with_one_file_is_refused_too(index: Index, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    index.write(stick / "a.txt")
    shutil.rmtree(stick)  # its parent has other entries, but this was a folder with files
    assert index.prune([index.root, stick], dry_run=False).vanished == ()


def test_a_file_given_by_name_goes_when_its_folder_is_there(index: Index, tmp_path: Path) -> None:
    index.write(tmp_path / "single.txt")
    (tmp_path / "single.txt").unlink()
    assert [Path(path).name for path in index.prune(dry_run=False).vanished] == ["single.txt"]


def test_what_cannot_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "lstat", refuse)
    assert not has_vanished("/x")


def test_originals_are_never_touched(index: Index) -> None:
    before = sorted(index.root.iterdir())
    assert drop(index.store, index.ledger, [os.fspath(path) for path in before]) == 10
    assert sorted(index.root.iterdir()) == before
    assert index.store.count() == 0


def test_root_of() -> None:
    assert root_of("/ab/c", ["/a"]) == ""
    assert root_of("/a/b/c", ["/a/b", "/a"]) == "/a/b"
