"""``search``: its table, its JSON, its filters, names from disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Run, json_of


@pytest.fixture
def indexed(run: Run, shelf: Path) -> Path:
    assert run("index", shelf).exit_code == 0
    return shelf


def test_words_find_text(run: Run, indexed: Path) -> None:
    result = run("search", "red", "bicycle", "--where", "kind=text")
    assert result.exit_code == 0 and result.stderr == ""
    first = result.stdout.splitlines()[1]
    assert first.split()[0] == "1" and "bicycle.txt" in first and "A red bicycle" in first


def test_json_has_the_documented_shape(run: Run, indexed: Path) -> None:
    value = json_of(run("search", "bicycle", "--json", "-k", "2"))
    assert list(value) == ["query", "where", "library", "model", "reranker", "seconds", "hits"]
    assert value["query"] == {"text": "bicycle", "images": [], "videos": []}
    assert len(value["hits"]) == 2
    assert list(value["hits"][0]) == [
        *("rank", "score", "recall_score", "rerank_score", "kind", "path", "page", "start_s", "end_s"),
        *("title", "snippet", "id"),
    ]
    assert [hit["rank"] for hit in value["hits"]] == [1, 2]
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    assert list(example) == list(value) and list(example["hits"][0]) == list(value["hits"][0])


def test_an_image_finds_images(run: Run, indexed: Path) -> None:
    hits = json_of(run("search", "--image", indexed / "blau.png", "--where", "kind=image", "--json"))["hits"]
    assert Path(hits[0]["path"]).name == "blau.png"


def test_no_rerank_and_rerank_n(run: Run, indexed: Path) -> None:
    plain = json_of(run("search", "bicycle", "--no-rerank", "--json"))
    assert plain["reranker"] is None and all(hit["rerank_score"] is None for hit in plain["hits"])
    one = json_of(run("search", "bicycle", "--rerank", "1", "--json"))["hits"]
    assert [hit["rerank_score"] is not None for hit in one] == [True, *[False] * (len(one) - 1)]


def test_min_score_leaves_out_and_nothing_is_said(run: Run, indexed: Path) -> None:
    result = run("search", "quarks", "--min-score", "1")
    assert result.exit_code == 0 and result.stdout == "nothing found\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "say what to look for"),
        (("x", "--where", "kind=poem"), 2, "kind"),
        (("x", "-k", "0"), 2, "k must be"),
        (("x", "--rerank", "-1"), 2, "rerank must be at least 0"),
        (("x", "--min-score", "7"), 2, "min_score"),
    ],
)
def test_errors_are_one_line_and_a_code(
    run: Run, indexed: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = run("search", *arguments)
    assert result.exit_code == code
    assert result.stdout == "" and result.stderr.startswith("error: ") and said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    as_json = run("search", *arguments, "--json")
    assert as_json.exit_code == code and as_json.stderr == ""
    assert set(json_of(as_json)["error"]) == {"type", "message"}


def test_a_fault_of_ours_is_one_line_too(run: Run, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.library import Library

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken\nin two lines")

    monkeypatch.setattr(Library, "search", fail)
    result = run("search", "x")
    assert result.exit_code == 70
    assert "RuntimeError: broken\\nin two lines" in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"[bold]loud[red].txt", "[bold]loud[red].txt"),
        (b"esc\x1b[2Jape.txt", r"esc\x1b[2Jape.txt"),
        (b"two\nlines.txt", r"two\nlines.txt"),
        ("rtl\u202egpj.txt".encode(), r"rtl\u202egpj.txt"),
        (b"odd\xff.txt", r"odd\xff.txt"),
        (b":smile: <img onerror=x>.txt", ":smile: <img onerror=x>.txt"),
    ],
)
def test_names_from_disk_stay_text(run: Run, tmp_path: Path, name: bytes, shown: str) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / os.fsdecode(name)).write_text("A green umbrella.")
    (folder / os.fsdecode(b"empty" + name)).touch()
    said = run("index", folder)
    assert shown in said.stdout and "\x1b" not in said.stdout and "\u202e" not in said.stdout
    table = run("search", "umbrella")
    assert shown in table.stdout.replace("\n", "") and "\x1b" not in table.stdout
    hit = json_of(run("search", "umbrella", "--json"))["hits"][0]
    assert os.fsencode(hit["path"]) == os.fsencode(folder) + b"/" + name
