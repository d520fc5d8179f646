"""Whether the server lives (``/health``), whether it can answer (``/ready``), and what it counted (``/metrics``)."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from fastapi import APIRouter, Response

from sightline.errors import StoreError
from sightline.library import is_index
from sightline.server import metrics, names, wire
from sightline.server.faults import Fault
from sightline.server.services import Services
from sightline.server.shelf import DEFAULT

logger = logging.getLogger(__name__)


class Health(wire.Answer):
    """The process runs, and so does the thread of its models, or it is about to."""

    status: Literal["ok"] = "ok"


class Ready(wire.Answer):
    """Requests will be answered."""

    status: Literal["ready"] = "ready"
    embedder: str
    reranker: str | None


def router(services: Services) -> APIRouter:
    """``/health``, ``/ready`` and ``/metrics``."""
    routes = APIRouter(tags=["health"])

    def check_alive() -> None:
        if services.desk.stopping:
            raise Fault(503, retry_s=5)
        if not services.metrics.engine_alive:
            raise Fault(503, "the models have stopped working; start the server anew", code="models_dead")

    def check_running() -> None:
        if not services.metrics.engine_running:
            raise Fault(503, "the models start again after an error", code="models_restart", retry_s=1)

    def check_library() -> None:
        libraries = services.libraries
        reason = libraries.usable(DEFAULT)
        if reason:
            raise Fault(503, f"the default library cannot be used: {reason}", code="library")
        if is_index(libraries.index_folder(DEFAULT)):
            libraries.open(DEFAULT)

    @routes.get("/health", responses=wire.errors())
    async def health() -> Health:
        """Whether the server lives. Asks for no key and says nothing else."""
        check_alive()
        return Health()

    @routes.get("/ready", responses=wire.errors())
    async def ready() -> Ready:
        """Whether searches will be answered: the models are loaded, and the default library can be opened."""
        check_alive()
        check_running()
        try:
            await asyncio.to_thread(check_library)  # not at the desk: a busy server is ready
        except StoreError as error:
            logger.warning("the default library cannot be opened", exc_info=error)
            raise Fault(503, "the default library cannot be opened", code="library") from None
        reranker = services.reranker
        return Ready(
            embedder=names.shown(services.embedder.card),
            reranker=None if reranker is None else names.shown(reranker.card),
        )

    @routes.get(
        "/metrics",
        response_class=Response,
        responses=wire.errors() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def counted() -> Response:
        """What was counted, in Prometheus' text format."""
        return Response(services.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    return routes
