"""The trials of the built-in models: what is asked, how it is counted, and that nothing of it is trained on."""

import dataclasses
import inspect
import io
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.cli.training import app
from sightline.errors import ConfigError
from sightline.train.builtin import drawing, evaluate, heldout, trials
from sightline.train.builtin.corpus import Corpus, Row, base, name_held_out, plain
from sightline.train.builtin.evaluate import Report, compare, hits, mean_interval, measured, reranked_hits, table
from sightline.train.builtin.looking import Looker
from sightline.train.builtin.tasks import Maker, coarse
from sightline.train.builtin.trials import Trial
from sightline.types import Item


def trial(**changes: Any) -> Trial:
    """Two queries, three candidates."""
    items = [Item(text=str(index)) for index in range(3)]
    return dataclasses.replace(Trial("t", "a trial", items[:2], items, [frozenset({0}), frozenset({2})]), **changes)


# -- counting --------------------------------------------------------------------------------------------------------


def test_hits_count_the_first_places_of_each_pool() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.8, 0.7]], np.float32)
    assert hits(scores, trial()).tolist() == [1, 0]
    assert hits(scores, trial(at=3)).tolist() == [1, 1]
    assert hits(scores, trial(pools=[[0, 1], [2]])).tolist() == [1, 1]
    assert hits(scores, trial(answers=[frozenset(), frozenset({0})])).tolist() == [0, 1]


def test_equal_scores_are_no_advantage() -> None:
    """A model that says the same of everything finds what chance finds, wherever the answers stand."""
    items = [Item(text=str(index)) for index in range(1000)]
    pools = [range(10 * index, 10 * index + 10) for index in range(100)]
    blind = Trial("t", "t", items[:100], items, [frozenset({pool[0]}) for pool in pools], pools)
    assert hits(np.zeros((100, 1000), np.float32), blind).mean() < 0.3


def test_intervals() -> None:
    # Wilson's interval of 50 of 100 (any table of it): .404 to .596
    found = np.array([1.0, 0.0] * 50)
    assert mean_interval(found) == pytest.approx((0.5, 0.4038, 0.5962), abs=1e-4)
    assert mean_interval(np.ones(10)) == pytest.approx((1.0, 0.7225, 1.0), abs=1e-4)
    # groups count the same however large they are
    mean, low, high = mean_interval(np.array([1.0] * 90 + [0.0] * 10), ["a"] * 90 + ["b"] * 10)
    assert (mean, low, high) == (0.5, 0.5, 0.5)
    found = np.array([1.0, 0.0] * 100)
    assert mean_interval(found, ["a"] * 100 + ["b"] * 100) == pytest.approx((0.5, 0.43, 0.57), abs=0.02)


def test_short_and_coarse_vectors_are_measured_as_such() -> None:
    """What tells candidates apart stands in the second half, or in the sizes: it is lost where it is cut away."""
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(200, 256)).astype(np.float32)
    documents[:, :128] = 1  # nothing to tell by
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    items = [Item(text=str(index)) for index in range(200)]
    asked = Trial("t", "t", items, items, [frozenset({index}) for index in range(200)], floor=0.9)
    row = measured(asked, documents, documents)
    assert row.value == 1 and row.int8 == 1 and row.binary == 1 and row.reached
    assert row.dim128 is not None and row.dim128 < 0.1 and row.dim64 is not None and row.dim64 < 0.1
    assert row.reranked is None


class Judge:
    """A reranker that prefers one text."""

    def __init__(self, text: str, trust: float) -> None:
        self.text = text
        self.card = type("Card", (), {"trust": trust, "model": "judge"})()

    def score(self, query: Item, documents: Sequence[Item], *, instruction: str | None = None) -> np.ndarray:
        return np.array([float(document.text == self.text) for document in documents], np.float32)


def test_reranking_is_the_searchs_own() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.8, 0.7]], np.float32)
    assert reranked_hits(Judge("2", 1.0), scores, trial()).tolist() == [0, 1]  # type: ignore[arg-type]
    # third place is worth 1/3, first place 1: a reranker trusted for a quarter cannot make that good
    assert reranked_hits(Judge("2", 0.25), scores, trial()).tolist() == [1, 0]  # type: ignore[arg-type]


# -- reports ---------------------------------------------------------------------------------------------------------


def report(value: float, **changes: Any) -> Report:
    row = evaluate.Row(
        "page", "page by its words", "R@1", 10, 100, value, value - 0.1, value + 0.1, 0.5, value >= 0.5, value, 0.2, 0.3
    )
    other = dataclasses.replace(row, name="scene", task="scene by description", binary=0.4, **changes)
    return Report("m", "r", False, 1.5, (row, other))


