"""Haystack pipelines with Sightline's components."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from sightline import Item, Library
from sightline.errors import InputError
from tests.cli.toys import Judge, Seeing

pytest.importorskip("haystack", reason="the extra haystack is not installed")
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.dataclasses import ByteStream
from haystack.document_stores.in_memory import InMemoryDocumentStore

from sightline.integrations.haystack import (
    SightlineDocumentEmbedder,
    SightlineRanker,
    SightlineRetriever,
    SightlineTextEmbedder,
)


def red_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), (220, 10, 10), np.uint8)).save(file, "PNG")
    return file.getvalue()


def documents() -> list[Document]:
    return [
        Document(content="flour and water"),
        Document(content="a red bicycle"),
        Document(blob=ByteStream(red_png(), mime_type="image/png")),
    ]


def test_documents_get_their_vectors_and_the_given_ones_stay_as_they_are() -> None:
    toy = Seeing(model="toy")
    given = documents()
    done = SightlineDocumentEmbedder(toy).run(documents=given)["documents"]
    wanted = toy.embed(["flour and water", "a red bicycle", Item(image=red_png())])
    assert np.allclose([one.embedding for one in done], wanted)
    assert all(one.embedding is None for one in given)
    assert SightlineDocumentEmbedder(toy).run(documents=[]) == {"documents": []}
    assert np.allclose(SightlineTextEmbedder(toy).run(text="a")["embedding"], toy.embed(["a"])[0])


def test_a_pipeline_of_both_stages() -> None:
    toy = Seeing(model="toy")
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(SightlineDocumentEmbedder(toy).run(documents=documents())["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", SightlineTextEmbedder(toy))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=3))
    pipeline.add_component("ranker", SightlineRanker(Judge(), top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    result = pipeline.run({"embedder": {"text": "red bicycle"}, "ranker": {"query": "red bicycle"}})
    best, second = result["ranker"]["documents"]
    assert best.content == "a red bicycle" and best.score >= second.score


def test_the_retriever_gives_documents_with_their_place(library: Library) -> None:
    retriever = SightlineRetriever(library, top_k=2)
    best, _ = retriever.run(query="a red bicycle")["documents"]
    assert best.content.strip() == "A red bicycle leans on the wall."
    assert best.meta["file_path"].endswith("bicycle.txt")
    (page,) = retriever.run(query="green", top_k=5, where={"kind": "page"})["documents"]
    assert page.meta["page_number"] == 1


def test_asynchronously(library: Library) -> None:
    toy = Seeing(model="toy")

    async def work():
        return (
            await SightlineTextEmbedder(toy).run_async(text="a"),
            await SightlineDocumentEmbedder(toy).run_async(documents=documents()),
            await SightlineRetriever(library).run_async(query="bread"),
            await SightlineRanker(Judge()).run_async(query="red bicycle", documents=documents()),
        )

    text, embedded, found, ranked = asyncio.run(work())
    assert len(text["embedding"]) == 64 and len(embedded["documents"]) == 3
    assert found["documents"][0].meta["file_path"].endswith("bread.md")
    assert ranked["documents"][0].content == "a red bicycle"


def test_a_senseless_number_is_refused() -> None:
    with pytest.raises(InputError):
        SightlineRanker(Judge(), top_k=0)
    with pytest.raises(InputError):
        SightlineRanker(Judge()).run(query="a", documents=documents(), top_k=0)
    assert SightlineRanker(Judge()).run(query="a", documents=[]) == {"documents": []}
