"""The library as its users hold it: real files, both stages, everything that can go wrong said in one sentence."""

import dataclasses
import os
import runpy
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline as sl
from sightline.errors import ConfigError, IndexLockedError, IndexMismatchError, StoreError
from sightline.library import Library, card_of, is_index
from sightline.search.events import Counted, Event, FileDone
from sightline.store.lance import LanceStore
from sightline.testing import ToyEmbedder, ToyReranker

CORPUS = runpy.run_path(str(Path(__file__).parent / "search" / "corpus.py"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of each kind."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "bike.txt").write_text("A red bicycle leans on a wall.")
    (folder / "zh.md").write_text("# 笔记\n\n一辆红色的自行车靠在墙边。\n", encoding="utf-8")
    CORPUS["picture"](folder / "one.png", 1)
    CORPUS["picture"](folder / "two.png", 2)
    CORPUS["pdf"](folder / "paper.pdf", ["rivers of the north", "mountains of the south"])
    CORPUS["video"](folder / "clip.mp4", [4, 9, 14], 8)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "an index.sightline"


@pytest.fixture
def library(place: Path, folder: Path) -> Iterator[Library]:
    with Library.open(place, embedder=ToyEmbedder(), reranker=ToyReranker()) as library:
        library.add([folder])
        yield library


def names(hits: list[sl.Hit]) -> list[str]:
    return [Path(hit.path).name for hit in hits]


def pixels(number: int) -> Any:
    return np.full((48, 64, 3), CORPUS["colour"](number), np.uint8)


# --- finding ---


def test_every_kind_is_found_by_words_and_pictures(library: Library) -> None:
    assert names(library.search("red bicycle", k=1)) == ["bike.txt"]
    assert names(library.search("自行车", k=1, rerank=0)) == ["zh.md"]
    assert names(library.search(sl.Item(image=pixels(1)), k=1, where="kind=image")) == ["one.png"]
    (page,) = library.search("mountains south", k=1, rerank=0)
    assert (Path(page.path).name, page.page, page.kind) == ("paper.pdf", 2, "page")
    moments = library.search(sl.Item(image=pixels(9)), where={"kind": "moment"}, k=3)
    assert (moments[0].start_s, moments[0].end_s) == (8.0, 16.0)


def test_hits_are_reread_and_more_like_this_is_an_item(library: Library) -> None:
    hit = library.search(sl.Item(image=pixels(2)), k=1, where="kind=image")[0]
    assert hit.rerank_score == hit.score
    assert library.search(library.unit(hit).as_item(), k=1)[0].id == hit.id
    text = library.search("red bicycle", k=1)[0]
    assert library.unit(text).text == "A red bicycle leans on a wall."
    row = library.row(text.id)
    assert row is not None
    assert row.path == text.path
    assert library.row("nope") is None


def test_a_candidate_whose_file_is_gone_keeps_its_recall(library: Library, folder: Path) -> None:
    (folder / "one.png").unlink()
    hits = library.search(sl.Item(image=pixels(1)), where="kind=image")
    assert names(hits) == ["two.png", "one.png"]
    assert hits[1].rerank_score is None


def test_without_a_reranker_recall_decides(place: Path, folder: Path) -> None:
    with Library.open(place, embedder=ToyEmbedder()) as library:
        library.add(folder)
        hits = library.search("red bicycle")
        assert all(hit.rerank_score is None and hit.score == hit.recall_score for hit in hits)


def test_where_by_user_columns(library: Library, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("A red bicycle on holiday.")
    library.add(tmp_path / "more.txt", columns={"album": "Summer '24"})
    assert names(library.search("red bicycle", where="album='Summer \\'24'")) == ["more.txt"]
    assert names(library.search("red bicycle", where={"album": "Summer '24"})) == ["more.txt"]
    with pytest.raises(ConfigError, match="holds text"):
        library.add(tmp_path / "more.txt", columns={"album": 24})


def test_searching_while_adding(library: Library, tmp_path: Path) -> None:
    CORPUS["make"](tmp_path / "more", 60)
    done = threading.Event()
    errors: list[BaseException] = []

    def look() -> None:
        try:
            while not done.is_set():
                assert names(library.search("red bicycle leans wall", k=1, rerank=2)) == ["bike.txt"]
        except BaseException as error:  # of a thread; the test asserts that there is none
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    library.add(tmp_path / "more")
    done.set()
    thread.join()
    assert not errors


# --- adding, removing ---


def test_adding_again_embeds_nothing(library: Library, folder: Path) -> None:
    embedder = library.embedder
    assert isinstance(embedder, ToyEmbedder)
    before = embedder.num_embedded
    report = library.add([folder, folder / "bike.txt"])
    assert report == sl.AddReport(seen=6, unchanged=6)
    assert embedder.num_embedded == before


def test_events(library: Library, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("new")
    events: list[Event] = []
    library.add(tmp_path / "new.txt", on_event=events.append)
    assert events[0] == Counted(files=1, bytes=3)
    assert FileDone(path=os.fspath(tmp_path / "new.txt"), units=1, reused=0) in events


def test_an_index_inside_the_folder_is_not_indexed(folder: Path) -> None:
    with Library.open(folder / "index", embedder=ToyEmbedder()) as library:
        assert library.add(folder).seen == 6
        assert library.add(folder).unchanged == 6


def test_remove(library: Library, folder: Path) -> None:
    assert library.remove(folder / "paper.pdf") == 1
    assert library.stats().kinds.get("page") is None
    assert library.remove([folder / "nothing"]) == 0
    assert library.remove(folder) == 5
    assert (library.stats().rows, library.roots) == (0, ())
    assert len(list(folder.iterdir())) == 6
    assert library.add(folder).indexed == 6


def test_prune(library: Library, folder: Path) -> None:
    (folder / "paper.pdf").unlink()
    assert names_of(library.prune().vanished) == ["paper.pdf"]
    assert library.stats().files == 6
    assert library.prune(dry_run=False).rows == 2
    assert library.stats().files == 5
    shutil.rmtree(folder)
    assert library.prune(dry_run=False).refused
    assert library.stats().files == 5
    assert len(library.prune(dry_run=False, force=True).vanished) == 5
    assert library.stats().rows == 0


def names_of(paths: Any) -> list[str]:
    return [Path(path).name for path in paths]


def test_hostile_names_go_in_and_come_out(library: Library, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"stra\xffnge")
    strange.mkdir()
    hostile = [b"new\nline.txt", b"quo'te\".txt", b"\xff\xfe.txt", "\u202ertl.txt".encode(), b"<img src=x>.txt"]
    for number, name in enumerate(hostile):
        Path(os.fsdecode(os.fsencode(strange) + b"/" + name)).write_text(f"unusual word{number}")
    assert library.add(strange).indexed == 5
    for number, name in enumerate(hostile):
        path = library.search(f"unusual word{number}", k=1, rerank=0)[0].path
        assert os.fsencode(path).endswith(b"/" + name)
        assert names(library.search("unusual", where={"path": path})) == [Path(path).name]
    assert library.check() == []
    assert os.fspath(strange) in library.roots
    assert library.remove([os.fsdecode(os.fsencode(strange) + b"/" + name) for name in hostile]) == 5


# --- failures ---


def test_failures_are_kept_and_shown(place: Path, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nonsense" * 10)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "data.bin").write_bytes(bytes(range(256)) * 10)
    os.mkfifo(folder / "pipe")
    with Library.open(place, embedder=ToyEmbedder()) as library:
        report = library.add(folder)
        assert report.indexed == 6
        assert {Path(one.path).name for one in report.skipped} == {"broken.png", "empty.txt", "data.bin", "pipe"}
        assert {(one.path, one.code) for one in library.failures()} == {(one.path, one.code) for one in report.skipped}
        assert [problem.code for problem in library.check()] == ["skipped"] * 4
        assert library.stats().skipped == 4
        shutil.copy(folder / "one.png", folder / "broken.png")
        assert library.add(folder).indexed == 1
        assert len(library.failures()) == 3


def test_check_finds_what_is_wrong(library: Library, folder: Path) -> None:
    assert library.check() == []
    (folder / "bike.txt").write_text("changed")
    (folder / "one.png").unlink()
    library._ledger.forget([os.fspath(folder / "two.png")])
    library._store.delete_paths([row.path_id for row in [library.row(library.search("mountains")[0].id)] if row])
    codes = sorted(problem.code for problem in library.check())
    assert codes == ["changed_file", "missing_file", "row_count", "unknown_rows"]


# --- identity ---


def test_opening_without_models_shows_but_does_not_search(library: Library, place: Path, folder: Path) -> None:
    with Library.open(place) as looking:
        assert looking.stats() == library.stats()
        assert looking.check() == []
        for attempt in [lambda: looking.search("x"), lambda: looking.add(folder)]:
            with pytest.raises(ConfigError, match=r'Embedder\.load\("toy"\).*--model toy'):
                attempt()


def test_stats(library: Library, place: Path, folder: Path) -> None:
    stats = library.stats()
    assert (stats.files, stats.pending, stats.skipped) == (6, 0, 0)
    assert stats.kinds["text"] == 2 and stats.kinds["image"] == 2 and stats.kinds["page"] == 2
    assert stats.rows == sum(stats.kinds.values())
    assert stats.model == ToyEmbedder().card
    assert stats.reranker == "toy-reranker"
    assert stats.roots == (os.fspath(folder),)
    assert stats.bytes > 1000
    assert card_of(place) == ToyEmbedder().card


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "f" * 16}, "index built with toy .*you run toy .*use --model toy"),
        ({"model": "other", "fingerprint": "f" * 16}, "sightline index --rebuild --library .* --model other"),
        ({"dim": 128}, "64 numbers.*128 numbers"),
        ({"instruction": "Find."}, "instruction"),
        ({"template": "toy-2"}, "template 'toy-1', you run 'toy-2'"),
        ({"max_pixels": 1000}, "max_pixels 1843200, you run 1000.*max_pixels=1843200"),
        ({"max_frames": 8}, "max_frames"),
    ],
)
def test_another_model_is_refused_with_the_command_that_helps(
    library: Library, place: Path, change: dict[str, Any], said: str
) -> None:
    other = ToyEmbedder(dim=change.get("dim", 64))
    other.card = dataclasses.replace(other.card, **change)
    with pytest.raises(IndexMismatchError, match=said):
        Library.open(place, embedder=other)


def test_the_same_weights_under_another_name_are_the_same_model(library: Library, place: Path) -> None:
    same = ToyEmbedder()
    same.card = dataclasses.replace(same.card, model="/models/toy", dtype="bfloat16")
    Library.open(place, embedder=same).close()


def test_settings_that_cut_files_differently_are_refused_for_adding(place: Path, folder: Path) -> None:
    with Library.open(place, embedder=ToyEmbedder(), settings=sl.Settings(moment_s=4.0)) as library:
        library.add(folder)
    with Library.open(place, embedder=ToyEmbedder()) as library:
        assert library.settings.moment_s == 4.0
        library.add(folder)
    with Library.open(place, embedder=ToyEmbedder(), settings=sl.Settings()) as library:
        assert library.search("red bicycle")
        with pytest.raises(IndexMismatchError, match="SIGHTLINE_MOMENT_S=4"):
            library.add(folder)


def test_rebuild(library: Library, place: Path, folder: Path) -> None:
    library.close()
    other = ToyEmbedder(dim=128, model="other")
    with Library.open(place, embedder=other, rebuild=True) as library:
        assert library.stats().rows == 0
        library.add(folder)
        assert library.model.model == "other"
        assert names(library.search("red bicycle", k=1)) == ["bike.txt"]


# --- places ---


def test_no_index_and_no_embedder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no index .*sightline index --library"):
        Library.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_with_other_files_is_not_made_an_index(folder: Path) -> None:
    before = sorted(folder.iterdir())
    for rebuild in [False, True]:
        with pytest.raises(StoreError, match="other files"):
            Library.open(folder, embedder=ToyEmbedder(), rebuild=rebuild)
    assert sorted(folder.iterdir()) == before
    assert not is_index(folder)


@pytest.mark.parametrize("step", ["write_meta", "write_stamp", "store"])
def test_an_index_whose_making_was_killed_is_made_again(
    place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Dies(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Dies

    where = {
        "write_meta": "sightline.library.Ledger.write_meta",
        "write_stamp": "sightline.store.ledger.write_stamp",
        "store": "sightline.library.LanceStore",
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(where, die)
        with pytest.raises(Dies):
            Library.open(place, embedder=ToyEmbedder())
    if step != "store":
        with pytest.raises(StoreError, match="there is no index"):
            Library.open(place)
    with Library.open(place, embedder=ToyEmbedder()) as library:
        assert library.add(folder).indexed == 6


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    (tmp_path / "note.txt").write_text("home")
    with Library.open("~/index", embedder=ToyEmbedder()) as library:
        assert library.path == tmp_path / "index"
        assert library.add("~/note.txt").indexed == 1


def test_closing_twice_is_fine(place: Path) -> None:
    library = Library.open(place, embedder=ToyEmbedder())
    library.close()
    library.close()


def test_two_writers_one_waits_or_is_told(library: Library, place: Path, folder: Path) -> None:
    with (
        Library.open(place, embedder=ToyEmbedder()) as other,
        library._store.writing(),
        pytest.raises(IndexLockedError, match="writes"),
    ):
        other.add(folder)


def test_a_lost_ledger_is_started_again(library: Library, place: Path, folder: Path) -> None:
    library.close()
    for path in place.glob("ledger.sqlite*"):
        path.unlink()
    embedder = ToyEmbedder()
    with Library.open(place, embedder=embedder) as again:
        assert again.stats().rows > 0
        assert again.add(folder).indexed == 6
        assert embedder.num_embedded == 0
        assert again.check() == []


def test_rows_are_those_of_the_exact_store(library: Library, place: Path) -> None:
    """Nothing is written that the two stores would read differently."""
    from sightline.store.exact import ExactStore

    lance = LanceStore(place)
    exact = ExactStore(dim=64)
    exact.add(lance.get(list(lance.ids())))
    query = ToyEmbedder().embed(["red bicycle"])[0]
    assert [hit.id for hit in lance.search_vector(query, 5)] == [hit.id for hit in exact.search_vector(query, 5)]
    lance.close()
