"""LlamaIndex: a multi-modal embedding, a node postprocessor that reranks, a retriever over a library.

::

    from sightline.integrations.llamaindex import SightlineEmbedding, SightlineReranker, SightlineRetriever

Asynchronous methods run the same work in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any

from sightline.errors import InputError, MediaError, MissingExtraError
from sightline.library import Library
from sightline.protocols import EmbeddingModel, ItemLike, RerankingModel
from sightline.types import Hit, Item

try:
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.embeddings import MultiModalEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
except ImportError:
    raise MissingExtraError("llama-index-core", "llamaindex") from None


class SightlineEmbedding(MultiModalEmbedding):  # type: ignore[misc]
    """Any embedding model as LlamaIndex's ``MultiModalEmbedding``.

    Args:
        model: local or remote.
        query_instruction: what searches are for, in English; None takes the model's default, also for nodes.
        dim: width of the vectors; None takes the model's.
        **options: of ``BaseEmbedding``, such as ``embed_batch_size``.
    """

    query_instruction: str | None = None
    dim: int | None = None
    _model: Any = PrivateAttr()

    def __init__(
        self, model: EmbeddingModel, *, query_instruction: str | None = None, dim: int | None = None, **options: Any
    ) -> None:
        options.setdefault("model_name", model.card.model)
        super().__init__(query_instruction=query_instruction, dim=dim, **options)
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, for LlamaIndex."""
        return "SightlineEmbedding"

    def get_item_embeddings(self, items: Sequence[ItemLike]) -> list[list[float]]:
        """Vectors of anything: text, images, videos, or a mix in one ``Item``."""
        return self._vectors(items)

    def _vectors(self, items: Sequence[ItemLike], instruction: str | None = None) -> list[list[float]]:
        if not items:
            return []
        vectors: list[list[float]] = self._model.embed(items, instruction=instruction, dim=self.dim).tolist()
        return vectors

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query], self.query_instruction)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _get_image_embedding(self, img_file_path: str | io.BytesIO) -> list[float]:
        return self._get_image_embeddings([img_file_path])[0]

    async def _aget_image_embedding(self, img_file_path: str | io.BytesIO) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    def _get_image_embeddings(self, img_file_paths: list[str | io.BytesIO]) -> list[list[float]]:
        return self._vectors([Item(image=_source(one)) for one in img_file_paths])

    async def _aget_image_embeddings(self, img_file_paths: list[str | io.BytesIO]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_image_embeddings, img_file_paths)


class SightlineReranker(BaseNodePostprocessor):  # type: ignore[misc]
    """Any reranking model as a node postprocessor: nodes in order of their probability, best first.

    A node is judged by its text, an ``ImageNode`` by its picture and text.

    Args:
        reranker: local or remote.
        top_n: how many are kept; None keeps all.
        instruction: what counts as an answer, in English; None takes the model's default.
    """

    top_n: int | None = Field(default=None, ge=1)
    instruction: str | None = None
    _reranker: Any = PrivateAttr()

    def __init__(self, reranker: RerankingModel, *, top_n: int | None = None, instruction: str | None = None) -> None:
        super().__init__(top_n=top_n, instruction=instruction)
        self._reranker = reranker

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, for LlamaIndex."""
        return "SightlineReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("reranking needs the query: postprocess_nodes(nodes, query_str=…)")
        if not nodes:
            return []
        items = [_item(one.node) for one in nodes]
        scores = self._reranker.score(_query(query_bundle), items, instruction=self.instruction)
        order = sorted(range(len(nodes)), key=lambda place: -scores[place])[: self.top_n]
        return [NodeWithScore(node=nodes[place].node, score=float(scores[place])) for place in order]


class SightlineRetriever(BaseRetriever):  # type: ignore[misc]
    """A library as a retriever: both stages, and the place of every hit in the metadata.

    Args:
        library: opened with an embedder.
        similarity_top_k: most nodes.
        rerank, where, min_score, instruction: as of ``Library.search``.
    """

    def __init__(
        self,
        library: Library,
        *,
        similarity_top_k: int = 10,
        rerank: int = 50,
        where: Mapping[str, Any] | str | None = None,
        min_score: float | None = None,
        instruction: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._library = library
        self._options: dict[str, Any] = {
            "k": similarity_top_k,
            "rerank": rerank,
            "where": where,
            "min_score": min_score,
            "instruction": instruction,
        }

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._library.search(_query(query_bundle), **self._options)
        return [NodeWithScore(node=self._node(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _node(self, hit: Hit) -> TextNode:
        row = self._library.row(hit.id)
        place = {
            "path": hit.path,
            "kind": hit.kind,
            "title": hit.title,
            "page": hit.page,
            "start_s": hit.start_s,
            "end_s": hit.end_s,
        }
        columns = dict(row.columns) if row is not None else {}
        text = (row.text if row is not None else hit.snippet) or hit.title
        common = {"id_": hit.id, "text": text, "metadata": {**columns, **place}}
        return ImageNode(**common, image_path=hit.path) if hit.kind == "image" else TextNode(**common)


def _query(bundle: QueryBundle) -> Item:
    return Item(text=bundle.query_str or None, image=bundle.image_path)


def _item(node: Any) -> Item:
    """What the model is shown of a node."""
    text = node.get_content(metadata_mode=MetadataMode.NONE) or None
    if not isinstance(node, ImageNode):
        return Item(text=text)
    if node.image:
        try:
            return Item(text=text, image=base64.b64decode(node.image, validate=True))
        except binascii.Error:
            raise MediaError("not_media", "the image of a node must be base64") from None
    return Item(text=text, image=node.image_path or node.image_url)


def _source(image: str | io.BytesIO) -> Any:
    return image.getvalue() if isinstance(image, io.BytesIO) else image
