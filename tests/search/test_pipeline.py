"""From a query to hits, on both stores."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.errors import ConfigError, InputError, ItemError, MediaError
from sightline.search.pipeline import ask, search
from sightline.search.recall import recall
from sightline.store.exact import ExactStore
from sightline.store.lance import LanceStore
from sightline.store.schema import ItemStore, Row, path_id
from sightline.testing import ToyEmbedder, ToyReranker
from sightline.types import Hit, Item, Kind, Unit, VideoFrames

RED, GREEN, BLUE, GREY = (220, 20, 20), (20, 200, 20), (20, 20, 220), (128, 128, 128)


def picture(*colour: int) -> np.ndarray:
    return np.full((32, 32, 3), colour, np.uint8)


def clip(*colour: int) -> VideoFrames:
    return VideoFrames(frames=np.stack([picture(*colour)] * 2), indices=(0, 1), fps=1.0)


UNITS: dict[str, list[Unit]] = {
    "/docs/bike.txt": [Unit(kind="text", title="bike", text="a red bicycle leans on the wall")],
    "/docs/cat.txt": [Unit(kind="text", title="cat", text="a black cat sleeps all day")],
    "/docs/zh.txt": [Unit(kind="text", title="zh", text="一辆红色的自行车靠在墙边")],
    "/docs/ko.txt": [Unit(kind="text", title="ko", text="빨간 자전거를 탔다")],
    "/docs/paper.pdf": [
        Unit(kind="page", page=1, title="paper", text="introduction to rivers", pixels=picture(*GREY)),
        Unit(kind="page", page=2, title="paper", text="table of mountains", pixels=picture(*BLUE)),
    ],
    "/photos/red.png": [Unit(kind="image", title="red", pixels=picture(*RED))],
    "/photos/green.png": [Unit(kind="image", title="green", pixels=picture(*GREEN))],
    "/clips/a.mp4": [
        Unit(kind="moment", start_s=0.0, end_s=8.0, title="a", frames=clip(*GREEN)),
        Unit(kind="moment", start_s=4.0, end_s=12.0, title="a", frames=clip(*GREEN)),
        Unit(kind="moment", start_s=8.0, end_s=16.0, title="a", frames=clip(*GREEN)),
        Unit(kind="moment", start_s=12.0, end_s=20.0, title="a", frames=clip(*BLUE)),
    ],
}


class MemoryReader:
    """Reads units again out of ``UNITS``."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.num_read = 0

    def unit(
        self, path: str, kind: Kind, page: int | None = None, start_s: float | None = None, end_s: float | None = None
    ) -> Unit:
        self.num_read += 1
        if path in self.missing:
            raise MediaError("unreadable")
        return next(u for u in UNITS[path] if (u.kind, u.page, u.start_s) == (kind, page, start_s))


class Desk:
    """A store with everything in it, and models."""

    def __init__(self, store: ItemStore) -> None:
        self.store = store
        self.reader = MemoryReader()
        self.embedder: Any = ToyEmbedder()
        self.reranker: Any = ToyReranker()
        rows: list[Row] = []
        for path, units in UNITS.items():
            for number, unit in enumerate(units):
                vector = self.embedder.embed([unit.as_item()])[0]
                columns: dict[str, Any] = {"stars": len(path) % 5}
                place = {"page": unit.page, "start_s": unit.start_s, "end_s": unit.end_s}
                rows.append(
                    Row(
                        id=f"{path}#{number}",
                        path_id=path_id(path),
                        path=path,
                        kind=unit.kind,
                        vector=vector,
                        title=unit.title,
                        text=unit.text,
                        modified_s=1.7e9 + len(rows),
                        columns=columns,
                        **place,  # type: ignore[arg-type]
                    )
                )
        store.add(rows)

    def search(self, query: Any, *, rerank: int = 0, **options: Any) -> list[Hit]:
        asked = ask(query, rerank=rerank, **options)
        return search(self.store, self.reader, self.embedder, self.reranker, asked)

    def ids(self, query: Any, **options: Any) -> list[str]:
        return [hit.id for hit in self.search(query, **options)]


