"""Which negatives are taken, which positives are kept, and that the counts say what happened."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from sightline.errors import ConfigError, InputError, ItemError
from sightline.protocols import EmbeddingModel, ItemLike
from sightline.testing import ToyEmbedder
from sightline.train import mine as mining
from sightline.train.mine import Mined, Rules, mine, read_corpus
from sightline.train.records import open_records
from sightline.types import Item
from tests.parity.checkpoints import random_checkpoint


class Plane(ToyEmbedder):
    """A text ``name@ANGLE`` is a vector at that angle, in degrees: cosines can be read off the names."""

    def __init__(self) -> None:
        super().__init__(dim=8)
        self.instructions: list[str | None] = []

    def stream(self, items: Iterable[ItemLike], **_: Any) -> Iterator[NDArray[Any] | ItemError]:
        for position, value in enumerate(items):
            item = Item.of(value)
            self.instructions.append(item.instruction)
            text = item.texts[0]
            if text == "unreadable":
                yield ItemError(position, "corrupt")
                continue
            angle = np.deg2rad(float(text.rpartition("@")[2]))
            vector = np.zeros(8, np.float32)
            vector[:2] = np.cos(angle), np.sin(angle)
            yield vector


class Angles:
    """A judge whose log-odds are the length of the document's name."""

    def __init__(self) -> None:
        self.told: list[str | None] = []

    def log_odds(
        self, query: ItemLike, documents: Sequence[ItemLike], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        self.told.append(instruction)
        return np.asarray([len(Item.of(one).texts[0]) / 3 for one in documents], np.float32)


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mined(folder: Path, *rows: dict[str, Any], rules: Rules, **more: Any) -> tuple[list[dict[str, Any]], Mined]:
    data, out = write(folder / "data.jsonl", *rows), folder / "out.jsonl"
    done = mine(open_records(data), out, Plane(), rules, **more)
    assert done.rows == done.kept + done.dropped_query + done.dropped_unreadable + done.dropped_weak + done.dropped_few
    return read(out), done


FAR = [{"query": f"q{angle}@{angle}", "positives": [f"d{angle}@{angle}"]} for angle in (100, 140, 180)]


def test_the_best_ranked_that_are_no_answers(tmp_path: Path) -> None:
    # cosines with q@0: yes 20 deg .94, near 30 deg .87, mid 50 deg .64, low 70 deg .34
    corpus = [Item(text=text) for text in ("low@70", "near@30", "mid@50", "nearest@10")]
    rows, done = mined(tmp_path, {"query": "q@0", "positives": ["yes@20"]}, rules=Rules(negatives=2), corpus=corpus)
    assert rows == [{"query": "q@0", "positives": ["yes@20"], "negatives": ["near@30", "mid@50"]}]
    assert done == Mined(
        rows=1, kept=1, dropped_query=0, dropped_unreadable=0, dropped_weak=0, dropped_few=0, positives=1, positives_weak=0,
        positives_unreadable=0, positives_repeated=0, negatives=2, negatives_wrong=0, near=1, short=0, documents=5,
        documents_unreadable=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        (Rules(negatives=1), ["near@30"]),  # under cos 20 = .940
        (Rules(negatives=1, margin=0.1), ["nearest@10"]),  # under 1.04
        (Rules(negatives=1, margin=-0.1), ["mid@50"]),  # under .84; cos 30 = .866
        (Rules(negatives=1, margin=0.1, skip=2), ["mid@50"]),
        (Rules(negatives=0), []),
    ],
)
def test_margin_and_skipped_ranks(tmp_path: Path, rules: Rules, wanted: list[str]) -> None:
    corpus = [Item(text=text) for text in ("low@70", "near@30", "mid@50", "nearest@10")]
    rows, _ = mined(tmp_path, {"query": "q@0", "positives": ["yes@20"]}, rules=rules, corpus=corpus)
    assert rows[0]["negatives"] == wanted


def test_weak_positives_go_and_the_ceiling_is_the_mean_of_the_others(tmp_path: Path) -> None:
    rows, done = mined(
        tmp_path,
        {"query": "q@0", "positives": ["weak@80", "far@60", "close@0"]},  # .17, .5, 1: the mean of the two is .75
        {"query": "none@0", "positives": ["weak@80", "other@85"]},
        rules=Rules(negatives=2, min_positive=0.3),
        corpus=[Item(text="over@40"), Item(text="under@45")],  # .77 and .71
    )
    assert len(rows) == 1 and rows[0]["positives"] == ["far@60", "close@0"]
    # the dropped positive is a positive still: never a negative of its own query; that of another row may be
    assert rows[0]["negatives"] == ["under@45", "other@85"]
    assert (done.positives, done.positives_weak, done.dropped_weak, done.near) == (2, 3, 1, 1)


