"""Haystack 2: components that embed texts and documents, retrieve from a library, and rank documents.

::

    from sightline.integrations.haystack import SightlineDocumentEmbedder, SightlineRanker
    from sightline.integrations.haystack import SightlineRetriever, SightlineTextEmbedder

The components hold models that are loaded, so a pipeline with them runs but is not written to YAML.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sightline.errors import InputError, MissingExtraError
from sightline.library import Library
from sightline.protocols import EmbeddingModel, RerankingModel
from sightline.types import Hit, Item

try:
    from haystack import Document, component
except ImportError:
    raise MissingExtraError("haystack-ai", "haystack") from None


@component
class SightlineTextEmbedder:
    """Embeds a search.

    Args:
        model: local or remote.
        instruction: what searches are for, in English; None takes the model's default.
        dim: width of the vector; None takes the model's.
    """

    def __init__(self, model: EmbeddingModel, *, instruction: str | None = None, dim: int | None = None) -> None:
        self.model = model
        self.instruction = instruction
        self.dim = dim

    @component.output_types(embedding=list[float])  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        """``embedding``: the vector of ``text``."""
        return {"embedding": self.model.embed([text], instruction=self.instruction, dim=self.dim)[0].tolist()}

    @component.output_types(embedding=list[float])  # type: ignore[untyped-decorator]
    async def run_async(self, text: str) -> dict[str, Any]:
        """``run`` in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class SightlineDocumentEmbedder:
    """Embeds documents: their text, and the picture in their ``blob``.

    Args:
        model: local or remote.
        dim: width of the vectors; None takes the model's.
    """

    def __init__(self, model: EmbeddingModel, *, dim: int | None = None) -> None:
        self.model = model
        self.dim = dim

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """``documents``: copies with their ``embedding``."""
        if not documents:
            return {"documents": []}
        vectors = self.model.embed([_item(one) for one in documents], dim=self.dim)
        return {
            "documents": [
                replace(one, embedding=vector.tolist()) for one, vector in zip(documents, vectors, strict=True)
            ]
        }

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """``run`` in a thread."""
        return await asyncio.to_thread(self.run, documents)


@component
class SightlineRetriever:
    """Finds documents in a library, with both stages.

    Args:
        library: opened with an embedder.
        top_k: most documents.
        rerank, min_score, instruction: as of ``Library.search``.
        where: rows that may be found, as ``Filter.of`` takes it.
    """

    def __init__(
        self,
        library: Library,
        *,
        top_k: int = 10,
        rerank: int = 50,
        where: Mapping[str, Any] | str | None = None,
        min_score: float | None = None,
        instruction: str | None = None,
    ) -> None:
        self.library = library
        self.top_k = top_k
        self.where = where
        self._options: dict[str, Any] = {"rerank": rerank, "min_score": min_score, "instruction": instruction}

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, query: str, top_k: int | None = None, where: dict[str, Any] | None = None) -> dict[str, Any]:
        """``documents`` for ``query``, best first, with their place in ``meta``."""
        hits = self.library.search(
            query,
            k=self.top_k if top_k is None else top_k,
            where=self.where if where is None else where,
            **self._options,
        )
        return {"documents": [self._document(hit) for hit in hits]}

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    async def run_async(
        self, query: str, top_k: int | None = None, where: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """``run`` in a thread."""
        return await asyncio.to_thread(self.run, query, top_k, where)

    def _document(self, hit: Hit) -> Document:
        row = self.library.row(hit.id)
        meta = {
            "file_path": hit.path,
            "kind": hit.kind,
            "title": hit.title,
            "page_number": hit.page,
            "start_s": hit.start_s,
            "end_s": hit.end_s,
            "recall_score": hit.recall_score,
            "rerank_score": hit.rerank_score,
        }
        columns = dict(row.columns) if row is not None else {}
        text = (row.text if row is not None else hit.snippet) or hit.title
        return Document(id=hit.id, content=text, score=hit.score, meta={**columns, **meta})


@component
class SightlineRanker:
    """Puts documents in order of their probability, best first, judged by their text and the picture in ``blob``.

    Args:
        reranker: local or remote.
        top_k: how many are kept; None keeps all.
        instruction: what counts as an answer, in English; None takes the model's default.
    """

    def __init__(self, reranker: RerankingModel, *, top_k: int | None = None, instruction: str | None = None) -> None:
        _check(top_k)
        self.reranker = reranker
        self.top_k = top_k
        self.instruction = instruction

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """``documents``: the best, as copies with their ``score``."""
        _check(top_k)
        if not documents:
            return {"documents": []}
        scores = self.reranker.score(query, [_item(one) for one in documents], instruction=self.instruction)
        most = self.top_k if top_k is None else top_k
        order = sorted(range(len(documents)), key=lambda place: -scores[place])[:most]
        return {"documents": [replace(documents[place], score=float(scores[place])) for place in order]}

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """``run`` in a thread."""
        return await asyncio.to_thread(self.run, query, documents, top_k)


def _item(document: Document) -> Item:
    blob = document.blob
    picture = blob.data if blob is not None and str(blob.mime_type or "").startswith("image/") else None
    return Item(text=document.content or None, image=picture)


def _check(top_k: int | None) -> None:
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, not {top_k}")