@pytest.fixture(params=["exact", "lance"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    store: ItemStore = ExactStore(dim=64) if request.param == "exact" else LanceStore(tmp_path / "index", dim=64)
    yield Desk(store)
    store.close()


def test_words(desk: Desk) -> None:
    best = desk.search("red bicycle")[0]
    assert (best.path, best.kind) == ("/docs/bike.txt", "text")
    assert best.snippet == "a red bicycle leans on the wall"
    assert best.rerank_score is None
    assert best.score == best.recall_score


@pytest.mark.parametrize(
    ("query", "path"), [("自行车", "/docs/zh.txt"), ("자전거", "/docs/ko.txt"), ("墙边", "/docs/zh.txt")]
)
def test_words_inside_chinese_and_korean(desk: Desk, query: str, path: str) -> None:
    assert desk.search(query)[0].path == path


def test_small_words_do_not_outvote_the_vector(desk: Desk) -> None:
    """Texts hold "a", "of" and "the", the picture that the vector means holds no word at all."""
    vector = desk.embedder.embed([Item(image=picture(*GREEN))])[0]
    assert recall(desk.store, vector, "a picture of the lawn", 5)[0].row.path == "/photos/green.png"
    assert recall(desk.store, vector, "a bicycle on the wall", 5)[0].row.path == "/docs/bike.txt", (
        "words that say it do"
    )


def test_a_page_is_found_by_its_words(desk: Desk) -> None:
    hit = desk.search("table of mountains")[0]
    assert (hit.path, hit.page) == ("/docs/paper.pdf", 2)


def test_an_image(desk: Desk) -> None:
    assert desk.search(Item(image=picture(*RED)))[0].path == "/photos/red.png"
    assert desk.search({"image": picture(*RED)}, k=1) == desk.search(Item(image=picture(*RED)), k=1)


def test_a_video(desk: Desk) -> None:
    assert desk.search(Item(video=clip(*BLUE)), where={"kind": "moment"})[0].start_s == 12.0


def test_words_and_image_together(desk: Desk) -> None:
    mixed = desk.search(Item(text="bicycle", image=picture(*RED)))
    assert {hit.path for hit in mixed[:2]} == {"/docs/bike.txt", "/photos/red.png"}


def test_more_like_this(desk: Desk) -> None:
    hit = desk.search(Item(image=picture(*GREEN)), where="kind=image")[0]
    again = desk.search(desk.reader.unit(hit.path, hit.kind).as_item(), k=1)
    assert again[0].id == hit.id


def test_each_stretch_of_a_video_once(desk: Desk) -> None:
    starts = [hit.start_s for hit in desk.search(Item(image=picture(*GREEN)), where="kind=moment", k=10)]
    assert starts == [0.0, 8.0] or starts == [0.0, 8.0, 12.0][: len(starts)]
    assert 4.0 not in starts


def test_enough_hits_though_moments_merge(desk: Desk) -> None:
    rows = [
        Row(
            id=f"long#{start:04}",
            path_id=path_id("/clips/long.mp4"),
            path="/clips/long.mp4",
            kind="moment",
            vector=desk.embedder.embed([Item(image=picture(*GREEN))])[0],
            start_s=float(start),
            end_s=start + 8.0,
        )
        for start in range(0, 400, 1)
    ]
    desk.store.add(rows)
    hits = desk.search(Item(image=picture(*GREEN)), where="path=/clips/long.mp4", k=20)
    assert len(hits) == 20
    assert hits[0].start_s == 0.0


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("kind=image", {"/photos/red.png", "/photos/green.png"}),
        ({"kind": ["image", "page"]}, {"/photos/red.png", "/photos/green.png", "/docs/paper.pdf"}),
        ("path=/photos", {"/photos/red.png", "/photos/green.png"}),
        ({"path": "/docs/paper.pdf"}, {"/docs/paper.pdf"}),
        ("stars=4", {path for path in UNITS if len(path) % 5 == 4}),
        ("kind=text stars>=4", {path for path in UNITS if len(path) % 5 == 4 and path.endswith("txt")}),
        ({"before": 1.7e9 + 2}, {"/docs/bike.txt", "/docs/cat.txt"}),
        ("kind=video", set()),
    ],
)
def test_where(desk: Desk, where: Any, wanted: set[str]) -> None:
    assert {hit.path for hit in desk.search("red", where=where, k=100)} == wanted