def test_a_report_is_written_and_read_and_compared(tmp_path: Path) -> None:
    first = report(0.4, reranked_floor=0.85)
    last = report(0.6, reranked=0.8, reranked_low=0.7, reranked_high=0.9, reranked_floor=0.85, reranked_reached=False)
    assert first.kept() == pytest.approx({"dim128": 1.0, "dim64": 0.5, "int8": 0.75, "binary": 1.0})
    for name, one in (("s0", first), ("s1", last)):
        one.write(tmp_path / f"{name}.json")
        assert Report.read(tmp_path / f"{name}.json") == one
    text = compare([tmp_path / "s0.json", tmp_path / "s1.json"])
    head, *lines = text.splitlines()
    assert head.split(" | ")[-3:] == ["s0", "s1", "+ reranker |"]
    assert lines[1].startswith("| page by its words") and lines[2].startswith("| scene by description")
    assert ".400 (.300–.500) | .600 (.500–.700) | .800 (.700–.900)" in lines[2]
    assert ".500 / .850" in lines[2]
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert "no" in table(first) and "yes" in table(last)


def test_files_that_are_no_report_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"x\.json is no report"):
        compare([tmp_path / "x.json"])
    with pytest.raises(ConfigError, match="cannot be read"):
        compare([tmp_path / "y.json"])


# -- what is asked ---------------------------------------------------------------------------------------------------


class Small:
    """As much of a corpus as drawn trials need."""

    train: ClassVar = defaultdict(
        list, wordnet=[Row("wordnet", "t2t", "en", word, "", word, "", "") for word in ("river", "tax")]
    )
    valid_sentences: ClassVar = [
        f"{who} {does} the {what} number {n} today"
        for n, (who, does, what) in enumerate(
            (w, d, o) for w in ("Anna", "Tom", "She") for d in ("paints", "sells") for o in ("house", "bridge", "wall")
        )
    ]
    valid: ClassVar[dict[str, list[Row]]] = defaultdict(list)


def test_scenes_stand_among_nine_others() -> None:
    (asked,) = trials.scenes(Small(), 0.1)  # type: ignore[arg-type]
    assert len(asked.queries) == 30 and asked.pools is not None and asked.rerank
    assert all(len(pool) == 10 and answer == {pool[0]} for pool, answer in zip(asked.pools, asked.answers, strict=True))


def test_hard_negatives_are_different_scenes() -> None:
    rng = random.Random(0)
    for _ in range(50):
        scene = drawing.random_scene(rng)
        captions = [scene.caption(), *(other.caption() for other in drawing.near_scenes(rng, scene, 9))]
        assert len(set(captions)) == 10


def test_an_edit_is_sought_among_a_hundred_with_the_picture_itself() -> None:
    (asked,) = trials.edits(Small(), 1.0)  # type: ignore[arg-type]
    assert len(asked.queries) == 300 and asked.pools is not None
    for query, pool, answers in zip(asked.queries, asked.pools, asked.answers, strict=True):
        assert len(set(pool)) == 100
        assert answers and answers <= set(pool)
        same = [place for place in pool if asked.documents[place].image is query.image]
        assert len(same) == 1 and not answers & set(same)
        assert query.text.startswith("the same, but")  # type: ignore[union-attr]


def test_large_pictures_are_asked_for_as_small_ones_are() -> None:
    scene, edit, chart = trials.large(Small(), 0.05)  # type: ignore[arg-type]
    assert [one.name for one in (scene, edit, chart)] == ["scene-large", "edit-large", "chart-large"]
    assert all(np.asarray(item.image).shape == (384, 384, 3) for item in (*scene.documents, *edit.documents))
    assert all(np.asarray(item.image).shape == (384, 512, 3) for item in chart.documents)
    assert scene.num_candidates == 10 and len(edit.queries) == len(chart.queries) == 5
    assert all(one.floor is None and not one.rerank for one in (scene, edit, chart))


def test_pictures_of_any_size_are_no_whole_cells_wide() -> None:
    scene, edit, chart = trials.sized(Small(), 0.05)  # type: ignore[arg-type]
    assert [one.name for one in (scene, edit, chart)] == ["scene-sized", "edit-sized", "chart-sized"]
    assert [len(one.queries) for one in (scene, edit, chart)] == [5, 5, 5]
    sizes = [np.asarray(item.image).shape[:2] for item in (*scene.documents, *edit.documents, *chart.documents)]
    assert len(set(sizes)) > 10 and any(side % 32 for size in sizes for side in size)
    assert min(map(min, sizes)) >= 84 and max(map(max, sizes)) <= 420
    for query, pool in zip(edit.queries, edit.pools or (), strict=True):
        assert any(edit.documents[place].image is query.image for place in pool)
    assert all(one.floor is None and not one.rerank for one in (scene, edit, chart))


