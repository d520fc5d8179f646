"""LlamaIndex's own classes around Sightline's models."""

from __future__ import annotations

import asyncio
import base64
import io

import numpy as np
import pytest
from PIL import Image

from sightline import Item, Library
from sightline.errors import InputError, MediaError
from sightline.testing import ToyReranker
from tests.cli.toys import Judge, Seeing

pytest.importorskip("llama_index.core", reason="the extra llamaindex is not installed")
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode

from sightline.integrations.llamaindex import SightlineEmbedding, SightlineReranker, SightlineRetriever


@pytest.fixture
def red(tmp_path):
    path = tmp_path / "red.png"
    Image.fromarray(np.full((32, 32, 3), (220, 10, 10), np.uint8)).save(path)
    return path


def test_embeddings_of_texts_and_pictures_are_those_of_the_model(red) -> None:
    toy = Seeing(model="toy")
    embedding = SightlineEmbedding(toy, embed_batch_size=2)
    assert isinstance(embedding, MultiModalEmbedding) and embedding.model_name == "toy"
    assert np.allclose(embedding.get_query_embedding("a b"), toy.embed(["a b"])[0])
    texts = ["a", "b", "c"]
    assert np.allclose(embedding.get_text_embedding_batch(texts), toy.embed(texts))
    wanted = toy.embed([Item(image=str(red))])[0]
    assert np.allclose(embedding.get_image_embedding(str(red)), wanted)
    assert np.allclose(embedding.get_image_embedding(io.BytesIO(red.read_bytes())), wanted)
    assert np.allclose(embedding.get_image_embedding_batch([str(red)] * 3), [wanted] * 3)


def test_embeddings_asynchronously(red) -> None:
    toy = Seeing(model="toy")
    embedding = SightlineEmbedding(toy)

    async def work():
        return [
            await embedding.aget_query_embedding("a"),
            await embedding.aget_text_embedding("b"),
            *await embedding.aget_text_embedding_batch(["c"]),
            await embedding.aget_image_embedding(str(red)),
            *await embedding.aget_image_embedding_batch([str(red)]),
        ]

    picture = Item(image=str(red))
    assert np.allclose(asyncio.run(work()), toy.embed(["a", "b", "c", picture, picture]))


def test_the_reranker_orders_and_cuts_nodes(red) -> None:
    nodes = [
        NodeWithScore(node=TextNode(text="flour and water"), score=0.9),
        NodeWithScore(node=TextNode(text="a red bicycle"), score=0.1),
        NodeWithScore(node=ImageNode(image_path=str(red)), score=0.5),
        NodeWithScore(node=ImageNode(image=base64.b64encode(red.read_bytes()).decode()), score=0.5),
    ]
    reranker = SightlineReranker(Judge(), top_n=3)
    kept = reranker.postprocess_nodes(nodes, query_str="red bicycle")
    assert len(kept) == 3 and kept[0].node.text == "a red bicycle"
    assert kept[0].score >= kept[1].score >= kept[2].score
    assert nodes[1].score == 0.1, "the nodes that were given keep their scores"
    again = asyncio.run(reranker.apostprocess_nodes(nodes, query_str="red bicycle"))
    assert [one.score for one in again] == [one.score for one in kept]
    by_picture = SightlineReranker(Judge(), top_n=1).postprocess_nodes(
        nodes, query_bundle=QueryBundle(query_str="", image_path=str(red))
    )
    assert isinstance(by_picture[0].node, ImageNode)


def test_the_reranker_refuses_what_it_cannot_judge() -> None:
    reranker = SightlineReranker(ToyReranker())
    assert reranker.postprocess_nodes([], query_str="a") == []
    with pytest.raises(InputError):
        reranker.postprocess_nodes([NodeWithScore(node=TextNode(text="a"))])
    with pytest.raises(MediaError):
        reranker.postprocess_nodes([NodeWithScore(node=ImageNode(image="no base64!"))], query_str="a")


def test_the_retriever_gives_nodes_with_their_place(library: Library) -> None:
    retriever = SightlineRetriever(library, similarity_top_k=2)
    best, second = retriever.retrieve("a red bicycle")
    assert best.node.get_content().strip() == "A red bicycle leans on the wall."
    assert best.node.metadata["path"].endswith("bicycle.txt") and best.score >= second.score
    (page, *_) = asyncio.run(SightlineRetriever(library, where="kind=page").aretrieve("green"))
    assert page.node.metadata["page"] == 1
    (picture, *_) = SightlineRetriever(library, where="kind=image").retrieve("blue")
    assert isinstance(picture.node, ImageNode) and picture.node.image_path.endswith(".png")