def test_unknown_columns_are_named(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="sterne"):
        desk.search("red", where="sterne=4")


class Backwards:
    """Likes what recall liked least."""

    card = ToyReranker().card

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, query: Any, documents: Sequence[Any], *, instruction: str | None = None) -> np.ndarray:
        self.calls.append(len(documents))
        return np.linspace(0.1, 0.9, len(documents), dtype=np.float32)


def test_reranking_changes_the_order(desk: Desk) -> None:
    recalled = desk.ids("red bicycle", k=4)
    desk.reranker = Backwards()
    assert desk.ids("red bicycle", k=4, rerank=4) == recalled[::-1]


def test_what_was_not_reranked_comes_after_by_recall(desk: Desk) -> None:
    recalled = desk.ids("red bicycle", k=6)
    desk.reranker = Backwards()
    hits = desk.search("red bicycle", k=6, rerank=2)
    assert [hit.id for hit in hits] == [recalled[1], recalled[0], *recalled[2:]]
    assert [hit.rerank_score is None for hit in hits] == [False, False, True, True, True, True]
    assert [hit.score for hit in hits[2:]] == [hit.recall_score for hit in hits[2:]]


def test_reranking_sees_pixels_of_files_and_text_of_rows(desk: Desk) -> None:
    seen: list[Item] = []

    class Watching(Backwards):
        def score(self, query: Any, documents: Sequence[Any], *, instruction: str | None = None) -> np.ndarray:
            seen.extend(documents)
            return super().score(query, documents)

    desk.reranker = Watching()
    desk.search("red bicycle", rerank=100)
    assert len(seen) == len(desk.search("red bicycle", k=100))
    assert sum(item.text is not None for item in seen) == 4
    assert sum(item.video is not None for item in seen) == 2


def test_candidates_that_vanished_stand_behind_the_reranked(desk: Desk) -> None:
    desk.reader.missing = {"/photos/red.png"}
    hits = desk.search(Item(image=picture(*RED)), rerank=5, k=5)
    assert hits[-1].path == "/photos/red.png"
    assert (hits[-1].rerank_score, hits[-1].score) == (None, hits[-1].recall_score)
    assert all(hit.rerank_score is not None for hit in hits[:-1])


def test_a_candidate_that_the_model_refuses_costs_itself(desk: Desk) -> None:
    class Picky(Backwards):
        def score(self, query: Any, documents: Sequence[Any], *, instruction: str | None = None) -> np.ndarray:
            for position, document in enumerate(documents):
                if document.video is not None:
                    raise ItemError(position, "too_long")
            return super().score(query, documents)

    desk.reranker = Picky()
    hits = desk.search("red", rerank=100, k=100)
    assert [hit.kind for hit in hits if hit.rerank_score is None] == ["moment", "moment"]


def test_scores_that_are_no_numbers_are_no_scores(desk: Desk) -> None:
    class Unsound(Backwards):
        def score(self, query: Any, documents: Sequence[Any], *, instruction: str | None = None) -> np.ndarray:
            return np.array([np.nan] + [0.5] * (len(documents) - 1), np.float32)

    desk.reranker = Unsound()
    hits = desk.search("red", rerank=4, k=4)
    assert [hit.rerank_score for hit in hits] == [0.5, 0.5, 0.5, None]


