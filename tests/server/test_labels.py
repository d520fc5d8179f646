"""Thumbs stay: beside the query they were given for, over a restart, and as lines that an evaluation can read."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.server.stock import error, index, opened, search


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    for name, text in {"bike": "a red bicycle", "cat": "a black cat", "boat": "a white boat"}.items():
        (tmp_path / "files" / f"{name}.txt").write_text(text)
    index(tmp_path / "library.sightline", tmp_path / "files")
    return tmp_path


def put(client: TestClient, query: dict[str, Any], item: str, value: object) -> Any:
    return client.put("/v1/libraries/default/labels", json={"query": query, "item": item, "value": value})


def lines(client: TestClient) -> list[dict[str, Any]]:
    answer = client.get("/v1/libraries/default/labels")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_life_of_a_label(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query: dict[str, Any] = {"text": "red bicycle", "k": 5}
    with opened(folder, monkeypatch) as (client, _):
        first, second, third = (hit["id"] for hit in search(client, **query))
        assert put(client, query, first, 1).json() == {"item": first, "value": 1}
        assert put(client, query, second, -1).status_code == 200
        assert put(client, query, third, 1).status_code == 200
        assert put(client, query, third, 0).status_code == 200
        assert put(client, query, second, 1).status_code == 200
        assert put(client, query, second, -1).status_code == 200
        assert [hit["label"] for hit in search(client, **query)] == [1, -1, 0]
    with opened(folder, monkeypatch) as (client, _):
        assert [hit["label"] for hit in search(client, **query)] == [1, -1, 0], "it is another server now"
        found = {line["item"]: line for line in lines(client)}
        assert set(found) == {first, second}
        line = found[first]
        assert set(line) == {"query", "item", "path", "kind", "page", "start_s", "end_s", "value", "time"}
        assert (line["query"], line["value"], Path(line["path"]).name) == ({"text": "red bicycle"}, 1, "bike.txt")
        assert put(client, query, first, 0).status_code == 200 and put(client, query, second, 0).status_code == 200
        assert lines(client) == []


def test_a_label_is_of_what_is_sought(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder, monkeypatch) as (client, _):
        hit = search(client, "boat")[0]["id"]
        assert put(client, {"text": "boat"}, hit, 1).status_code == 200

        def label(**request: Any) -> int:
            return next(int(one["label"]) for one in search(client, **request) if one["id"] == hit)

        # how much is shown, from where and after which stage is not what is sought
        assert label(text="boat", k=3, where="kind=text", rerank=2) == 1
        assert label(text="boat cat") == 0
        assert label(text="boat", unlike=["cat"]) == 0
        assert label(text="boat", instruction="Find ships") == 0


def test_what_is_no_label(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder, monkeypatch) as (client, _):
        hit = search(client, "boat")[0]["id"]
        for value in (2, -2, 0.5, "1", None):
            assert error(put(client, {"text": "boat"}, hit, value))[0] == 400, value
        assert error(put(client, {"text": "boat"}, "0" * 32, 1)) == (404, "no_item", "item")
        assert error(put(client, {"text": "boat"}, "../x", 1))[0] == 400
        assert error(put(client, {"text": "boat", "nope": 1}, hit, 1))[0] == 400
        assert error(client.get("/v1/libraries/none/labels"))[0] == 404
        assert lines(client) == []


def test_an_index_of_the_older_format_takes_labels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    db = sqlite3.connect(folder / "library.sightline" / "ledger.sqlite")
    db.executescript(
        "DROP TABLE labels; DROP TABLE label_queries; DELETE FROM migrations WHERE number = 2; PRAGMA user_version = 1"
    )
    db.close()
    with opened(folder, monkeypatch) as (client, _):
        hit = search(client, "boat")[0]["id"]
        assert put(client, {"text": "boat"}, hit, 1).status_code == 200
        assert [line["item"] for line in lines(client)] == [hit]
