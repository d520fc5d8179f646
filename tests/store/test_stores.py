"""What every store does, run through the numpy oracle and LanceDB alike."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sightline.errors import ConfigError, StoreError
from sightline.store.exact import ExactStore
from sightline.store.lance import LanceStore
from sightline.store.schema import Filter, Found, ItemStore, Row, path_id

DIM = 16
MakeRow = Callable[..., Row]


def ids(hits: list[Found]) -> list[str]:
    return [hit.id for hit in hits]


def near(*weights: float) -> np.ndarray[Any, Any]:
    vector = np.zeros(DIM, np.float32)
    vector[: len(weights)] = weights
    return vector


def test_an_empty_store_answers(store: ItemStore) -> None:
    assert store.dim == DIM
    assert store.search_vector(near(1), 5) == []
    assert store.search_words("word", 5) == ([], [])
    assert (store.count(), store.paths(), store.columns(), list(store.ids())) == (0, {}, {}, [])
    assert store.get(["x"]) == [] and store.vectors(["x"]) == {} and store.existing(["x"]) == set()
    assert store.delete_paths(["x"]) == 0 and store.delete_paths([]) == 0 and store.add([]) == 0
    assert store.optimize().rows == 0
    assert store.check() == []


def test_a_row_comes_back_as_it_was(store: ItemStore, make_row: MakeRow) -> None:
    row = make_row(
        1, kind="moment", page=3, start_s=0.1, end_s=8.25, title="Ti'tle", text="words\n\0 and \udce9", modified_s=1.7e9 + 0.123456,
        columns={"rating": 5, "who": "a'b", "share": 0.25, "seen": False},
    )  # fmt: skip
    store.add([row])
    (back,) = store.get([row.id])
    for name in ("id", "path_id", "path", "kind", "page", "start_s", "end_s", "title", "text", "modified_s"):
        assert getattr(back, name) == getattr(row, name), name
    assert dict(back.columns) == dict(row.columns)
    assert back.vector.dtype == np.float32
    np.testing.assert_allclose(back.vector, row.vector / np.linalg.norm(row.vector), atol=1e-3)
    (hit,) = store.search_vector(row.vector, 1)
    assert hit.score == pytest.approx(1, abs=1e-4)
    assert (hit.page, hit.start_s, hit.columns) == (3, 0.1, back.columns)
    assert store.columns() == {"rating": "integer", "who": "text", "share": "number", "seen": "switch"}


def test_a_vector_that_was_kept_is_kept_again_to_the_bit(store: ItemStore, make_row: MakeRow) -> None:
    """So a copy of a file has the vector of the file, and a copy of the copy too."""
    store.add([make_row(number) for number in range(200)])
    first = store.vectors([f"row-{number:05d}" for number in range(200)])
    store.add([make_row(200 + number, vector=first[f"row-{number:05d}"]) for number in range(200)])
    again = store.vectors([f"row-{number:05d}" for number in range(200, 400)])
    for number in range(200):
        np.testing.assert_array_equal(again[f"row-{200 + number:05d}"], first[f"row-{number:05d}"])
    for plain in (near(3, 4), near(1.25), near(1e-3, 0.5), near(1e10)):
        store.add([make_row(0, vector=plain)])
        (row,) = store.get(["row-00000"])
        np.testing.assert_allclose(row.vector, plain / np.linalg.norm(plain), atol=1e-3)


def test_adding_an_id_again_replaces_the_whole_row(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(1, text="old", columns={"rating": 5}), make_row(2)])
    store.add([make_row(1, text="new", vector=near(0, 1), columns={"who": "me"})])
    assert store.count() == 2
    (row,) = store.get(["row-00001"])
    assert (row.text, dict(row.columns)) == ("new", {"who": "me"})
    assert store.search_words("old", 5) == ([], [])
    assert ids(store.search_vector(near(0, 1), 1)) == ["row-00001"]


def test_the_last_of_equal_ids_in_one_call_wins(store: ItemStore, make_row: MakeRow) -> None:
    assert store.add([make_row(1, text="first"), make_row(1, text="second")]) == 1
    assert [row.text for row in store.get(["row-00001"])] == ["second"]


def test_order_is_by_score_and_then_by_id(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(n, vector=near(1, 0)) for n in range(60, 0, -1)])
    store.add([make_row(100, vector=near(1, 1)), make_row(0, vector=near(2, 2))])
    assert ids(store.search_vector(near(1, 1), 5)) == ["row-00000", "row-00100", "row-00001", "row-00002", "row-00003"]
    store.optimize()
    assert ids(store.search_vector(near(3, 3), 5)) == ["row-00000", "row-00100", "row-00001", "row-00002", "row-00003"]
    assert len(store.search_vector(near(1), 1000)) == 62
    assert store.search_vector(near(1), 0) == [] and store.search_words("x", 0) == ([], [])


def test_scores_are_cosines(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(1, vector=near(30, 40)), make_row(2, vector=near(-1e-20))])
    hits = store.search_vector(near(1e-10), 5)
    assert [hit.score for hit in hits] == pytest.approx([0.6, -1], abs=1e-3)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (near(float("nan")), "NaN"),
        (near(float("inf")), "infinity"),
        (near(float("-inf"), 1), "infinity"),
        (near(), "zero"),
        (np.ones(DIM + 1, np.float32), "16 numbers"),
        (np.ones((1, DIM), np.float32), "16 numbers"),
        (np.array(["a"] * DIM), "16 numbers"),
    ],
    ids=["nan", "inf", "minus-inf", "zero", "wide", "matrix", "text"],
)
def test_bad_vectors_are_refused_by_name_and_nothing_is_kept(
    store: ItemStore, make_row: MakeRow, vector: Any, says: str
) -> None:
    with pytest.raises(StoreError, match=rf"row-00002.*{says}"):
        store.add([make_row(1), make_row(2, vector=vector), make_row(3)])
    assert store.count() == 0
    store.add([make_row(1)])
    with pytest.raises(StoreError, match=rf"query.*{says}"):
        store.search_vector(vector, 5)


def test_filters_come_before_the_cut(store: ItemStore, make_row: MakeRow) -> None:
    # one row in a hundred passes, and all of them are far from the query
    rows = [make_row(n, vector=near(1, n / 1e4)) for n in range(500)]
    rows += [make_row(500 + n, kind="page", vector=near(-1, n)) for n in range(5)]
    store.add(rows)
    assert len(store.search_vector(near(1), 5, Filter.of("kind=page"))) == 5
    store.optimize()
    assert len(store.search_vector(near(1), 5, Filter.of("kind=page"))) == 5


def test_filters(store: ItemStore, make_row: MakeRow) -> None:
    store.add([
        make_row(1, path="/a/b", kind="text", modified_s=100.0, columns={"rating": 5, "who": "ann", "seen": True}),
        make_row(2, path="/a/b/c", kind="page", modified_s=200.0, columns={"rating": 3, "share": 0.5}),
        make_row(3, path="/a/bc", kind="page", modified_s=300.0, columns={"rating": -(2**63), "who": "Bob", "share": 2}),
        make_row(4, path="/", kind="image", modified_s=400.0, columns={"seen": False}),
        make_row(5, path="/a/b/c/d'/e", kind="moment", modified_s=500.0),
    ])  # fmt: skip

    def passing(**asked: Any) -> list[int]:
        where = Filter(**asked)
        hits = store.search_vector(near(1), 10, where)
        assert store.count(where) == len(hits)
        return sorted(int(hit.id[-1]) for hit in hits)

    def columns(text: str) -> list[int]:
        return passing(columns=Filter.of(text).columns)

    assert passing() == [1, 2, 3, 4, 5]
    assert passing(kinds=("page", "text")) == [1, 2, 3]
    assert passing(path_prefix="/a/b") == passing(path_prefix="/a/b/") == [1, 2, 5]
    assert passing(path_prefix="/a/b/c/d'") == [5]
    assert passing(path_prefix="/") == [1, 2, 3, 4, 5]
    assert passing(path_prefix="/a/") == [1, 2, 3, 5]
    assert passing(path_prefix="a") == []
    assert passing(after_s=200.0, before_s=400.0) == [2, 3]
    assert passing(kinds=("page",), path_prefix="/a/b", after_s=0) == [2]
    assert columns("rating=5") == [1] and columns("rating=5.0") == [1] and columns("rating>4.5") == [1]
    assert (
        columns("rating<=3") == [2, 3]
        and columns(f"rating={-(2**63)}") == [3]
        and columns(f"rating<{2**63 - 1}") == [1, 2, 3]
    )
    assert columns("rating!=5") == [2, 3], "a row without the column meets no condition"
    assert columns("share=2") == [3] and columns("share<1") == [2] and columns("share>1e-3") == [2, 3]
    assert columns("who='ann'") == [1] and columns("who>='B' who<'a'") == [3] and columns("who!=ann") == [3]
    assert columns("seen=true") == [1] and columns("seen!=true") == [4] and columns("seen=false") == [4]


@pytest.mark.parametrize("text", ["stars=5", "rating='5'", "rating=true", "who=5", "seen=1", "seen=yes"])
def test_filters_that_do_not_fit_the_columns_are_refused(store: ItemStore, make_row: MakeRow, text: str) -> None:
    store.add([make_row(1, columns={"rating": 5, "who": "ann", "seen": True})])
    for ask in (lambda: store.count(Filter.of(text)), lambda: store.search_vector(near(1), 1, Filter.of(text)),
                lambda: store.search_words("a", 1, Filter.of(text))):  # fmt: skip
        with pytest.raises(ConfigError, match="column"):
            ask()


def test_user_columns_keep_their_type(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(1, columns={"rating": 5, "share": 0.5, "作者": "x", "Rating": "y"})])
    store.add([make_row(2, columns={"share": 3})])
    assert [type(row.columns["share"]) for row in store.get(["row-00002"])] == [float]
    for wrong in ({"rating": "five"}, {"rating": 4.5}, {"share": True}, {"作者": 1}):
        with pytest.raises(StoreError, match=r"row-00003: column .* holds"):
            store.add([make_row(4), make_row(3, columns=wrong)])
    assert store.count() == 2
    assert store.count(Filter.of("作者=x")) == store.count(Filter.of("Rating=y")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": 1},
        {"a b": 1},
        {"": 1},
        {"x`y": 1},
        {"x" * 64: 1},
        {"x": None},
        {"x": [1]},
        {"x": float("nan")},
        {"x": 2**63},
    ],
)
def test_columns_that_cannot_be_are_refused(make_row: MakeRow, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="column"):
        make_row(1, columns=wrong)


def test_hostile_names_are_only_names(store: ItemStore, make_row: MakeRow, hostile_names: list[str]) -> None:
    rows = [make_row(n, path=f"/{name}/x", title=name, columns={"name": name}) for n, name in enumerate(hostile_names)]
    rows += [make_row(100 + n, id=name) for n, name in enumerate(hostile_names)]
    store.add(rows)
    assert set(store.paths().values()) == {row.path for row in rows}
    assert set(store.ids()) == {row.id for row in rows}
    for n, name in enumerate(hostile_names):
        number = f"row-{n:05d}"
        assert ids(store.search_vector(near(1), 9, Filter(path_prefix=f"/{name}"))) == [number]
        assert ids(store.search_vector(near(1), 9, Filter(path_prefix=f"/{name}/x"))) == [number]
        quoted = name.replace("\\", "\\\\").replace("'", "\\'")
        assert ids(store.search_vector(near(1), 9, Filter.of(f"name='{quoted}'"))) == [number]
        assert ids(store.search_vector(near(1), 9, Filter.of({"name": name}))) == [number]
        assert store.existing([name]) == {name} and set(store.vectors([name])) == {name}
        store.search_words(name, 5)
    for n, name in enumerate(hostile_names):
        assert store.delete_paths([path_id(f"/{name}/x")]) == 1
        assert store.existing([f"row-{n:05d}"]) == set()
        assert store.count() == len(rows) - n - 1


TEXTS = {
    1: ("IMG_2031.jpg", "A red bicycle leans on the wall"),
    2: ("report", "Die Straße war naß; the café was full"),
    3: ("", "東京都に行く。猫が好きです"),
    4: ("", "北京大学生前来应聘"),
    5: ("", "안녕하세요 대한민국 여러분"),
    6: ("Bicycle", "blue"),
    7: ("", "ＦＵＬＬ ｗｉｄｔｈ ﬁle"),
    8: ("don't_stop", "ﺍﻟﺴﻼﻡ عليكم Привет мир"),
}


@pytest.mark.parametrize("optimized", [False, True], ids=["fresh", "optimized"])
@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("bicycle", {1, 6}),
        ("BICYCLE wall", {1, 6}),
        ("2031", {1}),
        ("IMG_2031.jpg", {1}),
        ("cafe", {2}),
        ("report", {2}),
        ("東京", {3}),
        ("東京都", {3}),
        ("大学", {4}),
        ("北京大学", {4}),
        ("대한민국", {5}),
        ("민국", {5}),
        ("안녕", {5}),
        ("full", {2, 7}),
        ("file", {7}),
        ("Привет", {8}),
        ("stop", {8}),
    ],
)
def test_words_are_found_in_every_script(
    store: ItemStore, make_row: MakeRow, query: str, numbers: set[int], optimized: bool
) -> None:
    if optimized:
        store.add([make_row(99, text="something else")])
        store.optimize()
    store.add([make_row(n, title=title, text=text) for n, (title, text) in TEXTS.items()])
    if optimized:
        store.optimize()
    words, pieces = store.search_words(query, 10)
    first = {int(hit.id[-1]) for hit in [*words[:1], *pieces[:1]]}
    assert first <= numbers, "the best of each list holds the word"
    assert numbers <= {int(hit.id[-1]) for hit in [*words, *pieces]}


def test_words_respect_filters_and_punctuation_is_no_query(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(n, path=f"/{n % 2}/{n}", text="red bicycle") for n in range(50)])
    for found in store.search_words("bicycle", 100, Filter(path_prefix="/1")):
        assert ids(found) == [f"row-{n:05d}" for n in range(1, 50, 2)], "equal scores by id"
    words, pieces = store.search_words("bicycle", 3)
    assert ids(words) == ids(pieces) == ["row-00000", "row-00001", "row-00002"]
    for query in ("", " ", "?!", "'", '"', "\0", "\udce9", "*", "a" * 10_000, "text:red AND (", "-red", "^"):
        store.search_words(query, 5)
    assert store.search_words("", 5) == store.search_words("  \n", 5) == ([], [])


def test_get_keeps_the_order_asked(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(n) for n in range(1200)])
    wanted = [f"row-{n:05d}" for n in range(1300, -1, -1)]
    assert [row.id for row in store.get(wanted)] == wanted[101:]
    assert [row.id for row in store.get(["row-00001"] * 2)] == ["row-00001"] * 2
    assert len(store.vectors(wanted)) == len(store.existing(wanted)) == 1200
    np.testing.assert_array_equal(store.vectors(["row-00007"])["row-00007"], store.get(["row-00007"])[0].vector)


def test_paths_and_their_deletion(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(n, path=f"/{n % 7}") for n in range(70)])
    assert store.paths() == {path_id(f"/{n}"): f"/{n}" for n in range(7)}
    assert store.delete_paths([path_id("/3"), path_id("/5"), path_id("/nope")]) == 20
    assert store.count() == 50 and len(store.paths()) == 5
    assert store.delete_paths([path_id("/3")]) == 0
    store.add([make_row(3, path="/3")])
    assert store.existing(["row-00003", "row-00010"]) == {"row-00003"}
    store.optimize()
    assert store.count() == 51 and store.check() == []


def test_threads_search_while_one_writes(store: ItemStore, make_row: MakeRow) -> None:
    store.add([make_row(n, text="word") for n in range(50)])
    errors: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                assert len(store.search_vector(near(1), 20)) == 20
                assert len(store.search_words("word", 20)[0]) == 20
                assert len(store.get([f"row-{n:05d}" for n in range(50)])) == 50
        except BaseException as error:  # of a thread; the test asserts that there is none
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(50, 250, 20):
        store.add([make_row(k, text="word") for k in range(n, n + 20)])
        store.delete_paths([make_row(n).path_id])
        if n % 60 == 50:
            store.optimize()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.count() == 240


def test_4096_dimensions(store: ItemStore, make_row: MakeRow, tmp_path: Any) -> None:
    wide: ItemStore = ExactStore(4096) if isinstance(store, ExactStore) else LanceStore(tmp_path / "wide", dim=4096)
    vectors = np.random.default_rng(0).standard_normal((20, 4096)).astype(np.float32)
    wide.add([make_row(n, vector=vectors[n]) for n in range(20)])
    hits = wide.search_vector(vectors[7], 3)
    exact = vectors @ vectors[7] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[7])
    assert ids(hits) == [f"row-{n:05d}" for n in np.argsort(-exact)[:3]]
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(exact)[::-1][:3], atol=1e-3)
    wide.close()
