"""Vectors over HTTP: what comes in each form, what is refused and how."""

import base64
import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from sightline.vectors import convert
from tests.cli.toys import Judge, Seeing


def around(embedder, **settings) -> TestClient:
    app = create_app(Services.of(Settings(**settings), embedder, Judge()))
    return TestClient(app, base_url="http://127.0.0.1")


def png(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def vectors(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()["data"]])


def ask(client, **body):
    return client.post("/v1/embeddings", json=body)


def refused(answer, status: int, param: str | None, code: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return str(error["message"])


def test_texts_become_the_vectors_of_the_model_in_order(client):
    answer = ask(client, input=["a red bicycle", "tax law"], model="toy")
    assert np.allclose(vectors(answer), Seeing().embed(["a red bicycle", "tax law"]))
    body = answer.json()
    assert body["object"] == "list"
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert body["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert np.array_equal(vectors(ask(client, input="tax law"))[0], vectors(answer)[1])


@pytest.mark.parametrize(
    "written",
    [
        {"input": [{"text": "a dog", "image": "PNG"}]},
        {"input": {"text": ["a dog"], "image": ["PNG"]}},
        {
            "input": [
                {"content": [{"type": "text", "text": "a dog"}, {"type": "image_url", "image_url": {"url": "PNG"}}]}
            ]
        },
        {"input": [[{"type": "image_url", "image_url": "PNG"}, {"type": "text", "text": "a dog"}]]},
        {
            "messages": [
                {"role": "system", "content": "Represent the user's input."},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "PNG"}},
                        {"type": "text", "text": "a dog"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": ""}]},
            ]
        },
    ],
)
def test_a_picture_with_words_may_be_written_in_five_ways(client, written):
    def put_in(value):
        if isinstance(value, dict):
            return {key: put_in(one) for key, one in value.items()}
        if isinstance(value, list):
            return [put_in(one) for one in value]
        return png("red") if value == "PNG" else value

    wanted = Seeing().embed([{"text": "a dog", "image": np.full((48, 48, 3), (255, 0, 0), np.uint8)}])
    assert np.allclose(vectors(client.post("/v1/embeddings", json=put_in(written))), wanted, atol=1e-6)


def test_several_conversations_are_several_items(client):
    said = [[{"role": "user", "content": words}] for words in ("one", "two", "three")]
    assert np.allclose(vectors(ask(client, messages=said)), Seeing().embed(["one", "two", "three"]))
    spoken = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "indeed"}]
    assert "assistant" in refused(ask(client, messages=spoken), 400, "messages.0")


