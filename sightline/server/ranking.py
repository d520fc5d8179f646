"""Reranking over HTTP: ``/v1/rerank`` and ``/v2/rerank`` as Cohere and Jina shape it, ``/v1/score`` as vLLM does.

Scores are the model's probability that a document meets the query, from 0 to 1.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from sightline.protocols import RerankingModel
from sightline.server import names, reading, wire
from sightline.server.faults import Fault
from sightline.server.services import Services
from sightline.types import Item

FIXED: Final = "accepted for clients that send it; has no effect"


def _items(value: Any) -> Any:
    """What vLLM takes: one text, a list, or ``{"content": […]}``, whose parts are items of their own."""
    if isinstance(value, dict) and isinstance(value.get("content"), list) and len(value) == 1:
        return [[part] for part in value["content"]]
    return [value] if isinstance(value, (str, dict)) else value


Side: TypeAlias = Annotated[
    wire.Items,
    BeforeValidator(
        _items,
        json_schema_input_type=wire.Text | wire.PartObject | wire.Contents | wire.Items,
    ),
]


class RerankRequest(wire.Shape):
    """A query and the documents to put in order.

    Attributes:
        query: one item.
        documents: items.
        model: None takes what is loaded.
        top_n: how many results; None gives all.
        return_documents: give back what was sent.
        instruction: what counts as an answer, in English; None takes the model's default.
    """

    query: wire.ItemPart
    documents: Side
    model: str | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None
    instruction: str | None = None
    user: str | None = Field(default=None, description=FIXED)
    priority: int | None = Field(default=None, description=FIXED)
    max_tokens_per_doc: int | None = Field(default=None, description="documents are cut to the model's length only")
    max_chunks_per_doc: int | None = Field(default=None, description=FIXED)
    truncation: bool | None = Field(default=None, description=FIXED)


class Document(wire.Answer):
    """A document as it was sent; a key is absent where there is nothing of it."""

    text: str | None = None
    image: list[str] | None = None
    video: list[str] | None = None


class Result(wire.Answer):
    """One document's place in the order."""

    index: int
    relevance_score: float
    document: Document | None = None


class Rerank(wire.Answer):
    """Results, best first; equal scores keep the order of the documents."""

    id: str
    model: str
    results: list[Result]
    usage: wire.Usage
    meta: wire.Meta


class ScoreRequest(wire.Shape):
    """Pairs to score: ``text_1`` and ``text_2``, or ``queries`` and ``documents``; one against many, or many in pairs.

    Attributes:
        model: None takes what is loaded.
        instruction: what counts as an answer, in English; None takes the model's default.
    """

    text_1: Side | None = None
    text_2: Side | None = None
    queries: Side | None = None
    documents: Side | None = None
    model: str | None = None
    instruction: str | None = None
    user: str | None = Field(default=None, description=FIXED)

    @model_validator(mode="after")
    def _two_lists_that_fit(self) -> ScoreRequest:
        given = [self.text_1 is not None, self.text_2 is not None, self.queries is not None, self.documents is not None]
        if given not in ([True, True, False, False], [False, False, True, True]):
            raise PydanticCustomError("pairs", "give text_1 and text_2, or queries and documents")
        if len(self.left) not in {1, len(self.right)}:
            raise PydanticCustomError("pairs", "give one query for all, or as many queries as documents")
        return self

    @property
    def left(self) -> list[wire.Part]:
        """The queries."""
        return self.text_1 or self.queries or []

    @property
    def right(self) -> list[wire.Part]:
        """The documents."""
        return self.text_2 or self.documents or []

    @property
    def places(self) -> tuple[str, str]:
        """The keys that they are under."""
        return ("text_1", "text_2") if self.text_1 else ("queries", "documents")


class Score(wire.Answer):
    """The score of one pair."""

    index: int
    object: Literal["score"] = "score"
    score: float


