"""LangChain's own classes around Sightline's models."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from sightline import Embedder, Item, Library
from sightline.errors import InputError
from sightline.testing import ToyEmbedder, ToyReranker

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from sightline.integrations.langchain import SightlineEmbeddings, SightlineReranker, SightlineRetriever

RED = np.full((32, 32, 3), (220, 10, 10), np.uint8)


def test_embeddings_of_texts_and_pictures_are_those_of_the_model() -> None:
    toy = ToyEmbedder()
    embeddings = SightlineEmbeddings(toy)
    assert isinstance(embeddings, Embeddings)
    assert np.allclose(embeddings.embed_documents(["a", "b c"]), toy.embed(["a", "b c"]))
    assert np.allclose(embeddings.embed_query("a"), toy.embed(["a"])[0])
    assert np.allclose(embeddings.embed_images([RED]), toy.embed([Item(image=RED)]))
    assert embeddings.embed_documents([]) == []
    assert isinstance(embeddings.embed_query("a")[0], float)


def test_embeddings_asynchronously() -> None:
    toy = ToyEmbedder()
    embeddings = SightlineEmbeddings(toy)

    async def work():
        return await asyncio.gather(
            embeddings.aembed_query("a"), embeddings.aembed_documents(["b"]), embeddings.aembed_images([RED])
        )

    query, documents, images = asyncio.run(work())
    assert np.allclose([query, *documents, *images], toy.embed(["a", "b", Item(image=RED)]))


def test_a_vector_store_of_langchain_finds_with_them() -> None:
    store = InMemoryVectorStore(SightlineEmbeddings(ToyEmbedder()))
    store.add_texts(["a red bicycle", "flour, water and salt"])
    assert store.similarity_search("bicycle", k=1)[0].page_content == "a red bicycle"


def test_the_built_in_model_tells_instructions_apart() -> None:
    model = Embedder.load("builtin")
    embeddings = SightlineEmbeddings(model, query_instruction="Find the recipe", dim=64)
    assert np.allclose(
        embeddings.embed_query("bread"), model.embed(["bread"], instruction="Find the recipe", dim=64)[0]
    )
    assert len(embeddings.embed_documents(["bread"])[0]) == 64


def test_the_retriever_gives_documents_with_their_place(library: Library) -> None:
    retriever = SightlineRetriever(library=library, k=3)
    documents = retriever.invoke("a red bicycle")
    assert len(documents) == 3
    best = documents[0]
    assert best.page_content.strip() == "A red bicycle leans on the wall."
    assert best.metadata["path"].endswith("bicycle.txt") and best.metadata["kind"] == "text"
    assert best.metadata["page"] is None and 0 <= best.metadata["score"] <= 1
    assert best.id and library.row(best.id) is not None
    page = SightlineRetriever(library=library, where="kind=page").invoke("green")[0]
    assert page.metadata["page"] == 1
    moment = asyncio.run(SightlineRetriever(library=library, where={"kind": "moment"}).ainvoke("yellow"))[0]
    assert moment.metadata["start_s"] == 0.0


def test_the_retriever_takes_pictures_too(library: Library) -> None:
    best = SightlineRetriever(library=library, k=1, rerank=0).search(Item(image=RED))[0]
    assert best.metadata["path"].endswith("rot.png")


def test_the_reranker_orders_and_cuts_documents_and_keeps_the_originals() -> None:
    documents = [
        Document(page_content="flour and water", metadata={"source": "a"}),
        Document(page_content="a red bicycle", metadata={"source": "b"}),
        Document(page_content="", metadata={"source": "c", "image": RED}),
    ]
    reranker = SightlineReranker(reranker=ToyReranker(), top_n=2)
    kept = reranker.compress_documents(documents, "red bicycle")
    assert kept[0].metadata["source"] == "b" and len(kept) == 2
    assert kept[0].metadata["relevance_score"] >= kept[1].metadata["relevance_score"]
    assert "relevance_score" not in documents[1].metadata
    assert asyncio.run(reranker.acompress_documents(documents, "red bicycle")) == kept
    assert reranker.compress_documents([], "x") == []
    with pytest.raises(InputError):
        reranker.compress_documents(documents, " ")
