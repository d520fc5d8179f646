"""Thumbs up and down: kept in the library's ledger with the query, as JSON lines for a later evaluation."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from sightline.library import Library
from sightline.server import wire
from sightline.server.searching import ItemId, SearchRequest, row_of
from sightline.server.services import Services
from sightline.server.shown import shown


class LabelRequest(wire.Shape):
    """What someone thinks of a hit.

    Attributes:
        query: the request of ``/v1/search`` that found it.
        item: the hit's id.
        value: 1 good, -1 bad, 0 takes it back.
    """

    query: SearchRequest
    item: ItemId
    value: Literal[1, 0, -1]


class LabelAnswer(BaseModel):
    """What is kept now."""

    item: str
    value: int


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/libraries/{id}/labels", tags=["labels"])

    @routes.put("", response_model=LabelAnswer, responses=wire.errors(409))
    async def put(request: Request, id: str, label: Annotated[LabelRequest, Body()]) -> LabelAnswer:
        """Say that a hit is good or bad for a query, or take that back."""

        def keep() -> LabelAnswer:
            library = services.libraries.open(id)
            row = row_of(library, label.item, "item")
            library.labels.put(
                label.query.key(),
                label.query.canonical(),
                row.id,
                label.value,
                path=row.path,
                kind=row.kind,
                page=row.page,
                start_s=row.start_s,
                end_s=row.end_s,
            )
            return LabelAnswer(item=row.id, value=label.value)

        return await services.desk.run(request, keep)

    @routes.get(
        "",
        response_class=Response,
        responses={
            **wire.errors(409),
            200: {
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
                "description": "One JSON object a line: query, item, path, kind, page, start_s, end_s, value, time",
            },
        },
    )
    async def get(request: Request, id: str) -> Response:
        """Everything that was said, as JSON lines."""
        library = await services.desk.run(request, lambda: services.libraries.open(id))
        return StreamingResponse(_lines(library), media_type="application/x-ndjson")

    return routes


def _lines(library: Library) -> Iterator[str]:
    for label in library.labels:
        said = datetime.datetime.fromtimestamp(label.time_s, datetime.UTC)
        line = {
            "query": json.loads(label.query),
            "item": label.item,
            "path": shown(label.path),
            "kind": label.kind,
            "page": label.page,
            "start_s": label.start_s,
            "end_s": label.end_s,
            "value": label.value,
            "time": said.isoformat(timespec="seconds"),
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