def test_moments_are_sought_in_their_film() -> None:
    (asked,) = trials.moments(Small(), 0.1)  # type: ignore[arg-type]
    assert len(asked.queries) == 15 and asked.num_candidates == 14
    assert all(1 <= len(answers) <= 2 for answers in asked.answers)
    assert len(trials.moments(Small(), 1.0)[0].queries) == 150  # type: ignore[arg-type]


def test_pages_show_their_sentence_and_share_their_pictures() -> None:
    words, paraphrase = trials.pages(Small(), 0.01)  # type: ignore[arg-type]
    assert words.documents is paraphrase.documents and len(words.queries) == 10
    for one, other in zip(words.queries, paraphrase.queries, strict=True):
        assert set(str(other.text).split()) < set(str(one.text).split())
    assert {np.asarray(document.image).shape for document in words.documents} == {(256, 256, 3)}


def test_coarse_classes() -> None:
    rows = [Row("grocery", "i2t", "en", "", "", text, "", "") for text in ("Gala (Apple)", "Fresh. Fits well.")]
    assert [coarse(row) for row in rows] == ["apple", ""]


# -- the command -----------------------------------------------------------------------------------------------------

FIELDS = ("src", "task", "lang", "q_text", "q_image", "d_text", "d_image", "neg_image")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the training data, with emoji alone."""
    folder = tmp_path_factory.mktemp("data")
    rows, images = [], {}
    for index in range(40):
        name = f"img/{0x1F400 + index:x}.webp"
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (6 * index, 100, 200)).save(buffer, "webp", lossless=True)
        images[name] = buffer.getvalue()
        for lang in ("en", "de", "fr"):
            word = f"{lang}{index}"
            values = {"lang": lang, "q_image": name, "d_text": word}
            rows.append(dict.fromkeys(FIELDS) | values | {"src": "emoji-name", "task": "i2t"})
            values["d_text"] = f"animal, {word}"
            rows.append(dict.fromkeys(FIELDS) | values | {"src": "emoji-keywords", "task": "i2t"})
            values = {"lang": lang, "q_text": word, "d_text": f"en{index}"}
            rows.append(dict.fromkeys(FIELDS) | values | {"src": "emoji-xling", "task": "t2t"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    pq.write_table(pa.table({"id": list(images), "webp": list(images.values())}), folder / "images.parquet")
    return folder


def test_a_held_out_name_is_nowhere_in_its_language(data: Path) -> None:
    corpus = Corpus(data)
    held = {(row.lang, row.d_text) for row in corpus.valid["emoji-name"]}
    assert held and held == corpus.names
    assert all(name_held_out(row.q_image, row.lang) for row in corpus.valid["emoji-name"])
    # the picture stays in training under its other names, and its other keywords too
    seen = {row.q_image for row in corpus.train["emoji-name"]}
    assert {row.q_image for row in corpus.valid["emoji-name"]} <= seen
    for row in corpus.train["emoji-keywords"]:
        assert "animal" in row.d_text
        assert held.isdisjoint((row.lang, word) for word in row.d_text.split(", "))
    for row in corpus.train["emoji-xling"]:
        assert (row.lang, row.q_text) not in held and ("en", row.d_text) not in held


def test_the_command_measures_and_compares(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "now.json"
    arguments = ["evaluate-builtin", "--data", str(data), "--only", "emoji,charts", "--quick", "--json", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = Report.read(out)
    assert [row.name for row in written.rows] == ["emoji", "chart"]
    emoji, chart = written.rows
    assert emoji.candidates == 40 and emoji.measure == "R@10" and chart.n == chart.candidates == 20
    assert all(0 <= row.low <= row.value <= row.high <= 1 for row in written.rows)
    assert "chart by kind and title" in done.output and "A quick run" in done.output
    done = CliRunner().invoke(app, ["evaluate-builtin", "--compare", str(out)])
    assert done.exit_code == 0 and "| now |" in done.output


def test_wrong_options_are_named(data: Path) -> None:
    for arguments, words in (
        (["--data", str(data), "--only", "dogs"], "no trial 'dogs'"),
        (["--data", str(data / "nowhere")], "holds no pairs.parquet"),
        ([], "--data says"),
    ):
        done = CliRunner().invoke(app, ["evaluate-builtin", *arguments])
        assert done.exit_code != 0 and words in done.output


# -- the real data ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(shared: Path) -> Corpus:
    return Corpus(shared / "training")


def test_what_is_held_out_is_what_the_repository_lists(corpus: Corpus) -> None:
    for name, text in heldout.lists(corpus).items():
        assert (heldout.FOLDER / name).read_text(encoding="utf-8") == text, name
    assert {path.name for path in heldout.FOLDER.glob("*.txt")} == set(heldout.lists(corpus))


def test_nothing_held_out_is_in_the_rows_of_training(corpus: Corpus) -> None:
    for src in ("tatoeba", "wordnet", "code"):
        assert all(plain(row.d_text) not in corpus.hidden for row in corpus.train[src])
    for row in corpus.train["wordnet-ex"]:
        assert plain(row.q_text) not in corpus.hidden and plain(row.d_text.split(": ", 1)[-1]) not in corpus.hidden
    asked = {(row.lang, row.q_text) for row in corpus.valid["tatoeba"]}
    assert asked.isdisjoint((row.lang, row.q_text) for row in corpus.train["tatoeba"])
    assert {row.d_text for row in corpus.valid["wordnet"]}.isdisjoint(row.d_text for row in corpus.train["wordnet"])
    assert corpus.names.isdisjoint((row.lang, row.d_text.casefold()) for row in corpus.train["emoji-name"])
    for src in ("clothing", "grocery", "lucide", "vega"):
        assert {r.q_image for r in corpus.valid[src]}.isdisjoint(r.q_image for r in corpus.train[src])


class Letters:
    """A tokenizer of one token a letter: what is drawn does not depend on it."""

    added_tokens: ClassVar = {"<|vision_pad|>": 0}

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def strings(value: object) -> Iterator[str]:
    """Every text inside a batch, however it is built."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from strings(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from strings(getattr(value, field.name))


