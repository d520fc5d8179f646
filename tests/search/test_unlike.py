"""What is not wanted goes down, what is wanted stays, whatever the kinds of both."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.errors import ConfigError, InputError, ItemError
from sightline.library import Library
from sightline.search.pipeline import answer, ask
from sightline.search.recall import Candidate
from sightline.search.unlike import away, push_down
from sightline.store.exact import ExactStore
from sightline.store.schema import Found
from sightline.testing import ToyReranker
from sightline.types import Item
from tests.search.test_pipeline import BLUE, GREEN, RED, Desk, picture


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(ExactStore(dim=64))
    made.reranker = None
    yield made


def row(desk: Desk, id: str) -> Any:
    return desk.store.get([id])[0]


def test_words_that_are_not_wanted(desk: Desk) -> None:
    plain = desk.ids("bicycle cat", where="kind=text")
    assert set(plain[:2]) == {"/docs/bike.txt#0", "/docs/cat.txt#0"}
    assert desk.ids("bicycle cat", where="kind=text", unlike=["sleeps all day"])[0] == "/docs/bike.txt#0"
    assert desk.ids("bicycle cat", where="kind=text", unlike=["leans on the wall"])[0] == "/docs/cat.txt#0"


def test_a_picture_that_is_not_wanted(desk: Desk) -> None:
    both = np.concatenate([picture(*RED), picture(*GREEN)])
    red = desk.search({"image": both}, unlike=[{"image": picture(*GREEN)}], where="kind=image")
    green = desk.search({"image": both}, unlike=[{"image": picture(*RED)}], where="kind=image")
    assert (red[0].path, green[0].path) == ("/photos/red.png", "/photos/green.png")


def test_a_picture_that_is_not_wanted_does_not_cost_every_picture(desk: Desk) -> None:
    """All pictures are nearer to a picture than to words: that alone must push none of them down."""
    query = Item(text="red bicycle", image=picture(*RED))
    hits = desk.search(query, unlike=[{"image": picture(*BLUE)}])
    assert {hit.path for hit in hits[:2]} == {"/docs/bike.txt", "/photos/red.png"}


def test_a_row_finds_more_like_it_without_itself(desk: Desk) -> None:
    hits = desk.search(row(desk, "/photos/green.png#0"))
    assert hits[0].path == "/clips/a.mp4" and hits[0].start_s == 0.0
    assert "/photos/green.png" not in {hit.path for hit in hits}
    assert desk.embedder.num_embedded == len(list(desk.store.ids())), "its vector is known"


def test_a_moment_brings_no_moment_of_the_same_seconds(desk: Desk) -> None:
    starts = {hit.start_s for hit in desk.search(row(desk, "/clips/a.mp4#0"), where="kind=moment")}
    assert 8.0 in starts
    assert not starts & {0.0, 4.0}


def test_a_row_that_is_not_wanted_is_no_answer(desk: Desk) -> None:
    assert desk.ids("red bicycle")[0] == "/docs/bike.txt#0"
    hits = desk.search("red bicycle", unlike=[row(desk, "/docs/bike.txt#0")])
    assert "/docs/bike.txt#0" not in {hit.id for hit in hits} and hits


def test_the_reranker_takes_off_what_is_not_wanted(desk: Desk) -> None:
    class Table:
        """Probabilities by query and the beginning of a document."""

        card = ToyReranker().card

        def score(self, query: Any, documents: Sequence[Any], *, instruction: str | None = None) -> np.ndarray:
            wanted = {"red": {"a red": 0.9, "a black": 0.6}, "bicycle": {"a red": 0.8, "a black": 0.1}}
            known = wanted[query.texts[0]]
            return np.array([known.get(" ".join(d.texts[0].split()[:2]), 0.0) for d in documents], np.float32)

    desk.reranker = Table()
    found = desk.search("red", rerank=10, where="kind=text")
    assert [hit.path for hit in found[:2]] == ["/docs/bike.txt", "/docs/cat.txt"]
    found = desk.search("red", rerank=10, where="kind=text", unlike=["bicycle"])
    assert found[0].path == "/docs/cat.txt"
    scores = {hit.path: hit.rerank_score for hit in found}
    assert scores["/docs/cat.txt"] == pytest.approx(0.6 * (1 - 0.1))
    assert scores["/docs/bike.txt"] == pytest.approx(0.9 * (1 - 0.8))


def test_a_row_whose_file_is_gone_still_recalls(desk: Desk) -> None:
    desk.reranker = ToyReranker()
    desk.reader.missing = {"/photos/green.png"}
    hits = desk.search(row(desk, "/photos/green.png#0"), rerank=10)
    assert hits[0].path == "/clips/a.mp4"
    assert all(hit.rerank_score is None for hit in hits)


def test_an_answer_tells_places_and_times(desk: Desk) -> None:
    desk.reranker = ToyReranker()
    found = answer(desk.store, desk.reader, desk.embedder, desk.reranker, ask("table of mountains", rerank=5, k=5))
    assert sorted(found.recall_ranks) == list(range(1, len(found.hits) + 1))
    by_recall = sorted(zip(found.recall_ranks, found.hits, strict=True), key=lambda pair: pair[0])
    scores = [hit.recall_score for _, hit in by_recall]
    assert scores == sorted(scores, reverse=True)
    assert found.took.embed_s > 0 and found.took.recall_s > 0 and found.took.rerank_s > 0


@pytest.mark.parametrize("unlike", [[""], [Item()], ["good", {"text": " "}]])
def test_nothing_cannot_be_unwanted(desk: Desk, unlike: list[Any]) -> None:
    with pytest.raises(InputError, match="a part of unlike is empty"):
        desk.search("red", unlike=unlike)


def test_not_everything_can_be_unwanted(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="at most 16"):
        desk.search("red", unlike=["word"] * 17)


def test_errors_name_the_part(desk: Desk) -> None:
    with pytest.raises(ItemError) as raised:
        desk.search(row(desk, "/photos/red.png#0"), unlike=["fine", "poison"])
    assert raised.value.position == 2


def test_moving_away_keeps_half_of_the_query() -> None:
    query = np.array([1.0, 0.0], np.float32)
    assert away(query, np.zeros((0, 2), np.float32)) is query
    same = away(query, query[None])
    assert same == pytest.approx(query), "a query that is itself unwanted goes nowhere else"
    many = away(query, np.array([[0, 1], [0, -1]], np.float32))
    assert many == pytest.approx(query), "opposite wishes cancel"


def test_as_near_to_one_as_to_the_other_costs_half() -> None:
    def candidate(id: str) -> Candidate:
        found = Found(
            score=1.0,
            id=id,
            path_id=id,
            path=id,
            kind="text",
            page=None,
            start_s=None,
            end_s=None,
            title="",
            text="",
            modified_s=0.0,
            columns={},
        )
        return Candidate(found, 1.0)

    vectors = {
        "a": np.array([1, 0], np.float32),
        "b": np.array([0, 1], np.float32),
        "c": np.array([0.6, 0.8], np.float32),
    }
    query, unlike = vectors["a"], vectors["b"][None]
    pushed = push_down([candidate(id) for id in "bca"], query, unlike, vectors)
    assert [one.row.id for one in pushed] == ["a", "c", "b"]
    same = push_down([candidate(id) for id in "ab"], query, query[None], vectors)
    assert [one.score for one in same] == [0.5, 0.5]
    told = push_down([candidate(id) for id in "ab"], query, query[None], vectors, [{"b": 1.0}, {"a": 1.0}])
    assert [one.row.id for one in told] == ["b", "a"] and told[0].score > 0.95 > 0.05 > told[1].score
    unknown = push_down([candidate("x"), candidate("y")], query, unlike, vectors)
    assert [one.score for one in unknown] == [1.0, 1.0], "nothing is known of any of them"


# --- with the built-in model -----------------------------------------------------------------------------------------


def draw(path: Path, shape: str, colour: tuple[int, int, int], place: int) -> None:
    """A plain shape on white."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (160, 160), "white")
    box = (24 + place, 24, 120 + place, 120)
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    else:
        pen.rectangle(box, fill=colour)
    image.save(path)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    import sightline

    folder = tmp_path_factory.mktemp("drawings")
    colours = {"red": RED, "blue": BLUE, "green": GREEN}
    for shape in ("circle", "square"):
        for name, colour in colours.items():
            for place in (0, 12):
                draw(folder / f"{name}-{shape}-{place}.png", shape, colour, place)
    (folder / "note.txt").write_text("Minutes of the meeting about the budget.")
    embedder, reranker = sightline.Embedder.load("builtin"), sightline.Reranker.load("builtin")
    with Library.open(folder.parent / "d.sightline", embedder=embedder, reranker=reranker) as library:
        library.add([folder])
        yield library


