"""Puts the application together. A route module owns its paths; it gets ``Services`` and returns a router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import sightline
from sightline.server import (
    embeddings,
    faults,
    files,
    health,
    jobs,
    labels,
    libraries,
    names,
    openapi,
    page,
    ranking,
    searching,
)
from sightline.server.guard import Guard, check_config
from sightline.server.metrics import Counting
from sightline.server.services import Services


def create_app(services: Services) -> FastAPI:
    """The application.

    Args:
        services: closed when the application stops.

    Raises:
        ConfigError: what would stand open to other machines (see ``guard.check_config``).
    """
    check_config(services.settings)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.desk.stop()
        services.close()

    app = FastAPI(
        title="Sightline",
        version=sightline.__version__,
        description="Search in text, images, pages and videos; embeddings and reranks in the shapes that clients know.",
        lifespan=life,
        docs_url=None,  # these two load scripts from another site
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,  # a path is right or it is not there
    )
    faults.install(app)
    openapi.install(app)
    for routes in (embeddings, ranking, names, health):
        app.include_router(routes.router(services))
    for routes in (searching, libraries, files, labels, jobs):
        app.include_router(routes.router(services))
    app.include_router(page.router(services))
    app.add_middleware(Guard, settings=services.settings)  # last, so that it stands around everything
    app.add_middleware(Counting, metrics=services.metrics)  # but for what counts, refusals included
    return app
