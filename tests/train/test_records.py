"""Reading a user's training data: what a row becomes, and what a bad row says."""

import json
import pickle

import pyarrow as pa
import pytest
from pyarrow import parquet

from sightline.errors import InputError
from sightline.train.records import Records, content_key, open_records
from sightline.types import Item

FULL = {
    "instruction": "Find the product.",
    "query": {"text": "same, in green", "image": "pictures/shoe.jpg"},
    "positives": ["a green shoe", {"image": ["a.png", "/abs/b.png"]}],
    "negatives": [{"video": ["f0.png", "f1.png"], "fps": 2}, {"video": "clips/c.mp4", "max_frames": 8}],
    "score": 3,
    "teacher": [4.5, -1, 0],
    "key": 17,
}


def written(path, rows, end="\n"):
    path.write_bytes(
        b"".join((row if isinstance(row, str) else json.dumps(row)).encode() + end.encode() for row in rows)
    )
    return path


def pairs(num):
    return [{"query": f"query {index}", "positives": [f"answer {index}"]} for index in range(num)]


def test_a_full_row(tmp_path):
    record = open_records(written(tmp_path / "a.jsonl", [FULL]))[0]
    assert record.instruction == "Find the product."
    assert (record.query.text, record.query.image) == ("same, in green", str(tmp_path / "pictures/shoe.jpg"))
    assert record.positives[0].text == "a green shoe"
    assert record.positives[1].image == [str(tmp_path / "a.png"), "/abs/b.png"]
    assert record.negatives[0].video == [str(tmp_path / "f0.png"), str(tmp_path / "f1.png")]
    assert record.negatives[0].fps == 2
    assert (record.negatives[1].video, record.negatives[1].max_frames) == (str(tmp_path / "clips/c.mp4"), 8)
    assert (record.score, record.teacher, record.key) == (3.0, (4.5, -1.0, 0.0), "17")
    assert record.where == f"{tmp_path / 'a.jsonl'}, line 1"


def test_addresses_stay_as_they_are(tmp_path):
    images = ["https://example.org/a.png", "data:image/png;base64,AA==", "file:///a.png"]
    record = open_records(written(tmp_path / "a.jsonl", [{"query": "q", "positives": [{"image": images}]}]))[0]
    assert record.positives[0].image == images


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_in_any_order_with_empty_lines_between(tmp_path, end):
    rows = pairs(5)
    path = written(tmp_path / "a.jsonl", ["\ufeff" + json.dumps(rows[0]), "", *rows[1:3], "", "", *rows[3:]], end)
    records = open_records(path)
    assert len(records) == 5
    assert [records[index].query.text for index in (4, 0, 2)] == ["query 4", "query 0", "query 2"]
    assert records[3].where.endswith("line 7")
    assert [record.query.text for record in records[1:3]] == ["query 1", "query 2"]
    with pytest.raises(IndexError):
        records[5]


def test_a_file_without_a_last_newline_and_letters_beyond_ascii(tmp_path):
    path = tmp_path / "a.jsonl"
    text = '{"query": "Grüße 狗\\n🚲", "positives": ["x"]}\n{"query": "b", "positives": ["y"]}'
    path.write_text(text, encoding="utf-8")
    records = open_records(path)
    assert [record.query.text for record in records] == ["Grüße 狗\n🚲", "b"]


def test_only_the_row_asked_for_is_decoded(tmp_path):
    records = open_records(written(tmp_path / "a.jsonl", [*pairs(2), "{broken", *pairs(1)]))
    assert len(records) == 4
    assert records[3].query.text == "query 0"
    with pytest.raises(InputError, match=r"a\.jsonl, line 3: not a line of JSON"):
        records[2]


def test_several_files_are_one(tmp_path):
    records = open_records(written(tmp_path / "a.jsonl", pairs(3)), written(tmp_path / "b.jsonl", pairs(2)))
    assert len(records) == 5
    assert records[2].where.endswith("a.jsonl, line 3")
    assert records[3].where.endswith("b.jsonl, line 1")
    assert len(list(pickle.loads(pickle.dumps(records)))) == 5


def equal(first: Records, second: Records) -> bool:
    def said(record):
        items = (record.query, *record.positives, *record.negatives)
        return ([content_key(i) for i in items], record.instruction, record.score, record.teacher, record.key)

    return [said(record) for record in first] == [said(record) for record in second]


def test_parquet_gives_what_jsonl_gives(tmp_path):
    rows = [
        {
            "query": f"q{index}",
            "positives": [{"text": f"p{index}", "image": None}],
            "negatives": [{"text": None, "image": f"{name}.png"} for name in "ab"[: index % 3]],
            "score": index / 2,
            "teacher": [0.5] * (1 + index % 3),
            "key": None if index % 2 else f"k{index}",
        }
        for index in range(10)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=4)
    records = open_records(tmp_path / "a.parquet")
    assert len(records) == 10
    assert records[7].where.endswith("a.parquet, row 8")
    assert records[8].negatives[1].image == str(tmp_path / "b.png")
    assert equal(records, open_records(written(tmp_path / "a.jsonl", rows)))
    assert equal(pickle.loads(pickle.dumps(records)), records)