def test_answers_of_the_same_query_are_no_negatives(tmp_path: Path) -> None:
    rows, _ = mined(
        tmp_path,
        {"query": "Q@0", "positives": ["first@10"]},
        {"query": " q@0", "positives": ["second@20"]},  # the same words, clicked on another day
        {"query": "a@0", "positives": ["third@30"], "key": "shoe"},
        {"query": "b@0", "positives": ["fourth@40"], "key": "shoe"},
        {"query": "q@0", "positives": ["fifth@50"], "instruction": "Find another."},
        rules=Rules(negatives=9, margin=2),
    )
    assert [row["negatives"] for row in rows] == [
        ["third@30", "fourth@40", "fifth@50"],
        ["third@30", "fourth@40", "fifth@50"],
        ["first@10", "second@20", "fifth@50"],
        ["first@10", "second@20", "fifth@50"],
        ["first@10", "second@20", "third@30", "fourth@40"],
    ]
    assert rows[2]["key"] == "shoe" and rows[4]["instruction"] == "Find another."


def test_equal_content_is_one_document(tmp_path: Path) -> None:
    rows, done = mined(
        tmp_path,
        {"query": "q@0", "positives": ["yes@20", "YES@20"]},
        rules=Rules(negatives=5),
        corpus=[Item(text=text) for text in ("no@60", " No@60 ", "Yes@20", "Q@0", "ｎｏ@60")],
    )
    assert rows[0]["positives"] == ["yes@20"] and rows[0]["negatives"] == ["no@60"]
    assert (done.documents, done.positives_repeated, done.short) == (3, 1, 1)


def test_own_negatives_stay_and_count(tmp_path: Path) -> None:
    rows, done = mined(
        tmp_path,
        {"query": "q@0", "positives": ["yes@10"], "negatives": ["own@5", "other@20", "unreadable"]},
        {"query": "q@0", "positives": ["other@20"]},
        *FAR,
        rules=Rules(negatives=3, min_positive=-1),
    )
    assert rows[0]["negatives"] == ["own@5", "d100@100", "d140@140"]
    assert done.negatives_wrong == 2, "one answers an equal query, one cannot be read"


def test_rows_with_too_few(tmp_path: Path) -> None:
    rows, done = mined(
        tmp_path,
        {"query": "q@0", "positives": ["a@80"]},  # .17; both others score higher or lower: one is left
        {"query": "r@0", "positives": ["b@10"]},
        {"query": "s@0", "positives": ["c@90"]},
        rules=Rules(negatives=2, min_negatives=2, min_positive=-1),
    )
    assert [row["query"] for row in rows] == ["r@0"] and rows[0]["negatives"] == ["a@80", "c@90"]
    assert (done.kept, done.dropped_few, done.short, done.negatives) == (1, 2, 0, 2)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    rows, done = mined(
        tmp_path,
        {"query": "unreadable", "positives": ["a@0"]},
        {"query": "q@0", "positives": ["unreadable"]},
        {"query": "r@0", "positives": ["unreadable", "b@0"]},
        rules=Rules(negatives=3, margin=1),
    )
    assert [row["query"] for row in rows] == ["r@0"] and rows[0]["negatives"] == ["a@0"]
    assert (done.dropped_query, done.dropped_unreadable, done.positives_unreadable) == (1, 1, 2)
    assert done.documents_unreadable == 1


def test_a_reranker_teaches(tmp_path: Path) -> None:
    judge = Angles()
    rows, _ = mined(
        tmp_path,
        {"query": "q@0", "positives": ["yes@20", "also@25"], "instruction": "Find it."},
        *FAR,
        rules=Rules(negatives=2, min_positive=-1, instruction="Else."),
        judge=judge,
    )
    assert rows[0]["negatives"] == ["d100@100", "d140@140"]
    assert rows[0]["teacher"] == pytest.approx([6 / 3, 8 / 3, 8 / 3], abs=1e-4), "first positive, then negatives"
    assert judge.told == ["Find it.", "Else.", "Else.", "Else."]
    reopened = open_records(tmp_path / "out.jsonl")
    assert [len(record.teacher or ()) for record in reopened] == [1 + len(record.negatives) for record in reopened]


def test_instructions_are_those_of_queries_only(tmp_path: Path) -> None:
    plane = Plane()
    data = write(
        tmp_path / "data.jsonl",
        {"query": "q@0", "positives": ["a@0"], "instruction": "Of the row."},
        {"query": {"text": "r@0", "instruction": "Of the query."}, "positives": ["b@0"], "instruction": "Of the row."},
        {"query": "s@0", "positives": ["c@0"]},
    )
    mine(open_records(data), tmp_path / "out.jsonl", plane, Rules(instruction="Of all."))
    assert plane.instructions == [None, None, None, "Of the row.", "Of the query.", "Of all."]


