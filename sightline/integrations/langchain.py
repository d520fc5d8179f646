"""LangChain: embeddings of texts and pictures, a retriever over a library, a reranker of documents.

::

    from sightline.integrations.langchain import SightlineEmbeddings, SightlineReranker, SightlineRetriever

Asynchronous methods run the same work in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sightline.errors import InputError, MissingExtraError
from sightline.library import Library
from sightline.protocols import EmbeddingModel, ItemLike, RerankingModel
from sightline.types import Hit, ImageSource, Item

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict, Field, SkipValidation
except ImportError:
    raise MissingExtraError("langchain-core", "langchain") from None


class SightlineEmbeddings(Embeddings):  # type: ignore[misc]
    """Any embedding model as LangChain's ``Embeddings``, with methods for pictures beside those for texts.

    Args:
        model: local or remote.
        query_instruction: what searches are for, in English; None takes the model's default, also for documents.
        dim: width of the vectors; None takes the model's.
    """

    def __init__(self, model: EmbeddingModel, *, query_instruction: str | None = None, dim: int | None = None) -> None:
        self.model = model
        self.query_instruction = query_instruction
        self.dim = dim

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of texts."""
        return self.embed_items(list(texts))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a search."""
        return self._vectors([text], self.query_instruction)[0]

    def embed_images(self, images: Sequence[ImageSource]) -> list[list[float]]:
        """Vectors of pictures: paths, bytes, ``PIL.Image`` or arrays."""
        return self.embed_items([Item(image=image) for image in images])

    def embed_items(self, items: Sequence[ItemLike]) -> list[list[float]]:
        """Vectors of anything: text, images, videos, or a mix in one ``Item``."""
        return self._vectors(items, None)

    async def aembed_images(self, images: Sequence[ImageSource]) -> list[list[float]]:
        """``embed_images`` in a thread."""
        return await asyncio.to_thread(self.embed_images, images)

    async def aembed_items(self, items: Sequence[ItemLike]) -> list[list[float]]:
        """``embed_items`` in a thread."""
        return await asyncio.to_thread(self.embed_items, items)

    def _vectors(self, items: Sequence[ItemLike], instruction: str | None) -> list[list[float]]:
        if not items:
            return []
        vectors: list[list[float]] = self.model.embed(items, instruction=instruction, dim=self.dim).tolist()
        return vectors


class SightlineRetriever(BaseRetriever):  # type: ignore[misc]
    """A library as a retriever: both stages, and the place of every hit in the metadata.

    Attributes:
        library: opened with an embedder.
        k, rerank, where, min_score, instruction: as of ``Library.search``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    library: SkipValidation[Library]
    k: int = 10
    rerank: int = 50
    where: Mapping[str, Any] | str | None = None
    min_score: float | None = None
    instruction: str | None = None

    def search(self, query: ItemLike) -> list[Document]:
        """Documents for words, pictures, videos, or a mix; ``invoke`` takes words only."""
        hits = self.library.search(
            query,
            k=self.k,
            rerank=self.rerank,
            where=self.where,
            min_score=self.min_score,
            instruction=self.instruction,
        )
        return [self._document(hit) for hit in hits]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.search(query)

    def _document(self, hit: Hit) -> Document:
        row = self.library.row(hit.id)
        metadata = {
            "source": hit.path,
            "path": hit.path,
            "kind": hit.kind,
            "title": hit.title,
            "page": hit.page,
            "start_s": hit.start_s,
            "end_s": hit.end_s,
            "score": hit.score,
            "recall_score": hit.recall_score,
            "rerank_score": hit.rerank_score,
            "snippet": hit.snippet,
        }
        text = (row.text if row is not None else hit.snippet) or hit.title
        columns = dict(row.columns) if row is not None else {}
        return Document(page_content=text, metadata={**columns, **metadata}, id=hit.id)


class SightlineReranker(BaseDocumentCompressor):  # type: ignore[misc]
    """Any reranking model as a document compressor: documents in order of their probability, best first.

    A document is judged by its text; where its metadata hold ``image`` (a path, bytes or picture), by that too.

    Attributes:
        reranker: local or remote.
        top_n: how many are kept; None keeps all.
        instruction: what counts as an answer, in English; None takes the model's default.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: SkipValidation[RerankingModel]
    top_n: int | None = Field(default=None, ge=1)
    instruction: str | None = None

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        """The best documents, each a copy with ``relevance_score`` in its metadata."""
        if not documents:
            return []
        if not query.strip():
            raise InputError("the query is empty")
        scores = self.reranker.score(query, [_item(one) for one in documents], instruction=self.instruction)
        order = sorted(range(len(documents)), key=lambda place: -scores[place])[: self.top_n]
        return [
            documents[place].model_copy(
                update={"metadata": {**documents[place].metadata, "relevance_score": float(scores[place])}}
            )
            for place in order
        ]


def _item(document: Document) -> Item:
    return Item(text=document.page_content or None, image=document.metadata.get("image"))
