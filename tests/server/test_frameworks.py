"""LangChain and LlamaIndex with the packages they have for OpenAI and Cohere, pointed at a live server."""

import cohere
import httpx
import numpy as np
import pytest

from sightline.server.app import create_app
from sightline.server.services import Services
from sightline.settings import Settings
from tests.cli.toys import Judge, Seeing
from tests.server.conftest import serving

KEY = "a-key-for-these-tests"
TEXTS = ["a red bicycle", "tax law", "a red car"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    library = str(tmp_path_factory.mktemp("toys") / "library.sightline")
    app = create_app(Services.of(Settings(library=library, serve_keys=KEY), Seeing(dim=128), Judge()))
    with serving() as start:
        yield start(app)


def expected(texts=TEXTS):
    return Seeing(dim=128).embed(texts)


def test_langchain_openai(address):
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    # without this it sends the ids of OpenAI's own tokenizer, which mean nothing to another model
    with httpx.Client() as http:
        embeddings = langchain.OpenAIEmbeddings(
            model="toy", base_url=f"{address}/v1", api_key=KEY, check_embedding_ctx_length=False, http_client=http
        )
        assert np.allclose(embeddings.embed_documents(TEXTS), expected(), atol=1e-6)
        assert np.allclose(embeddings.embed_query("tax law"), expected()[1], atol=1e-6)


def test_langchain_cohere(address):
    langchain = pytest.importorskip("langchain_cohere", reason="langchain-cohere is not installed")
    with httpx.Client() as http:
        client = cohere.ClientV2(api_key=KEY, base_url=address, httpx_client=http)
        found = langchain.CohereRerank(model="toy-reranker", client=client, top_n=2).rerank(TEXTS, "a red car")
    assert [one["index"] for one in found] == [2, 0]
    assert found[0]["relevance_score"] == pytest.approx(float(Judge().score("a red car", TEXTS)[2]), abs=1e-6)


def test_llama_index_openai_like(address):
    like = pytest.importorskip(
        "llama_index.embeddings.openai_like", reason="the OpenAI-like client of LlamaIndex is not installed"
    )
    with httpx.Client() as http:
        embeddings = like.OpenAILikeEmbedding(model_name="toy", api_base=f"{address}/v1", api_key=KEY, http_client=http)
        assert np.allclose(embeddings.get_text_embedding_batch(TEXTS), expected(), atol=1e-6)
        assert np.allclose(embeddings.get_query_embedding("tax law"), expected()[1], atol=1e-6)