def names(library: Library, query: Any, **options: Any) -> list[str]:
    return [Path(hit.path).stem for hit in library.search(query, where="kind=image", k=12, **options)]


@pytest.mark.parametrize("rerank", [0, 12])
@pytest.mark.parametrize("colour", ["red", "blue", "green"])
def test_a_circle_but_not_of_that_colour(drawings: Library, colour: str, rerank: int) -> None:
    def mean_place(found: list[str]) -> float:
        return float(np.mean([place for place, name in enumerate(found) if name.startswith(colour)]))

    plain = names(drawings, "a circle", rerank=rerank)
    without = names(drawings, "a circle", rerank=rerank, unlike=[colour])
    assert mean_place(without) > mean_place(plain)
    assert not without[0].startswith(colour)


@pytest.mark.parametrize("rerank", [0, 12])
def test_not_this_picture(drawings: Library, rerank: int) -> None:
    hits = drawings.search("a red circle", where="kind=image", k=12, rerank=rerank)
    blue = next(hit for hit in hits if Path(hit.path).stem == "blue-circle-0")
    found = names(drawings, "a circle", rerank=rerank, unlike=[blue])
    assert "blue-circle-0" not in found
    assert found[0].split("-")[0] != "blue"
    assert found.index("blue-circle-12") > found.index("red-circle-0")


def test_more_like_this_picture(drawings: Library) -> None:
    hits = drawings.search("a red circle", where="kind=image", k=12, rerank=0)
    green = next(hit for hit in hits if Path(hit.path).stem == "green-square-0")
    assert names(drawings, green, rerank=0)[0] == "green-square-12"
    assert names(drawings, green, rerank=0, unlike=["green"])[0] != "green-square-0"
