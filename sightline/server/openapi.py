"""The description of the interface at ``/openapi.json``, of which ``docs/openapi.json`` is a copy."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sightline.server import wire

OPEN: Final = frozenset({"/health"})
"""Described paths that ask for no key."""
DROPPED: Final = frozenset({"HTTPValidationError", "ValidationError"})
"""FastAPI's own shape of errors, which never leaves this server."""
LINKS: Final[tuple[tuple[tuple[str, str, str], str, tuple[tuple[str, str], ...]], ...]] = (
    (("post", "/v1/libraries", "201"), "$response.body#/id", (
        ("get", "/v1/libraries/{id}"),
        ("delete", "/v1/libraries/{id}"),
        ("get", "/v1/libraries/{id}/files"),
        ("get", "/v1/libraries/{id}/failures"),
        ("post", "/v1/libraries/{id}/items"),
        ("delete", "/v1/libraries/{id}/items"),
    )),
    (("post", "/v1/libraries/{id}/items", "202"), "$response.body#/job/id", (
        ("get", "/v1/jobs/{job}"),
        ("delete", "/v1/jobs/{job}"),
        ("get", "/v1/jobs/{job}/events"),
    )),
    (("post", "/v1/search", "200"), "$response.body#/hits/0/id", (
        ("get", "/v1/libraries/{id}/items/{item}"),
        ("get", "/v1/libraries/{id}/items/{item}/thumbnail"),
        ("get", "/v1/libraries/{id}/items/{item}/preview"),
        ("get", "/v1/libraries/{id}/items/{item}/media"),
    )),
)  # fmt: skip
"""What an answer leads to: (the operation and its status), where the name of the new thing is, the operations that
take it as the last part of their path that is free."""
LIBRARY_OF_HIT: Final = "$response.body#/library"


def install(app: FastAPI) -> None:
    """Describe the application as it is: every error in the one shape, a key on every path but the open ones."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def described(app: FastAPI) -> dict[str, Any]:
    """The description, made anew."""
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in DROPPED:
        schemas.pop(name, None)
    for kind in (wire.ErrorAnswer, wire.ErrorObject):
        schemas[kind.__name__] = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas[kind.__name__].pop("$defs", None)
    found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["components"]["responses"] = {str(status): _error(status) for status in wire.MEANINGS}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            if path not in OPEN:
                operation["security"] = [{"key": []}]
            responses = operation["responses"]
            responses.pop("422", None)
            told = {status for status in responses if status.isdigit() and int(status) in wire.MEANINGS}
            for status in told | {str(status) for status in wire.ANYWHERE}:
                responses[status] = {"$ref": f"#/components/responses/{status}"}
    _link(found["paths"])
    return found


def _link(paths: dict[str, Any]) -> None:
    """Say which operations go on from an answer."""
    for (method, path, status), value, targets in LINKS:
        links = paths[path][method]["responses"][status].setdefault("links", {})
        for to_method, to_path in targets:
            target = paths[to_path][to_method]
            names = [part[1:-1] for part in to_path.split("/") if part.startswith("{")]
            given = {names[-1]: value} | dict.fromkeys(names[:-1], LIBRARY_OF_HIT)
            links[f"{to_method}_{to_path.rsplit('/', 1)[-1].strip('{}')}"] = {
                "operationId": target["operationId"],
                "parameters": given,
            }


def _error(status: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{wire.ErrorAnswer.__name__}"}
    found: dict[str, Any] = {
        "description": wire.MEANINGS[status],
        "content": {"application/json": {"schema": schema}},
    }
    if status == 429:
        found["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return found
