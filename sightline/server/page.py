"""The page at ``/``: one template and a handful of small files, all of this package; nothing is loaded from elsewhere.

The page talks to the same routes as every other client. Whatever it shows of files is set as text, never as HTML.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

import sightline
from sightline.server.faults import Fault
from sightline.server.services import Services

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types of what ``/static`` serves; nothing else in the folder is served."""
QUERY_SHOWN: Final = 2_000
"""Characters of a query from the address that are written into the page; the script reads the rest itself."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page.

    Attributes:
        content: its bytes.
        media_type: for the browser.
        etag: of the content, in quotes.
    """

    content: bytes
    media_type: str
    etag: str


def router(services: Services) -> APIRouter:
    """The page and its files."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def index(q: str = "") -> HTMLResponse:
        # the address is all that the page depends on, but who may see it can change: it is never kept
        html = _render("index.html", q=q[:QUERY_SHOWN], max_bytes=services.settings.serve_max_bytes)
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    @routes.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        asset = assets().get(name)
        if asset is None:
            raise Fault(404)
        headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    return routes


def login_page(wrong: bool = False) -> str:
    """The page that asks for a key; ``wrong`` says that the last one did not fit."""
    return _render("login.html", wrong=wrong)


@cache
def assets() -> dict[str, Asset]:
    """The files under ``/static`` by name, read once."""
    found = {}
    for file in (files("sightline.server") / "page").iterdir():
        media_type = TYPES.get("." + file.name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            found[file.name] = Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("sightline.server", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(name: str, **values: object) -> str:
    return _templates().get_template(name).render(version=sightline.__version__, **values)