class Scores(wire.Answer):
    """Scores in the order of the pairs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: wire.Usage


def given_back(part: wire.Part) -> dict[str, Any]:
    """A document for the answer."""
    found: dict[str, Any] = {"text": "\n".join(part.text)} if part.text else {}
    return found | {key: values for key in ("image", "video") if (values := getattr(part, key))}


def router(services: Services) -> APIRouter:
    """``/v1/rerank``, ``/v2/rerank`` and ``/v1/score``."""
    routes = APIRouter(tags=["ranking"])

    def loaded(model: str | None) -> tuple[RerankingModel, str]:
        reranker = services.reranker
        if reranker is None:
            raise Fault(404, "no reranker is loaded; start the server with --reranker NAME", code="no_reranker")
        name = names.shown(reranker.card)
        names.check(model, reranker.card.model, names.reranker_id(services.embedder.card, reranker.card), name)
        return reranker, name

    def score(
        reranker: RerankingModel, query: Item, documents: Sequence[Item], instruction: str | None
    ) -> NDArray[np.float32]:
        with services.metrics.stage("rerank"):
            scores = reranker.score(query, documents, instruction=instruction)
        services.metrics.count_items("rerank", len(documents))
        return scores

    def tokens(parts: Sequence[wire.Part]) -> dict[str, int]:
        number = reading.count_tokens(services.embedder, parts)
        return {"prompt_tokens": number, "total_tokens": number}

    @routes.post("/v2/rerank", response_model=Rerank, responses=wire.errors())
    @routes.post("/v1/rerank", response_model=Rerank, responses=wire.errors())
    async def rerank(request: Request, asked: RerankRequest) -> Response:
        """The documents in order of how well they answer the query."""
        reranker, name = loaded(asked.model)
        reading.check_count(services, len(asked.documents), "documents")
        parts = [asked.query, *asked.documents]

        def answer() -> bytes:
            with reading.blamed(lambda position: f"documents.{position - 1}" if position else "query"):
                query, *documents = reading.items(services, parts)
            with reading.blamed(lambda position: f"documents.{position}", whole="query"):
                scores = score(reranker, query, documents, asked.instruction)
            order = np.argsort(-scores, kind="stable")[: asked.top_n]
            results: list[dict[str, Any]] = [
                {"index": int(place), "relevance_score": float(scores[place])} for place in order
            ]
            if asked.return_documents:
                for result in results:
                    result["document"] = given_back(asked.documents[result["index"]])
            usage = tokens(parts)
            units = {"search_units": 1, "input_tokens": usage["prompt_tokens"]}
            return wire.encoded(
                {
                    "id": str(uuid.uuid4()),
                    "model": name,
                    "results": results,
                    "usage": usage,
                    "meta": {"api_version": {"version": "2"}, "billed_units": units},
                }
            )

        return Response(await services.desk.run(request, answer), media_type="application/json")

    @routes.post("/v1/score", response_model=Scores, responses=wire.errors())
    async def score_pairs(request: Request, asked: ScoreRequest) -> Response:
        """The score of each pair."""
        reranker, name = loaded(asked.model)
        left, right = asked.left, asked.right
        one, other = asked.places
        for number, place in ((len(left), one), (len(right), other)):
            reading.check_count(services, number, place)

        def answer() -> bytes:
            with reading.blamed(
                lambda position: f"{one}.{position}" if position < len(left) else f"{other}.{position - len(left)}"
            ):
                found = reading.items(services, [*left, *right])
            queries, documents = found[: len(left)], found[len(left) :]
            scores: list[float] = []
            if len(queries) == 1:
                with reading.blamed(lambda position: f"{other}.{position}", whole=f"{one}.0"):
                    scores = score(reranker, queries[0], documents, asked.instruction).tolist()
            else:
                for index, (query, document) in enumerate(zip(queries, documents, strict=True)):
                    with reading.blamed(lambda _, index=index: f"{other}.{index}", whole=f"{one}.{index}"):  # type: ignore[misc]
                        scores += score(reranker, query, [document], asked.instruction).tolist()
            return wire.encoded(
                {
                    "id": f"score-{uuid.uuid4()}",
                    "object": "list",
                    "created": int(time.time()),
                    "model": name,
                    "data": [{"index": index, "object": "score", "score": value} for index, value in enumerate(scores)],
                    "usage": tokens([*left, *right]),
                }
            )

        return Response(await services.desk.run(request, answer), media_type="application/json")

    return routes
