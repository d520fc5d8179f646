"""What clients call the models: ``GET /v1/models``, and the ``model`` of a request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from fastapi import APIRouter

from sightline.server import wire
from sightline.server.faults import Fault
from sightline.server.services import Services
from sightline.types import ModelCard


class Model(wire.Answer):
    """A model that is loaded.

    Attributes:
        id: what to write as ``model``.
        created: when the server was started, seconds since 1970.
        task: what it does.
        dim: width of its vectors, 0 for a reranker.
        max_length: tokens it reads of an item; over-long text is cut at its end.
        instruction: used where a request has none.
        fingerprint: of the weights; vectors of one fingerprint may stand in one index.
        sightline: everything that decides a vector or a score, for ``sightline.remote``.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["sightline"] = "sightline"
    task: Literal["embed", "rerank"]
    dim: int
    max_length: int
    instruction: str
    fingerprint: str
    sightline: dict[str, str | int | float]


class Models(wire.Answer):
    """Every model that is loaded."""

    object: Literal["list"] = "list"
    data: list[Model]


def shown(card: ModelCard) -> str:
    """A model's name for callers: of a folder only the last part, because they need not know where it is.

    >>> from sightline.testing import toy_card
    >>> shown(toy_card("/home/ada/models/mine")), shown(toy_card("Qwen/Qwen3-VL-Embedding-2B"))
    ('mine', 'Qwen/Qwen3-VL-Embedding-2B')
    """
    name = card.model
    if name.startswith((".", "~")) or Path(name).is_absolute():
        return Path(name).name
    return name


def reranker_id(embedder: ModelCard, reranker: ModelCard) -> str:
    """The reranker's name in the list, where no two are the same: both built-in models are called ``builtin``."""
    name = shown(reranker)
    return f"{name}-reranker" if name == shown(embedder) else name


def check(model: str | None, *known: str) -> None:
    """Refuse a model that is not loaded, so that nobody gets the vectors of another one.

    Args:
        model: as a request names it; None and ``default`` take what is loaded.
        known: names of what is loaded; the last part of a path will do too.

    Raises:
        Fault: 404 ``model_not_found``, as OpenAI does it.
    """
    names = {"default", *known, *(name.rsplit("/", 1)[-1].rsplit(":", 1)[-1] for name in known)}
    if model is not None and model not in names:
        raise Fault(
            404,
            f"this model is not loaded here; loaded is {known[-1]}",
            code="model_not_found",
            param="model",
        )


def router(services: Services) -> APIRouter:
    """``/v1/models``."""
    routes = APIRouter(tags=["models"])
    started = int(time.time())
    cards: list[tuple[str, Literal["embed", "rerank"], ModelCard]] = [
        (shown(services.embedder.card), "embed", services.embedder.card)
    ]
    if services.reranker is not None:
        card = services.reranker.card
        cards.append((reranker_id(services.embedder.card, card), "rerank", card))
    models = [
        Model(
            id=name,
            created=started,
            task=task,
            dim=card.dim,
            max_length=card.max_length,
            instruction=card.instruction,
            fingerprint=card.fingerprint,
            sightline={**card.as_dict(), "model": name},
        )
        for name, task, card in cards
    ]

    @routes.get("/v1/models", responses=wire.errors())
    async def list_models() -> Models:
        """The models that are loaded."""
        return Models(data=models)

    @routes.get("/v1/models/{model:path}", responses=wire.errors())
    async def get_model(model: str) -> Model:
        """One of them."""
        for one in models:
            if one.id == model:
                return one
        raise Fault(404, "this model is not loaded here", code="model_not_found", param="model")

    return routes