def test_large_pictures_are_judged_in_blocks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.search.rerank.BLOCK_BYTES", 5_000)
    desk.reranker = Backwards()
    desk.search(Item(image=picture(*RED)), rerank=100, k=100)
    assert len(desk.reranker.calls) > 3


def test_min_score_cuts_on_the_score(desk: Desk) -> None:
    desk.reranker = Backwards()
    scores = [hit.score for hit in desk.search("red", rerank=5, k=5, min_score=0.5)]
    assert scores and min(scores) >= 0.5
    assert desk.search("red", rerank=5, k=5, min_score=1.0) == []


@pytest.mark.parametrize(
    "query", ["", "  \n", Item(), Item(text=[]), Item(text=["", " "]), Item(image=[]), Item(video=[])]
)
def test_empty_queries_are_refused(desk: Desk, query: Any) -> None:
    with pytest.raises(InputError, match="empty"):
        desk.search(query)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"k": -1},
        {"k": 2.5},
        {"k": True},
        {"k": 10**9},
        {"rerank": -1},
        {"min_score": 2},
        {"min_score": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ask("x", **options)


def test_half_characters_are_refused() -> None:
    with pytest.raises(InputError, match="surrogate"):
        ask("a \ud800 b")


def test_a_query_vector_that_is_not_finite_is_an_error(desk: Desk) -> None:
    class Unsound(ToyEmbedder):
        def embed(self, items: Any, **options: Any) -> Any:
            return super().embed(items) * np.nan

    desk.embedder = Unsound()
    with pytest.raises(ItemError, match="not finite"):
        desk.search("red")


def test_both_stores_give_the_same_hits(tmp_path: Path) -> None:
    exact, lance = Desk(ExactStore(dim=64)), Desk(LanceStore(tmp_path / "index", dim=64))
    queries: list[Any] = ["red bicycle", "自行车", Item(image=picture(*GREEN)), Item(text="cat", image=picture(*BLUE))]
    for query in queries:
        options: dict[str, Any]
        for options in ({}, {"where": "kind=text,moment"}, {"rerank": 10}):
            one, other = exact.search(query, **options), lance.search(query, **options)
            assert [hit.id for hit in one[:3]] == [hit.id for hit in other[:3]]
            assert {hit.id for hit in one} == {hit.id for hit in other}
    lance.store.close()


def test_a_hostile_text_does_not_reach_the_terminal(desk: Desk) -> None:
    text = "evil \x1b[31m\x00 \u202ebicycle " + "x" * 1000
    vector = desk.embedder.embed(["evil"])[0]
    desk.store.add([Row(id="evil", path_id="e", path="/e", kind="text", vector=vector, title="a\nb\x1b]0;", text=text)])
    hit = next(hit for hit in desk.search("evil", k=3) if hit.id == "evil")
    assert hit.snippet.isprintable() and hit.title.isprintable()


class HalfTrusted(ToyReranker):
    """Likes only one document, and asks for a quarter of the say."""

    def __init__(self) -> None:
        super().__init__()
        self.card = dataclasses.replace(self.card, trust=0.25)

    def score(self, query: Any, documents: Sequence[Any], *, instruction: str | None = None) -> Any:
        return np.array(["cat" in " ".join(Item.of(document).texts) for document in documents], np.float32)


def test_a_reranker_that_is_not_fully_trusted_shares_the_order_with_recall(desk: Desk) -> None:
    hits = search(desk.store, desk.reader, desk.embedder, HalfTrusted(), ask("a red bicycle", k=10))
    assert hits[0].title == "bike", "recall is not overruled by a quarter of the say"
    places = sorted(hits, key=lambda hit: -hit.recall_score)
    for place, hit in enumerate(places, 1):
        assert hit.rerank_score is not None
        assert hit.score == pytest.approx(0.25 * hit.rerank_score + 0.75 / place)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
