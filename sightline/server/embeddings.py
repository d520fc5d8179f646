"""Vectors over HTTP: ``/v1/embeddings`` as OpenAI, Jina and vLLM shape it, ``/v2/embed`` as Cohere does.

What the forms of a vector are (``sightline.vectors`` defines them):

==================== ==================================================================================
float                numbers, length 1
base64               the same as little-endian float32, as OpenAI's client decodes it
int8                 whole numbers from -127 to 127: round(127 x / max|x|) of that vector; compare by cosine
binary               ``encoding_format``: E / 8 whole numbers from 0 to 255, eight signs each, most significant first
ubinary              the same
binary (signed)      ``embedding_type`` of Jina and ``embedding_types`` of Cohere: ubinary - 128, as those publish it
uint8                Cohere's: int8 + 128; take 128 away before comparing
==================== ==================================================================================
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sightline.server import names, reading, wire
from sightline.server.faults import Fault
from sightline.server.services import Services
from sightline.vectors import MIN_DIM, convert

Form: TypeAlias = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]
"""How a vector is written; ``binary`` here is the signed one of Jina and Cohere."""

Lines: TypeAlias = Annotated[list[wire.Text], Field(max_length=wire.MOST_ITEMS, fail_fast=True)]

FIXED: Final = "accepted for clients that send it; has no effect"


class EmbeddingsRequest(wire.Shape):
    """Items to embed: ``input``, or ``messages``.

    Attributes:
        input: one item or a list.
        messages: a conversation as one item, or a list of conversations; its user's content is embedded.
        model: None takes what is loaded.
        dimensions: width, cut as the model was trained to be cut.
        encoding_format: how vectors are written; Sightline adds int8 and binary to OpenAI's two.
        embedding_type: Jina's name for the same; its binary is signed.
        instruction: what the vectors are for, in English; None takes the model's default.
        normalized: vectors always have length 1.
    """

    input: wire.ItemParts | None = None
    messages: wire.Conversations | None = None
    model: str | None = None
    dimensions: int | None = Field(default=None, ge=1)
    encoding_format: Literal["float", "base64", "int8", "binary", "ubinary"] | None = Field(
        default=None,
        description=(
            "float: numbers. base64: little-endian float32. int8: round(127 x / max|x|) of each vector, compare by"
            " cosine. binary and ubinary: the signs, eight in a number from 0 to 255, most significant first."
        ),
    )
    embedding_type: Literal["float", "base64", "binary", "ubinary"] | None = Field(
        default=None, description="as encoding_format, but binary is ubinary - 128, as Jina publishes it"
    )
    instruction: str | None = None
    normalized: Literal[True] | None = None
    user: str | None = Field(default=None, description=FIXED)
    task: str | None = Field(default=None, description=FIXED)
    truncate: bool | None = Field(default=None, description="text over the model's length is always cut at its end")
    late_chunking: Literal[False] | None = None
    return_multivector: Literal[False] | None = None
    add_special_tokens: bool | None = Field(default=None, description=FIXED)
    add_generation_prompt: bool | None = Field(default=None, description=FIXED)
    continue_final_message: bool | None = Field(default=None, description=FIXED)

    @model_validator(mode="after")
    def _one_of_each(self) -> EmbeddingsRequest:
        if (self.input is None) == (self.messages is None):
            raise PydanticCustomError("input", "give input or messages, and only one of them")
        if self.encoding_format is not None and self.embedding_type is not None:
            raise PydanticCustomError("form", "encoding_format and embedding_type say the same; give one of them")
        return self

    @property
    def form(self) -> Form:
        """How the vectors shall be written."""
        if self.embedding_type is not None:
            return self.embedding_type
        if self.encoding_format == "binary":
            return "ubinary"
        return self.encoding_format or "float"


class Embedding(wire.Answer):
    """One vector: numbers, or a string for base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | list[int] | str


class Embeddings(wire.Answer):
    """Vectors in the order of the items."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: wire.Usage


class CohereRequest(wire.Shape):
    """Cohere's request: texts, images, or inputs that mix them."""

    model: str | None = None
    input_type: str | None = Field(default=None, description=FIXED)
    texts: Lines | None = None
    images: Lines | None = None
    inputs: wire.Items | None = None
    output_dimension: int | None = Field(default=None, ge=1)
    embedding_types: list[Form] = Field(
        default=["float"],
        min_length=1,
        max_length=16,
        description="int8 and ubinary as in /v1/embeddings; uint8 is int8 + 128, binary is ubinary - 128",
    )
    truncate: Literal["END"] | None = None
    max_tokens: int | None = Field(default=None, description=FIXED)
    priority: int | None = Field(default=None, description=FIXED)

    @model_validator(mode="after")
    def _one_of_three(self) -> CohereRequest:
        if sum(bool(given) for given in (self.texts, self.images, self.inputs)) != 1:
            raise PydanticCustomError("input", "give one of texts, images and inputs, with something in it")
        return self

    @property
    def parts(self) -> list[wire.Part]:
        """The items."""
        if self.texts:
            return [wire.Part(text=[text]) for text in self.texts]
        if self.images:
            return [wire.Part(image=[image]) for image in self.images]
        return self.inputs or []

    @property
    def place(self) -> str:
        """The key that the items are under."""
        return "texts" if self.texts else "images" if self.images else "inputs"