def test_forms_of_a_vector(client):
    exact = Seeing().embed(["a red bicycle"])
    text = {"input": "a red bicycle"}
    encoded = ask(client, **text, encoding_format="base64").json()["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(encoded), "<f4"), exact[0])
    assert np.array_equal(vectors(ask(client, **text, encoding_format="int8")), convert(exact, "int8"))
    signs = convert(exact, "binary").astype(int)
    assert np.array_equal(vectors(ask(client, **text, encoding_format="binary")), signs)
    assert np.array_equal(vectors(ask(client, **text, embedding_type="ubinary")), signs)
    assert np.array_equal(vectors(ask(client, **text, embedding_type="binary")), signs - 128)


def test_dimensions_cut_and_keep_length_one():
    with around(Seeing(dim=128)) as client:
        whole, cut = (vectors(ask(client, input="a", dimensions=dim))[0] for dim in (None, 64))
        assert whole.shape == (128,)
        assert np.allclose(cut, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)
        refused(ask(client, input="a", dimensions=68, encoding_format="binary"), 400, "dimensions", "dimensions")
        for bad in (1, 63, 129, 2**31, 2**63):
            refused(ask(client, input="a", dimensions=bad), 400, "dimensions", "dimensions")
        for odd in (0, -1, "64", 64.5, True):
            refused(ask(client, input="a", dimensions=odd), 400, "dimensions")


def test_a_bad_item_is_named(client):
    message = refused(ask(client, input=["fine", "poison"]), 400, "input.1", "corrupt")
    assert message.startswith("input.1: ")
    refused(ask(client, input=[{"text": "fine"}, {"image": "bm90IGEgcGljdHVyZQ=="}]), 400, "input.1", "not_media")
    refused(ask(client, input=["fine", ""]), 400, "input.1", "empty_item")
    refused(ask(client, input=[{"image": "http://127.0.0.1/a.png"}]), 400, "input.0", "url_off")
    refused(ask(client, input=["fine", {"text": "x", "colour": "red"}]), 400, "input.1.colour")
    refused(ask(client, input=["a", {"text": "x" * (2**20 + 1)}]), 400, "input.1", "too_long")


def test_a_path_is_never_read(client, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (48, 48), "red").save(secret)
    for source in (str(secret), f"file://{secret}"):
        refused(ask(client, input=[{"image": source}]), 400, "input.0", "not_media")


def test_token_ids_are_refused_with_the_way_out(client):
    for ids in ([1, 2, 3], [[1, 2], [3]]):
        answer = ask(client, input=ids)
        assert answer.status_code == 400
        assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": None},
        {"input": []},
        {"input": 3},
        {"input": "a", "messages": [{"role": "user", "content": "a"}]},
        {"input": "a", "encoding_format": "hex"},
        {"input": "a", "encoding_format": "float", "embedding_type": "float"},
        {"input": "a", "normalized": False},
        {"input": "a", "nonsense": 1},
        {"messages": []},
        {"messages": [{"role": "user", "content": ""}]},
    ],
)
def test_what_makes_no_sense_is_an_error(client, body):
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_half_characters_are_refused_wherever_they_stand(client):
    for body in (r'{"input": "\ud800"}', r'{"input": "a", "\ud800": 1}', r'{"input": [[{"type": "\ud800"}]]}'):
        answer = client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, body
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_too_many_items_are_refused_before_any_is_embedded():
    class Never(Seeing):
        def stream(self, items, **options):
            raise AssertionError("nothing may be embedded")

    with around(Never(), serve_max_items=3) as client:
        refused(ask(client, input=["a"] * 4), 413, "input", "too_many_items")
        refused(client.post("/v2/embed", json={"texts": ["a"] * 4}), 413, "texts", "too_many_items")


def test_another_model_is_not_found(client):
    assert "toy" in refused(ask(client, input="a", model="text-embedding-3-small"), 404, "model", "model_not_found")
    for name in ("toy", "default"):
        assert ask(client, input="a", model=name).status_code == 200


def test_a_model_in_a_folder_is_called_by_the_last_part_and_its_place_is_not_told():
    with around(Seeing(model="/home/ada/models/mine")) as client:
        assert "/home" not in client.get("/v1/models").text
        assert client.get("/v1/models/mine").json()["task"] == "embed"
        assert ask(client, input="a", model="mine").json()["model"] == "mine"
        refused(client.get("/v1/models/yours"), 404, "model", "model_not_found")


def test_cohere_takes_one_of_three_and_gives_several_forms(client):
    answer = client.post(
        "/v2/embed",
        json={
            "model": "toy",
            "input_type": "search_document",
            "texts": ["red", "blue"],
            "embedding_types": ["float", "int8", "uint8", "binary", "ubinary", "base64"],
        },
    )
    found = {form: np.array(rows) for form, rows in answer.json()["embeddings"].items() if form != "base64"}
    exact = Seeing().embed(["red", "blue"])
    assert np.allclose(found["float"], exact)
    assert np.array_equal(found["uint8"] - 128, convert(exact, "int8"))
    assert np.array_equal(found["int8"], convert(exact, "int8"))
    assert np.array_equal(found["ubinary"], convert(exact, "binary"))
    assert np.array_equal(found["binary"] + 128, convert(exact, "binary"))
    assert answer.json()["texts"] == ["red", "blue"]
    assert client.post("/v2/embed", json={"images": [png("red")]}).status_code == 200
    for bad in ({}, {"texts": ["a"], "images": [png("red")]}, {"texts": ["a"], "truncate": "START"}):
        assert client.post("/v2/embed", json=bad).status_code == 400
    refused(client.post("/v2/embed", json={"images": [png("red"), "!"]}), 400, "images.1", "not_media")
