"""The clients that people have, pointed at a live server: OpenAI's, Cohere's, and what Jina's documentation posts."""

import base64
import io

import cohere
import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from sightline.embed import Embedder
from sightline.rerank import Reranker
from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing
from tests.server.conftest import serving

KEY = "a-key-for-these-tests"
TEXTS = ["a red bicycle", "tax law", "a red car"]


def png(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server around toys that asks for a key."""
    library = str(tmp_path_factory.mktemp("toys") / "library.sightline")
    app = create_app(Services.of(Settings(library=library, serve_keys=KEY), Seeing(dim=128), Judge()))
    with serving() as start:
        yield start(app)


@pytest.fixture(scope="module")
def builtin(tmp_path_factory):
    """A server around the built-in models and their queue."""
    library = str(tmp_path_factory.mktemp("builtin") / "library.sightline")
    with serving() as start:
        yield start(create_app(Services.open(Settings(library=library, device="cpu"))))


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


class TestOpenAI:
    def test_default_format_is_base64_and_arrives_exactly(self, client):
        answer = client.embeddings.create(model="toy", input=TEXTS)
        assert np.array_equal(
            np.array([one.embedding for one in answer.data], np.float32), Seeing(dim=128).embed(TEXTS)
        )
        assert (answer.model, answer.usage.prompt_tokens) == ("toy", 8)

    def test_float_and_dimensions(self, client):
        answer = client.embeddings.create(model="toy", input="a red car", encoding_format="float", dimensions=64)
        assert np.allclose(answer.data[0].embedding, Seeing(dim=128).embed(["a red car"], dim=64)[0], atol=1e-6)

    def test_models(self, client):
        assert [model.id for model in client.models.list()] == ["toy", "toy-reranker"]
        assert client.models.retrieve("toy-reranker").object == "model"

    def test_errors_are_the_classes_of_the_client(self, client, address):
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="text-embedding-3-small", input="a")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            client.embeddings.create(model="toy", input=["a", "poison"])
        assert (bad.value.param, bad.value.code) == ("input.1", "corrupt")
        with pytest.raises(openai.BadRequestError, match="token ids"):
            client.embeddings.create(model="toy", input=[[1, 2, 3]])
        with (
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.embeddings.create(model="toy", input="a")

    def test_pictures_go_in_the_extra_body(self, client):
        said = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": png("red")}}]}]
        answer = client.post("/embeddings", body={"model": "toy", "messages": said}, cast_to=httpx.Response).json()
        wanted = Seeing(dim=128).embed([{"image": np.full((48, 48, 3), (255, 0, 0), np.uint8)}])
        assert np.allclose(answer["data"][0]["embedding"], wanted[0], atol=1e-6)

    def test_the_built_in_model(self, builtin):
        with openai.OpenAI(base_url=f"{builtin}/v1", api_key="none", max_retries=0, timeout=300) as client:
            items = [{"image": png("red"), "text": "what is it"}]
            texts = client.embeddings.create(model="builtin", input=TEXTS)
            mixed = client.embeddings.create(model="builtin", input=items)
        embedder = Embedder.load("builtin", device="cpu")
        red = np.full((48, 48, 3), (255, 0, 0), np.uint8)
        wanted = embedder.embed([*TEXTS, {"text": "what is it", "image": red}])
        found = np.array([one.embedding for one in [*texts.data, *mixed.data]])
        assert np.allclose(found, wanted, atol=1e-5)
        assert texts.usage.prompt_tokens == sum(map(embedder.count_tokens, TEXTS))


class TestCohere:
    @pytest.fixture
    def connection(self):
        with httpx.Client(timeout=300) as connection:
            yield connection

    @pytest.fixture
    def remote(self, address, connection):
        return cohere.ClientV2(api_key=KEY, base_url=address, httpx_client=connection)

    def test_embed_texts_in_two_forms(self, remote):
        answer = remote.embed(
            model="toy", input_type="search_document", texts=TEXTS, embedding_types=["float", "int8"], truncate="END"
        )
        exact = Seeing(dim=128).embed(TEXTS)
        assert np.allclose(answer.embeddings.float_, exact, atol=1e-6)
        assert np.abs(answer.embeddings.int8).max() == 127
        assert answer.texts == TEXTS
        assert answer.meta.billed_units.input_tokens == 8

    def test_embed_pictures_and_mixes(self, remote):
        pictures = remote.embed(model="toy", input_type="image", images=[png("red")], embedding_types=["float"])
        content = [{"type": "image_url", "image_url": {"url": png("red")}}]
        mixed = remote.embed(
            model="toy",
            input_type="search_document",
            inputs=[{"content": content}],
            embedding_types=["float"],
            output_dimension=128,
        )
        assert np.allclose(pictures.embeddings.float_, mixed.embeddings.float_)

    def test_rerank(self, remote, address, connection):
        answer = remote.rerank(model="toy-reranker", query="a red bicycle", documents=TEXTS, top_n=2)
        assert [one.index for one in answer.results] == [0, 2]
        assert answer.results[0].relevance_score > answer.results[1].relevance_score
        older = cohere.Client(api_key=KEY, base_url=address, httpx_client=connection)
        results = older.rerank(model="toy-reranker", query="law", documents=TEXTS, return_documents=True).results
        assert (results[0].index, results[0].document.text) == (1, "tax law")

    def test_errors_are_the_classes_of_the_client(self, remote):
        with pytest.raises(cohere.NotFoundError):
            remote.rerank(model="rerank-v3.5", query="a", documents=["a"])
        with pytest.raises(cohere.BadRequestError) as bad:
            remote.embed(model="toy", input_type="image", images=["data:image/png;base64,AAAA"])
        assert bad.value.body["error"]["param"] == "images.0"


class TestJina:
    """There is no client package: these are the requests of Jina's documentation, with our models."""

    def test_embeddings(self, address):
        body = {
            "model": "toy",
            "task": "retrieval.passage",
            "dimensions": 64,
            "normalized": True,
            "truncate": True,
            "late_chunking": False,
            "embedding_type": "float",
            "input": [{"text": "a red car"}, {"image": png("red").partition(",")[2]}],
        }
        answer = httpx.post(
            f"{address}/v1/embeddings", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=300
        )
        found = [one["embedding"] for one in answer.json()["data"]]
        red = np.full((48, 48, 3), (255, 0, 0), np.uint8)
        assert np.allclose(found, Seeing(dim=128).embed(["a red car", {"image": red}], dim=64), atol=1e-6)

    def test_rerank(self, address):
        body = {
            "model": "toy-reranker",
            "query": "a red picture",
            "documents": [{"text": "tax law"}, {"image": png("red")}, {"text": "a red picture"}],
            "top_n": 3,
            "return_documents": False,
        }
        answer = httpx.post(f"{address}/v1/rerank", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=300)
        assert answer.json()["results"][0]["index"] == 2
        assert set(answer.json()["usage"]) >= {"total_tokens"}


def test_reranks_and_scores_of_the_built_in_model_are_those_of_the_library(builtin):
    wanted = Reranker.load("builtin", device="cpu").score("a red bicycle", TEXTS)
    body = {"query": "a red bicycle", "documents": TEXTS, "model": "builtin"}
    results = httpx.post(f"{builtin}/v1/rerank", json=body, timeout=300).json()["results"]
    assert [one["index"] for one in results] == list(np.argsort(-wanted, kind="stable"))
    assert np.allclose([one["relevance_score"] for one in results], np.sort(wanted)[::-1], atol=1e-5)
    scores = httpx.post(f"{builtin}/v1/score", json={"text_1": "a red bicycle", "text_2": TEXTS}, timeout=300).json()
    assert np.allclose([one["score"] for one in scores["data"]], wanted, atol=1e-5)
    found = httpx.get(f"{builtin}/metrics", timeout=300).text
    passes = [line for line in found.splitlines() if line.startswith('sightline_engine_prompts_total{lane="query"}')]
    assert float(passes[0].split()[-1]) >= 6