@pytest.mark.parametrize("in_memory", [0, 10**6])
def test_both_indexes_give_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "old", "new", "shoe", "hat", "car", "tree", "house", "cat", "dog"]
    bags = {tuple(sorted(rng.choice(words, 4))) for _ in range(40)}  # no two of one bag: those would tie
    texts = [" ".join(bag) for bag in sorted(bags)]
    data = write(tmp_path / "data.jsonl", *({"query": text[:8], "positives": [text]} for text in texts))
    embedder: EmbeddingModel = ToyEmbedder()
    rules = Rules(negatives=5, min_positive=0.1)
    mine(open_records(data), tmp_path / "memory.jsonl", embedder, rules)
    monkeypatch.setattr(mining, "IN_MEMORY", in_memory)
    mine(open_records(data), tmp_path / "again.jsonl", embedder, rules)
    assert (tmp_path / "memory.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()
    assert sum(len(row["negatives"]) for row in read(tmp_path / "again.jsonl")) > 100


def test_options_out_of_range(tmp_path: Path) -> None:
    data = open_records(write(tmp_path / "data.jsonl", {"query": "q@0", "positives": ["a@0"]}))
    for wrong in ({"negatives": -1}, {"skip": -1}, {"min_positive": 1.0}, {"margin": 3.0}):
        with pytest.raises(ConfigError):
            Rules(**wrong)
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        mine(data, tmp_path / "out.parquet", Plane())
    with pytest.raises(ConfigError, match="no folder"):
        mine(data, tmp_path / "nowhere" / "out.jsonl", Plane())
    with pytest.raises(InputError, match="line 2"):
        write(tmp_path / "corpus.jsonl", "fine", {"picture": "a.png"})
        list(read_corpus(tmp_path / "corpus.jsonl"))


def test_the_command_on_pictures_with_a_real_model(tmp_path: Path) -> None:
    """Pictures by path, equal bytes under two names, a torn file, paths that still lead somewhere, twice the same."""
    from sightline.cli.app import app

    model = random_checkpoint(tmp_path / "model", seed=1)
    judge = random_checkpoint(tmp_path / "judge", seed=2, template=False)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        pixels = np.kron(rng.integers(0, 255, (4, 4, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
        Image.fromarray(pixels).save(photos / f"{index}.png")
    (photos / "copy.png").write_bytes((photos / "0.png").read_bytes())
    (photos / "torn.png").write_bytes((photos / "5.png").read_bytes()[:60])
    data = write(
        tmp_path / "logs.jsonl",
        *({"query": f"photo number {index}", "positives": [{"image": f"photos/{index}.png"}]} for index in range(4)),
        {"query": "photo number 9", "positives": [{"image": "photos/torn.png"}]},
    )
    write(tmp_path / "corpus.jsonl", {"image": "photos/copy.png"}, {"image": "photos/4.png", "text": "a fifth"})
    deep = tmp_path / "deep"
    deep.mkdir()
    outputs = []
    for name in ("one", "two"):
        command = ["train", "mine", data, "--out", deep / f"{name}.jsonl", "--model", model, "--reranker", judge]
        command += ["--negatives", 3, "--min-positive", -1, "--margin", 1, "--corpus", tmp_path / "corpus.jsonl"]
        result = CliRunner().invoke(app, [*map(str, command), "--dtype", "float32", "--json"])
        assert result.exit_code == 0, result.output
        done = json.loads(result.stdout)
        outputs.append((deep / f"{name}.jsonl").read_bytes())
    assert outputs[0] == outputs[1]
    assert done["rows"] == 5 and done["kept"] == 4 and done["dropped_unreadable"] == 1 and done["documents"] == 5
    records = list(open_records(deep / "one.jsonl"))
    for index, record in enumerate(records):
        own = f"photos/{index}.png"
        assert record.positives[0].image == str(deep / ".." / own)
        names = [os.path.relpath(str(item.image), str(tmp_path)) for item in record.negatives]
        assert (
            len(set(names)) == 3
            and own not in names
            and all(Path(str(item.image)).is_file() for item in record.negatives)
        )
        assert (index != 0) or "photos/copy.png" not in names
        assert record.teacher is not None and len(record.teacher) == 4
    quiet = CliRunner().invoke(app, ["train", "mine", str(data), "--out", str(deep / "x.jsonl"), "--model", str(model)])
    assert quiet.exit_code == 0 and "rows" in quiet.stdout
    assert set(asdict(Mined(**dict.fromkeys(Mined.__slots__, 0)))) <= set(done)