class CohereVectors(wire.Answer):
    """Lists of vectors by form; only those asked for are there."""

    float_: list[list[float]] | None = Field(default=None, alias="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class CohereEmbeddings(wire.Answer):
    """Cohere's answer."""

    id: str
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"
    embeddings: CohereVectors
    texts: list[str]
    meta: wire.Meta


def written(vectors: NDArray[np.float32], form: Form) -> list[Any]:
    """Vectors (N, E) as JSON has them, one entry each.

    Raises:
        ConfigError: signs of a width that is no multiple of 8.
    """
    if form == "base64":
        return [base64.b64encode(row.tobytes()).decode("ascii") for row in vectors.astype("<f4")]
    values: NDArray[Any] = vectors
    if form in {"int8", "uint8"}:
        values = convert(vectors, "int8").astype(np.int16) + (128 if form == "uint8" else 0)
    elif form in {"binary", "ubinary"}:
        values = convert(vectors, "binary").astype(np.int16) - (128 if form == "binary" else 0)
    rows: list[list[Any]] = values.tolist()
    return rows


def check_dim(dim: int | None, full: int, forms: Sequence[Form], param: str) -> None:
    """Refuse a width before anything is decoded.

    Raises:
        Fault: 400.
    """
    low = min(MIN_DIM, full)
    if dim is not None and not low <= dim <= full:
        raise Fault(400, f"{param} must be from {low} to {full}", param=param, code="dimensions")
    if (dim or full) % 8 and {"binary", "ubinary"} & set(forms):
        raise Fault(400, f"signs are packed by eight: {param} must be a multiple of 8", param=param, code="dimensions")


def router(services: Services) -> APIRouter:
    """``/v1/embeddings`` and ``/v2/embed``."""
    routes = APIRouter(tags=["embeddings"])
    card = services.embedder.card
    name = names.shown(card)

    def work(parts: list[wire.Part], place: str, dim: int | None, instruction: str | None) -> NDArray[np.float32]:
        with reading.blamed(lambda position: f"{place}.{position}"):
            items = reading.items(services, parts)
            with services.metrics.stage("embed"):
                vectors = services.embedder.embed(items, instruction=instruction, dim=dim)
        services.metrics.count_items("embed", len(items))
        return vectors

    @routes.post("/v1/embeddings", response_model=Embeddings, responses=wire.errors())
    async def embeddings(request: Request, asked: EmbeddingsRequest) -> Response:
        """Vectors of texts, pictures, videos, or mixes of them."""
        names.check(asked.model, card.model, name)
        check_dim(asked.dimensions, card.dim, [asked.form], "dimensions")
        place = "input" if asked.messages is None else "messages"
        parts = asked.input or asked.messages or []
        reading.check_count(services, len(parts), place)

        def answer() -> bytes:
            vectors = work(parts, place, asked.dimensions, asked.instruction)
            rows = written(vectors, asked.form)
            tokens = reading.count_tokens(services.embedder, parts)
            return wire.encoded(
                {
                    "object": "list",
                    "data": [
                        {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)
                    ],
                    "model": name,
                    "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                }
            )

        return Response(await services.desk.run(request, answer), media_type="application/json")

    @routes.post("/v2/embed", response_model=CohereEmbeddings, responses=wire.errors())
    async def embed(request: Request, asked: CohereRequest) -> Response:
        """The same in Cohere's shape."""
        names.check(asked.model, card.model, name)
        check_dim(asked.output_dimension, card.dim, asked.embedding_types, "output_dimension")
        parts = asked.parts
        reading.check_count(services, len(parts), asked.place)

        def answer() -> bytes:
            vectors = work(parts, asked.place, asked.output_dimension, None)
            return wire.encoded(
                {
                    "id": str(uuid.uuid4()),
                    "response_type": "embeddings_by_type",
                    "embeddings": {form: written(vectors, form) for form in asked.embedding_types},
                    "texts": asked.texts or [],
                    "meta": {
                        "api_version": {"version": "2"},
                        "billed_units": {"input_tokens": reading.count_tokens(services.embedder, parts)},
                    },
                }
            )

        return Response(await services.desk.run(request, answer), media_type="application/json")

    return routes
