"""``demo``: files that repeat byte for byte, answers that are checked, a page that is safe and whole."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sightline.cli.demo import files, page, run as demo_run
from sightline.cli.demo.queries import QUERIES, Query
from sightline.types import Hit
from tests.cli.conftest import Run

pytest.importorskip("skimage", reason="the extra demo is not installed")
pytest.importorskip("matplotlib", reason="the extra demo is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[files.Made]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder / "files", folder / "queries", files.make(folder / "files", folder / "queries")


def test_files_of_every_kind(made: tuple[Path, Path, list[files.Made]]) -> None:
    folder, _, named = made
    names = {one.name for one in named}
    assert names == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    ends = {Path(name).suffix for name in names}
    assert {".png", ".jpg", ".gif", ".pdf", ".mp4", ".md", ".txt", ".csv", ".py", ".html"} <= ends
    assert len([name for name in names if name.startswith("photos/")]) >= 15
    assert all(one.label for one in named)


def test_a_second_run_touches_nothing(made: tuple[Path, Path, list[files.Made]]) -> None:
    folder, queries, _ = made
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*") if path.is_file()}
    files.make(folder, queries)
    assert [path.name for path, changed in before.items() if path.stat().st_mtime_ns != changed] == []


def test_what_was_changed_is_made_again(made: tuple[Path, Path, list[files.Made]]) -> None:
    folder, queries, named = made
    (folder / "texts/bees.txt").write_text("no bees")
    assert files.make(folder, queries) == named
    assert (folder / "texts/bees.txt").read_text().startswith("A year with the bees")


def test_every_question_names_files_that_are_there(made: tuple[Path, Path, list[files.Made]]) -> None:
    folder, asked, _ = made
    assert len(QUERIES) >= 12
    for query in QUERIES:
        assert query.file and all((folder / name).is_file() for name in query.file)
        for name in (query.image, query.video):
            assert not name or (asked / name).is_file()


def hit(**changes: object) -> Hit:
    values = {
        **{"score": 0.5, "recall_score": 0.4, "rerank_score": 0.5, "kind": "moment", "path": "/f/film.mp4"},
        **{"page": None, "start_s": 0.0, "end_s": 8.0, "title": "film", "snippet": ""},
        **changes,
    }
    return Hit(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("start_s", "right"), [(0.0, True), (4.0, True), (8.0, False), (5.0, False)])
def test_a_moment_is_right_when_it_shares_half(start_s: float, right: bool) -> None:
    query = Query(kind="words → moment", words="x", file=("film.mp4",), within=(0, 8))
    assert query.answered_by(hit(start_s=start_s, end_s=start_s + 8), "film.mp4") is right


def test_a_page_is_right_when_it_is_that_page() -> None:
    query = Query(kind="words → page", words="x", file=("a.pdf",), pages=(4,))
    assert query.answered_by(hit(kind="page", page=4, start_s=None, end_s=None), "a.pdf")
    assert not query.answered_by(hit(kind="page", page=3, start_s=None, end_s=None), "a.pdf")


class Reader(HTMLParser):
    """Collects tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)


def check_safe(text: str) -> None:
    reader = Reader()
    reader.feed(text)
    assert not {"script", "img", "iframe", "object", "link"} & set(reader.tags)
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert "default-src 'none'" in text
    assert re.findall(r"https?://[^\s\"')]+", text) == []


def test_the_page_escapes_everything() -> None:
    evil = '<script>alert(1)</script><img src=x onerror="alert(1)">\'\x1b[31m\u202e'
    shown = page.ShownHit(
        hit=hit(snippet=evil, title=evil, kind="text"), name=evil, label=evil, preview=None, right=True
    )
    answer = page.Answer(
        kind=evil,
        words=evil,
        pictures=(b"\xff\xd8jpeg",),
        picture_name=evil,
        where=evil,
        wanted=evil,
        rank=1,
        recall_right=True,
        seconds=0.1,
        hits=(shown,),
    )
    report = page.Report(
        model=evil,
        reranker=evil,
        device=evil,
        version=evil,
        num_files=1,
        units=((evil, 1),),
        num_new=1,
        num_unchanged=0,
        index_seconds=1.0,
        skipped=((evil, evil),),
        answers=(answer,),
        shelves=(page.Shelf(name=evil, files=((None, evil, evil), (b"\xff\xd8jpeg", evil, evil))),),
    )
    text = page.render(report)
    check_safe(text)
    assert "\x1b" not in text and "\u202e" not in text
    assert text.count("base64,") == 1  # one picture, however often it is seen


def test_the_demo_runs_again_and_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [query for query in QUERIES if query.image or query.video or "German" in query.kind][-5:]
    monkeypatch.setattr(demo_run, "QUERIES", tuple(chosen))
    own = tmp_path / "own <b>"
    own.mkdir()
    (own / "copy.png").write_bytes(files.photo_bytes("astronaut.png"))
    out = tmp_path / "out"
    first = run("demo", "--out", out, "--dir", own)
    assert first.exit_code == 0, first.output
    assert f"of {len(chosen) + 1} right" in first.stdout
    assert "3 files skipped" in first.stdout
    assert "your picture → itself: " in first.stdout
    text = (out / "index.html").read_text(encoding="utf-8")
    check_safe(text)
    assert "own &lt;b&gt;" in text
    second = run("demo", "--out", out, "--model", "toy-other", "--reranker", "none")
    assert second.exit_code == 0, second.output
    assert "copy.png" not in (out / "index.html").read_text(encoding="utf-8")
    assert "toy-other" in (out / "index.html").read_text(encoding="utf-8")


def test_without_the_extra_it_says_which(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skimage", None)
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 6 and "pip install 'sightline[demo]'" in result.stderr


def test_dir_must_be_a_folder(run: Run, tmp_path: Path) -> None:
    assert run("demo", "--out", tmp_path, "--dir", tmp_path / "nowhere").exit_code == 2
