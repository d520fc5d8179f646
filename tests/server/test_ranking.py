"""Reranks and scores over HTTP."""

import base64
import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing

DOCUMENTS = ["tax law", "a red bicycle", "a red car"]


def around(reranker, **settings) -> TestClient:
    app = create_app(Services.of(Settings(**settings), Seeing(), reranker))
    return TestClient(app, base_url="http://127.0.0.1")


def png(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def refused(answer, status: int, param: str | None, code: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return str(error["message"])


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_documents_come_back_best_first(client, path):
    body = {"query": "a red bicycle", "documents": DOCUMENTS, "model": "toy-reranker"}
    answer = client.post(path, json=body).json()
    scores = Judge().score("a red bicycle", DOCUMENTS)
    assert [one["index"] for one in answer["results"]] == [1, 2, 0]
    assert np.allclose([one["relevance_score"] for one in answer["results"]], scores[[1, 2, 0]])
    assert all("document" not in one for one in answer["results"])
    assert answer["usage"]["total_tokens"] == 3 + 2 + 3 + 3
    two = client.post(path, json={**body, "top_n": 2, "return_documents": True}).json()["results"]
    assert [one["document"] for one in two] == [{"text": "a red bicycle"}, {"text": "a red car"}]


def test_equal_documents_keep_their_order(client):
    results = client.post("/v1/rerank", json={"query": "red", "documents": ["same"] * 20}).json()["results"]
    assert [one["index"] for one in results] == list(range(20))


def test_pictures_are_ranked_for_words_and_words_for_pictures(client):
    red, blue = png("red"), f"data:image/png;base64,{png('blue')}"
    found = client.post(
        "/v1/rerank", json={"query": {"image": red}, "documents": [{"image": blue}, {"image": red}, "a"]}
    )
    assert found.json()["results"][0]["index"] == 1
    content = [{"type": "image_url", "image_url": {"url": blue}}, {"type": "text", "text": "sky"}]
    found = client.post(
        "/v1/rerank", json={"query": {"content": content}, "documents": ["grass", {"content": content}]}
    )
    assert found.json()["results"][0]["index"] == 1


def test_scores_of_one_against_many_and_of_pairs(client):
    scores = Judge().score("red", DOCUMENTS)
    body = client.post("/v1/score", json={"text_1": "red", "text_2": DOCUMENTS}).json()
    assert [(one["index"], one["object"]) for one in body["data"]] == [(0, "score"), (1, "score"), (2, "score")]
    assert np.allclose([one["score"] for one in body["data"]], scores)
    assert np.allclose(
        client.post("/v1/score", json={"text_1": "red", "text_2": "tax law"}).json()["data"][0]["score"], scores[0]
    )
    pairs = client.post("/v1/score", json={"queries": ["red", "law"], "documents": ["a red car", "tax law"]}).json()
    wanted = [float(Judge().score(*pair)[0]) for pair in (("red", ["a red car"]), ("law", ["tax law"]))]
    assert np.allclose([one["score"] for one in pairs["data"]], wanted)


def test_parts_of_a_content_are_documents_of_their_own_as_in_vllm(client):
    parts = [{"type": "text", "text": "tax law"}, {"type": "image_url", "image_url": {"url": png("red")}}]
    body = client.post("/v1/score", json={"queries": "law", "documents": {"content": parts}}).json()
    wanted = Judge().score("law", ["tax law", {"image": np.full((48, 48, 3), (255, 0, 0), np.uint8)}])
    assert np.allclose([one["score"] for one in body["data"]], wanted, atol=1e-6)


def test_bad_queries_and_documents_are_named(client):
    def rerank(query, documents, **more):
        return client.post("/v1/rerank", json={"query": query, "documents": documents, **more})

    refused(rerank("red", ["a", {"image": "bm8="}]), 400, "documents.1", "not_media")
    refused(rerank({"image": "bm8="}, ["a"]), 400, "query", "not_media")
    refused(rerank("red", ["a", "poison"]), 400, "documents.1", "corrupt")
    refused(rerank("red", []), 400, "documents", "too_short")
    refused(rerank("", ["a"]), 400, "query", "empty_item")
    refused(rerank("red", ["a", ""]), 400, "documents.1", "empty_item")
    refused(rerank("red", ["a"], model="rerank-v3.5"), 404, "model", "model_not_found")
    for bad in (0, -1, 2**63, "3", True):
        answer = rerank("red", ["a"], top_n=bad)
        assert answer.status_code == (200 if bad == 2**63 else 400), bad
    refused(client.post("/v1/score", json={"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}), 400, None, "pairs")
    refused(client.post("/v1/score", json={"text_1": "a", "documents": ["a"]}), 400, None, "pairs")
    refused(client.post("/v1/score", json={"queries": "a", "documents": ["a", {"image": "bm8="}]}), 400, "documents.1")
    refused(client.post("/v1/score", json={"queries": ["a", "b"], "documents": ["c", "poison"]}), 400, "documents.1")


def test_too_many_documents_are_refused_before_any_is_scored():
    class Never(Judge):
        def score(self, query, documents, **options):
            raise AssertionError("nothing may be scored")

    with around(Never(), serve_max_items=3) as client:
        answer = client.post("/v1/rerank", json={"query": "a", "documents": ["a"] * 4})
        refused(answer, 413, "documents", "too_many_items")
        refused(client.post("/v1/score", json={"text_1": "a", "text_2": ["a"] * 4}), 413, "text_2", "too_many_items")


def test_without_a_reranker_the_answer_says_how_to_get_one():
    with around(None) as client:
        for path, body in (
            ("/v1/rerank", {"query": "a", "documents": ["a"]}),
            ("/v2/rerank", {"query": "a", "documents": ["a"]}),
            ("/v1/score", {"text_1": "a", "text_2": "a"}),
        ):
            assert "--reranker" in refused(client.post(path, json=body), 404, None, "no_reranker")
        assert [one["task"] for one in client.get("/v1/models").json()["data"]] == ["embed"]


def test_the_instruction_reaches_the_models():
    told = []

    class Listening(Judge):
        def score(self, query, documents, *, instruction=None):
            told.append((instruction, query.instruction))
            return super().score(query, documents)

    with around(Listening()) as client:
        client.post("/v1/rerank", json={"query": "a", "documents": ["a"], "instruction": "find laws"})
        client.post("/v1/score", json={"text_1": {"text": "a", "instruction": "find cars"}, "text_2": "a"})
    assert told == [("find laws", None), (None, "find cars")]
