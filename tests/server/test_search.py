"""POST /v1/search finds what the library holds, in the shape that the page and clients read."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.server.stock import TEXTS, error, fill, index, opened, search

KEYS = {
    *{"id", "rank", "score", "recall_score", "recall_rank", "rerank_score", "kind", "title", "path", "page"},
    *{"start_s", "end_s", "snippet", "matches", "thumbnail", "preview", "media", "label"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    index(folder / "library.sightline", fill(folder / "files"))
    with pytest.MonkeyPatch.context() as patch, opened(folder, patch) as (client, _):
        yield client


def test_words_find_a_text(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"text": "red bicycle", "k": 3})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["library"], set(body["took_ms"])) == ("default", {"total", "embed", "recall", "rerank"})
    took = body["took_ms"]
    assert took["total"] >= took["embed"] + took["recall"] + took["rerank"] > 0
    best = body["hits"][0]
    assert set(best) == KEYS
    assert (best["kind"], Path(best["path"]).name, best["snippet"]) == ("text", "bike.txt", TEXTS["bike.txt"])
    assert [best["snippet"][start:end] for start, end in best["matches"]] == ["red", "bicycle"]
    assert (best["thumbnail"], best["preview"], best["label"]) == (None, None, 0)
    assert [hit["rank"] for hit in body["hits"]] == [1, 2, 3]


def test_both_stages_and_their_orders(client: TestClient) -> None:
    recalled = client.post("/v1/search", json={"text": "red bicycle", "rerank": 0}).json()["hits"]
    assert [hit["recall_rank"] for hit in recalled] == [hit["rank"] for hit in recalled]
    assert all(hit["rerank_score"] is None and hit["score"] == hit["recall_score"] for hit in recalled)
    judged = client.post("/v1/search", json={"text": "red bicycle", "rerank": 5}).json()["hits"]
    places = {hit["id"]: hit["rank"] for hit in recalled}
    assert {hit["id"]: hit["recall_rank"] for hit in judged} == places
    assert [hit["rerank_score"] is not None for hit in judged] == [True] * 5 + [False] * (len(judged) - 5)
    scores = [hit["score"] for hit in judged[:5]]
    assert scores == sorted(scores, reverse=True) == [hit["rerank_score"] for hit in judged[:5]]


def test_every_kind_has_its_place_and_addresses(client: TestClient) -> None:
    hits = {hit["kind"]: hit for hit in search(client, "of the", k=50)}
    assert set(hits) == {"text", "image", "page", "moment"}
    assert hits["page"]["page"] in {1, 2} and hits["page"]["start_s"] is None
    assert hits["moment"]["end_s"] > hits["moment"]["start_s"] >= 0 and hits["moment"]["page"] is None
    for kind in ("image", "page", "moment"):
        for what in ("thumbnail", "preview", "media"):
            assert client.get(hits[kind][what]).status_code == 200, (kind, what)


def test_a_picture(client: TestClient, folder: Path) -> None:
    data = base64.b64encode((folder / "files" / "second.png").read_bytes()).decode()
    for image in (data, f"data:image/png;base64,{data}", [data]):
        hits = search(client, image=image, where="kind=image")
        assert Path(hits[0]["path"]).name == "second.png"
    mixed = search(client, "red bicycle", image=data)
    assert {Path(hit["path"]).name for hit in mixed[:3]} >= {"bike.txt", "second.png"}
    assert all(hit["matches"] == [] for hit in search(client, image=data))


def test_more_like_a_hit(client: TestClient) -> None:
    first = next(hit for hit in search(client, k=20, text="of", where="kind=image") if "first" in hit["path"])
    hits = search(client, like=first["id"], k=50)
    assert first["id"] not in {hit["id"] for hit in hits}
    assert hits[0]["kind"] in {"moment", "image"}, "a picture's like is a picture"
    both = search(client, "black cat", like=first["id"], k=50)
    assert {"cat.txt", "first.png"} <= {Path(hit["path"]).name for hit in both[:4]}, (
        "with words it is part of the query"
    )


def test_not_this(client: TestClient) -> None:
    def scores(**request: Any) -> dict[str, float]:
        hits = search(client, "cat bicycle", where="kind=text", **request)
        return {Path(hit["path"]).name: hit["recall_score"] for hit in hits}

    plain = scores()
    for words, down, up in (("sleeps under the stairs", "cat.txt", "bike.txt"), ("on the wall", "bike.txt", "cat.txt")):
        for unlike in (words, {"text": words}, [{"type": "text", "text": words}]):
            found = scores(unlike=[unlike])
            assert found[down] / found[up] < plain[down] / plain[up], unlike
    bike = next(hit for hit in search(client, "bicycle") if hit["path"].endswith("bike.txt"))
    assert "bike.txt" not in scores(unlike=[{"like": bike["id"]}])


def test_what_may_be_found(client: TestClient, folder: Path) -> None:
    assert {hit["kind"] for hit in search(client, "of", where={"kind": ["page", "moment"]})} == {"page", "moment"}
    assert {hit["kind"] for hit in search(client, "of", where="kind=page")} == {"page"}
    only = search(client, "of", where={"path": str(folder / "files" / "paper.pdf")}, k=50)
    assert [hit["page"] for hit in sorted(only, key=lambda hit: hit["page"])] == [1, 2]
    assert search(client, "of", where="before=2001-01-01") == []
    assert len(search(client, "of", k=2)) == 2
    assert all(hit["score"] >= 0.9 for hit in search(client, "red bicycle", min_score=0.9))


@pytest.mark.parametrize(
    ("request_", "status", "param"),
    [
        ({}, 400, "text"),
        ({"text": ""}, 400, "text"),
        ({"text": "  "}, 400, None),
        ({"text": "a", "k": 0}, 400, "k"),
        ({"text": "a", "k": -1}, 400, "k"),
        ({"text": "a", "k": 2**31}, 400, "k"),
        ({"text": "a", "k": 2**63}, 400, "k"),
        ({"text": "a", "k": "1e9"}, 400, "k"),
        ({"text": "a", "k": True}, 400, "k"),
        ({"text": "a", "rerank": 10**6}, 400, "rerank"),
        ({"text": "a", "min_score": 2}, 400, "min_score"),
        ({"text": "a", "unknown": 1}, 400, "unknown"),
        ({"text": 5}, 400, "text"),
        ({"text": "a" * 200_000}, 400, "text"),
        ({"text": "a", "where": "nope=1"}, 400, None),
        ({"text": "a", "where": {"kind": "nothing"}}, 400, None),
        ({"text": "a", "where": {"kind": {"a": 1}}}, 400, None),
        ({"text": "a", "where": {"after": 10**400}}, 400, None),
        ({"text": "a", "where": {"path": 5}}, 400, None),
        ({"text": "a", "unlike": [""]}, 400, None),
        ({"text": "a", "unlike": ["b"] * 17}, 400, "unlike"),
        ({"text": "a", "unlike": [{"like": "x"}]}, 400, None),
        ({"like": "../../etc/passwd"}, 400, "like"),
        ({"like": "0" * 32}, 404, "like"),
        ({"text": "a", "unlike": [{"like": "0" * 32}]}, 404, "unlike.0.like"),
        ({"image": "not base64!"}, 400, None),
        ({"image": base64.b64encode(b"no picture").decode()}, 400, None),
        ({"image": "http://127.0.0.1/a.png"}, 400, None),
        ({"image": "/etc/passwd"}, 400, None),
        ({"text": "a", "library": "none"}, 404, "library"),
        ({"text": "a", "library": "../default"}, 404, "library"),
    ],
    ids=str,
)
def test_what_cannot_be_asked(client: TestClient, request_: dict[str, Any], status: int, param: str | None) -> None:
    answer = client.post("/v1/search", json=request_)
    found = error(answer)
    assert found[0] == status, answer.text
    if param is not None:
        assert found[2] == param
    assert "/work" not in answer.text and "/tmp" not in answer.text


def test_a_library_of_another_model_is_listed_and_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("words")
    index(tmp_path / "library.sightline", tmp_path / "files", model="other")
    with opened(tmp_path, monkeypatch) as (client, _):
        assert error(client.post("/v1/search", json={"text": "words"}))[:2] == (409, "other_model")
        listed = client.get("/v1/libraries").json()["libraries"]
        assert [(one["id"], one["usable"], one["model"]) for one in listed] == [("default", False, "other")]
        whole = client.get("/v1/libraries/default").json()
        assert (whole["usable"], whole["rows"], whole["files"]) == (False, 1, 1)
        assert error(client.post("/v1/libraries/default/items", json={"paths": [str(tmp_path)]}))[0] == 409


def test_an_empty_library_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, monkeypatch) as (client, _):
        assert search(client, "anything") == []
        assert client.get("/v1/libraries/default").json()["rows"] == 0


def test_names_that_are_no_unicode_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    with (tmp_path / "files").joinpath("caf\udce9.txt").open("w") as file:
        file.write("a strange name")
    index(tmp_path / "library.sightline", tmp_path / "files")
    with opened(tmp_path, monkeypatch) as (client, _):
        hit = search(client, "strange name")[0]
        assert Path(hit["path"]).name == "caf�.txt"
        assert client.get(hit["media"]).content == b"a strange name"
        removed = client.request("DELETE", "/v1/libraries/default/items", json={"ids": [hit["id"]]})
        assert removed.json() == {"removed": 1} and search(client, "strange name") == []