def test_nothing_held_out_is_drawn_for_training(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: set[str] = set()
    real = Corpus.picture

    def picture(self: Corpus, name: str) -> Image.Image:
        shown.add(name)
        return real(self, name)

    written: set[str] = set()
    draw_page = drawing.draw_page

    def page(rng: random.Random, texts: Sequence[str], *sizes: int, **options: Any) -> drawing.Page:
        written.update(texts)
        return draw_page(rng, texts, *sizes, **options)

    draw_sheet = drawing.draw_sheet

    def sheet(
        rng: random.Random, heading: str, rows: Sequence[Sequence[str]], *sizes: int, **options: Any
    ) -> drawing.Page:
        written.update((heading, *itertools.chain(*rows)))
        return draw_sheet(rng, heading, rows, *sizes, **options)

    monkeypatch.setattr(Corpus, "picture", picture)
    monkeypatch.setattr(drawing, "draw_page", page)
    monkeypatch.setattr(drawing, "draw_sheet", sheet)
    maker = Maker(corpus)
    rng = random.Random(0)
    # a name or label of one or two words may happen to be a held-out definition of something else
    hidden = {text for text in corpus.hidden if len(text.split()) >= 4}
    drawn: set[str] = set()
    tasks = {name: make for name, make in inspect.getmembers(maker, inspect.ismethod) if not name.startswith("_")}
    assert len(tasks) >= 10
    for name, make in tasks.items():
        for options in [{"src": src} for src in heldout.TEXTS] if name == "text" else [{}]:
            for _ in range(4):
                drawn |= set(strings(make(rng, 40, **options)))
    looker = Looker(corpus, Letters(), seed=0, steps=3, factor=600)  # type: ignore[arg-type]
    for step in range(3):
        looker(step)
    assert len(written) > 100
    drawn |= written
    assert len(drawn) > 500
    assert {text for text in drawn if plain(text) in hidden} == set()
    held = {row.q_image for src in ("clothing", "grocery", "lucide", "vega") for row in corpus.valid[src]}
    tones = {base(row.q_image) for row in corpus.valid["emoji-tone"]}
    assert shown and not shown & held
    assert all(plain(text) not in hidden for text in maker.sentences)
    assert tones.isdisjoint(base(row.q_image) for row in corpus.train["emoji-tone"])


def test_the_trials_are_as_large_as_promised(corpus: Corpus) -> None:
    (bitext,) = trials.bitext(corpus, 1.0)
    assert bitext.pools is not None and {len(set(pool)) for pool in bitext.pools} == {1000}
    assert all(answers <= set(pool) for answers, pool in zip(bitext.answers, bitext.pools, strict=True))
    assert len(set(bitext.groups or ())) == 20 and len(bitext.queries) > 950
    (words,) = trials.definitions(corpus, 1.0)
    assert len(words.queries) == len({item.text for item in words.documents}) == 1000
    assert 0 < trials.defined_elsewhere(corpus) < 1
    clothing, grocery = (len(one.documents) for one in trials.photographs(corpus, 0.02))
    assert (clothing, grocery) == (10, 43)