def test_few_groups_of_rows_are_kept(tmp_path, monkeypatch, caplog):
    from sightline.train import records as module

    parquet.write_table(pa.Table.from_pylist(pairs(40)), tmp_path / "a.parquet", row_group_size=4)
    monkeypatch.setattr(module, "GROUP_BYTES", 600)
    records = open_records(tmp_path / "a.parquet")
    assert "up to 4 rows at a time" in caplog.text
    assert [record.query.text for record in records] == [f"query {index}" for index in range(40)]
    held = records._groups  # type: ignore[attr-defined]
    assert 1 <= len(held) < 10


def test_a_file_changed_meanwhile_is_not_read_at_wrong_places(tmp_path):
    for path in (tmp_path / "a.jsonl", tmp_path / "a.parquet"):

        def write(num, path=path):
            if path.suffix == ".jsonl":
                written(path, pairs(num))
            else:
                parquet.write_table(pa.Table.from_pylist(pairs(num)), path)

        write(3)
        records = open_records(path)
        write(40)
        with pytest.raises(InputError, match="was changed"):
            records[2]


GOOD = {"query": "q", "positives": ["p"]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("[1]", "a row is a JSON object, not list"),
        ({"query": "q"}, "the field 'positives' is missing"),
        ({"positives": ["p"]}, "the field 'query' is missing"),
        ({**GOOD, "negative": ["n"]}, "unknown field 'negative'; known are instruction, query, positives, negatives, "),
        ({**GOOD, "positives": "p"}, "positives must be a list, not str"),
        ({**GOOD, "positives": []}, "positives is empty"),
        ({**GOOD, "negatives": ["n", 5]}, "negatives[1] must be a text or an object with text, image, video"),
        ({**GOOD, "negatives": ["n", {"imge": "a.png"}]}, "negatives[1]: unknown key 'imge' of an item; known are"),
        ({**GOOD, "negatives": ["n", "p"]}, "negatives[1] is one of the positives"),
        ({**GOOD, "query": {"image": 5}}, "query.image must be a path or a list of paths, not 5"),
        ({**GOOD, "query": {"image": ""}}, "query.image must be a path"),
        ({**GOOD, "query": {"video": [["a.png"], [["b.png"]]]}}, "query.video must be a path"),
        ({**GOOD, "query": " "}, "query is empty"),
        ({**GOOD, "query": {"text": 5}}, "query: text must be a str"),
        ({**GOOD, "query": {"text": "q", "fps": -1}}, "query: fps must be"),
        ({**GOOD, "score": "high"}, "score must be a number, not 'high'"),
        ('{"query": "q", "positives": ["p"], "score": NaN}', "score must be a number, not nan"),
        ({**GOOD, "score": True}, "score must be a number, not True"),
        ({**GOOD, "negatives": ["n"], "teacher": [1.0]}, "teacher has 1 numbers; it needs 2"),
        ({**GOOD, "teacher": ["x"]}, "teacher must be a number, not 'x'"),
        ({**GOOD, "instruction": 3}, "instruction must be a text, not 3"),
        ({**GOOD, "key": 1.5}, "key must be a text or a whole number, not 1.5"),
    ],
)
def test_a_bad_row_names_file_line_and_field(tmp_path, row, said):
    path = written(tmp_path / "a.jsonl", [GOOD, row])
    records = open_records(path)
    assert records[0].query.text == "q"
    with pytest.raises(InputError) as caught:
        records[1]
    assert str(caught.value).startswith(f"{path}, line 2: {said}")


def test_a_bad_file_is_refused_at_once(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "text.parquet").write_text("no")
    parquet.write_table(pa.Table.from_pylist([{"query": "q", "positive": ["p"]}]), tmp_path / "name.parquet")
    for name, said in {
        "none.jsonl": "none.jsonl cannot be read",
        "a.csv": "JSONL .* or Parquet",
        "empty.jsonl": "has no rows",
        "text.parquet": "is not a Parquet file",
        "name.parquet": "unknown field 'positive'; known are instruction, query, positives",
    }.items():
        with pytest.raises(InputError, match=said):
            open_records(tmp_path / name)
    with pytest.raises(InputError, match="at least one file"):
        open_records()


def test_content_keys():
    assert content_key(Item(text="a")) == content_key(Item(text="a"))
    different = [Item(text="a"), Item(image="a"), Item(video="a"), Item(text="a", image="a"), Item(image=b"a")]
    assert len({content_key(item) for item in different}) == len(different)
