"""Libraries over HTTP: which there are and what is in them; adding files by upload or by path, and taking them out."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from sightline.library import Library, LibraryStats, card_of
from sightline.search.find import absolute, is_under
from sightline.server import wire
from sightline.server.faults import Fault
from sightline.server.files import item_of
from sightline.server.jobs import Job, JobShape
from sightline.server.searching import ItemId
from sightline.server.services import Services
from sightline.server.shelf import ID
from sightline.server.shown import shown
from sightline.server.uploads import Upload
from sightline.settings import Settings
from sightline.store.ledger import FileState
from sightline.store.schema import Value
from sightline.types import Kind

MOST_PATHS: Final = 1_000
MOST_COLUMNS: Final = 64
MOST_LISTED: Final = 10_000
"""Files or failures in one answer."""

PathText = Annotated[str, Field(min_length=1, max_length=4096)]
Columns = Annotated[dict[str, str | int | float | bool], Field(max_length=MOST_COLUMNS)]


class LibraryShape(BaseModel):
    """A library.

    Attributes:
        usable: whether it can be searched with the server's models; ``reason`` says why not.
        path: the folder of its index.
        model: the embedder that it was built with.
    """

    id: str
    usable: bool
    reason: str
    path: str
    model: str


class LibrariesAnswer(BaseModel):
    """Every library, ``default`` first."""

    libraries: list[LibraryShape]


class LibraryAnswer(LibraryShape):
    """A library and what is in it.

    Attributes:
        reranker: the reranker it was made with.
        rows: pages, pictures, moments and passages; ``kinds`` says how many of each.
        files, pending, skipped: files indexed; begun and not finished; not indexed, with a reason.
        bytes: size of the index.
        columns: names and types of the owner's metadata.
        roots: folders that were added.
        uploads: the folder of uploaded files.
    """

    reranker: str
    rows: int
    kinds: dict[str, int]
    files: int
    pending: int
    skipped: int
    bytes: int
    columns: dict[str, str]
    roots: list[str]
    uploads: str


class NewLibrary(wire.Shape):
    """A library to be made: 1 to 63 small letters, digits and dashes."""

    id: Annotated[str, Field(max_length=63, json_schema_extra={"pattern": f"^{ID.pattern}$"})]


class Deleted(BaseModel):
    """What is gone."""

    id: str
    deleted: Literal[True] = True


class FileShape(BaseModel):
    """What became of a file.

    Attributes:
        status: ``done``, ``pending`` (begun and not finished) or ``skipped``, with ``code`` and ``detail``.
        units: what it has in the index.
        modified, updated: when the file was changed, and when this was written; ISO 8601.
    """

    path: str
    status: Literal["pending", "done", "skipped"]
    code: str
    detail: str
    size: int
    modified: str
    units: int
    updated: str
    columns: dict[str, str | int | float | bool]


class FilesAnswer(BaseModel):
    """A part of the files, by path, and how many there are in all."""

    files: list[FileShape]
    total: int


class FailureShape(BaseModel):
    """A file, page or moment that could not be indexed, and why."""

    path: str
    code: str
    detail: str


class FailuresAnswer(BaseModel):
    """A part of the failures, by path, and how many there are in all."""

    failures: list[FailureShape]
    total: int


class ItemAnswer(BaseModel):
    """A row of the index, whole."""

    id: str
    kind: Kind
    title: str
    path: str
    page: int | None
    start_s: float | None
    end_s: float | None
    text: str
    modified: str
    columns: dict[str, str | int | float | bool]


class AddPaths(wire.Shape):
    """Files and folders of the server's machine, and metadata for all of them."""

    paths: Annotated[list[PathText], Field(min_length=1, max_length=MOST_PATHS)]
    columns: Columns | None = None


class AddAnswer(BaseModel):
    """The job that indexes them; ``files`` are the names under which uploads are kept."""

    job: JobShape
    files: list[str] = []


class RemoveItems(wire.Shape):
    """Files, by path (and everything under folders) or by the id of one of their items."""

    paths: Annotated[list[PathText], Field(max_length=MOST_PATHS)] = Field(default_factory=list)
    ids: Annotated[list[ItemId], Field(max_length=MOST_PATHS)] = Field(default_factory=list)


class Removed(BaseModel):
    """Number of files that were taken out."""

    removed: int


BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": AddPaths.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "columns": {"type": "string", "description": "a JSON object: metadata of these files"},
                    },
                }
            },
        },
    }
}
Offset = Annotated[int, Query(ge=0, le=2**31)]
Limit = Annotated[int, Query(ge=1, le=MOST_LISTED)]
_COLUMNS: Final[TypeAdapter[dict[str, Value]]] = TypeAdapter(Columns)


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/libraries", tags=["libraries"])
    shelf, desk = services.libraries, services.desk

    @routes.get("", response_model=LibrariesAnswer, responses=wire.errors())
    async def all_libraries(request: Request) -> LibrariesAnswer:
        """Every library, ``default`` first."""
        return await desk.run(request, lambda: LibrariesAnswer(libraries=[_shape(services, id) for id in shelf.ids()]))

    @routes.post("", response_model=LibraryShape, status_code=201, responses=wire.errors(409))
    async def create(request: Request, asked: NewLibrary) -> LibraryShape:
        """Make an empty library."""

        def make() -> LibraryShape:
            shelf.create(asked.id)
            return _shape(services, asked.id)

        return await desk.run(request, make)

    @routes.get("/{id}", response_model=LibraryAnswer, responses=wire.errors())
    async def one(request: Request, id: str) -> LibraryAnswer:
        """A library and what is in it."""
        return await desk.run(request, lambda: _described(services, id))

    @routes.delete("/{id}", response_model=Deleted, responses=wire.errors(409))
    async def delete(request: Request, id: str) -> Deleted:
        """Delete a library that was made here, with its uploads. Files that were indexed by path stay."""

        def remove() -> Deleted:
            shelf.delete(id, before=lambda: _check_idle(services, id))
            return Deleted(id=id)

        return await desk.run(request, remove)

    @routes.get("/{id}/files", response_model=FilesAnswer, responses=wire.errors(409))
    async def files(
        request: Request,
        id: str,
        status: Literal["pending", "done", "skipped"] | None = None,
        under: Annotated[PathText | None, Query()] = None,
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> FilesAnswer:
        """What became of the files, by path."""

        def look() -> FilesAnswer:
            library = shelf.open(id)
            counts = library.counts(under)
            some = itertools.islice(library.files(status, under), offset, offset + limit)
            total = sum(counts.values()) if status is None else counts[status]
            return FilesAnswer(files=[_file(state) for state in some], total=total)

        return await desk.run(request, look)

    @routes.get("/{id}/failures", response_model=FailuresAnswer, responses=wire.errors(409))
    async def failures(request: Request, id: str, offset: Offset = 0, limit: Limit = 1_000) -> FailuresAnswer:
        """Files, pages and moments that could not be indexed, each with the reason."""

        def look() -> FailuresAnswer:
            found = shelf.open(id).failures()
            some = found[offset : offset + limit]
            shapes = [FailureShape(path=shown(one.path), code=one.code, detail=one.detail) for one in some]
            return FailuresAnswer(failures=shapes, total=len(found))

        return await desk.run(request, look)

    @routes.get("/{id}/items/{item}", response_model=ItemAnswer, responses=wire.errors(409))
    async def item_whole(request: Request, id: str, item: str) -> ItemAnswer:
        """A row of the index, with its whole text and metadata."""
        return await desk.run(request, lambda: _item(services, id, item))

    @routes.post(
        "/{id}/items", response_model=AddAnswer, status_code=202, responses=wire.errors(409, 415), openapi_extra=BODY
    )
    async def add(request: Request, id: str) -> AddAnswer:
        """Index files: uploaded ones (which the server keeps), or paths of its own machine. Answers with the job."""
        await desk.run(request, lambda: _check_writable(services, id))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await _upload(services, request, id)
        if kind != "application/json":
            raise Fault(415, "send paths as application/json, or files as multipart/form-data")
        asked = _read(AddPaths, await request.body())

        def submit() -> Job:
            paths = [_allowed(services.settings, path, place) for place, path in enumerate(asked.paths)]
            shelf.open(id).check_columns(asked.columns)
            return services.jobs.submit(id, paths, asked.columns)

        return AddAnswer(job=(await desk.run(request, submit)).look())

    @routes.delete("/{id}/items", response_model=Removed, responses=wire.errors(409))
    async def remove_items(request: Request, id: str, asked: RemoveItems) -> Removed:
        """Take files out of the index. Originals stay where they are; uploads are deleted."""
        return await desk.run(request, lambda: _remove(services, id, asked))

    return routes


# --- looking ---


def _shape(services: Services, id: str) -> LibraryShape:
    folder = services.libraries.index_folder(id)
    reason = services.libraries.usable(id)
    card = None if reason.endswith("cannot be read") else card_of(folder)
    model = card.model if card else "" if reason else services.embedder.card.model
    return LibraryShape(id=id, usable=not reason, reason=reason, path=shown(os.fspath(folder)), model=model)


def _described(services: Services, id: str) -> LibraryAnswer:
    services.libraries.check(id)
    shape = _shape(services, id)
    if shape.usable:
        stats = services.libraries.open(id).stats()
    else:
        with Library.open(services.libraries.index_folder(id)) as library:
            stats = library.stats()
    return LibraryAnswer(**shape.model_dump(), **_numbers(stats), uploads=shown(os.fspath(_uploads(services, id))))


def _numbers(stats: LibraryStats) -> dict[str, Any]:
    return {
        "reranker": stats.reranker,
        "rows": stats.rows,
        "kinds": dict(stats.kinds),
        "files": stats.files,
        "pending": stats.pending,
        "skipped": stats.skipped,
        "bytes": stats.bytes,
        "columns": dict(stats.columns),
        "roots": [shown(root) for root in stats.roots],
    }


def _file(state: FileState) -> FileShape:
    return FileShape(
        path=shown(state.path),
        status=state.status,
        code=state.code,
        detail=state.detail,
        size=state.size,
        modified=_time(state.mtime_ns / 1e9),
        units=state.units,
        updated=_time(state.updated_s),
        columns=dict(state.columns),
    )


def _item(services: Services, id: str, item: str) -> ItemAnswer:
    _, row = item_of(services, id, item)
    return ItemAnswer(
        id=row.id,
        kind=row.kind,
        title=shown(row.title),
        path=shown(row.path),
        page=row.page,
        start_s=row.start_s,
        end_s=row.end_s,
        text=shown(row.text),
        modified=_time(row.modified_s),
        columns=dict(row.columns),
    )


def _time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601; a file's time may be any number."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""


# --- changing ---


def _check_writable(services: Services, id: str) -> None:
    """Refuse what could not be added, before a body is read."""
    services.libraries.check(id)
    reason = services.libraries.usable(id)
    if reason:
        raise Fault(409, f"the library cannot be used: {reason}", code="other_model")
    services.jobs.check_room()


def _check_idle(services: Services, id: str) -> None:
    if services.jobs.is_busy(id):
        raise Fault(409, "the library is being indexed; cancel its jobs first", code="busy")


def _read(shape: type[AddPaths], body: bytes) -> AddPaths:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None


def _allowed(settings: Settings, path: str, place: int) -> str:
    """A path of a request, absolute.

    Raises:
        Fault: 403, callers may not index from there; 400, it is not a path of a file or folder that is there.
    """
    param = f"paths.{place}"
    roots = [root.strip() for root in settings.serve_roots.split(",") if root.strip()]
    if not roots and settings.serve_keys.strip():
        raise Fault(403, "this server takes uploads only; its owner can set serve_roots", code="paths_off", param=param)
    if "\0" in path or not path.startswith(("/", "~")):
        raise Fault(400, "a path begins with / or ~", code="bad_path", param=param)
    whole = absolute(path)
    # where the path leads in the end, so that no link inside of a root leads out of it
    real = os.path.realpath(whole)
    if roots and not any(is_under(real, os.path.realpath(absolute(root))) for root in roots):
        raise Fault(403, "callers may not index from there", code="path_not_allowed", param=param)
    if not os.path.lexists(real):
        raise Fault(400, "there is no such file or folder", code="no_file", param=param)
    # what was checked is what is walked; without roots a link that the owner names is kept as it is named
    return real if roots else whole


async def _upload(services: Services, request: Request, id: str) -> AddAnswer:
    upload = Upload(_uploads(services, id), request.headers["content-type"])
    try:
        async for chunk in request.stream():
            if chunk:
                await asyncio.to_thread(upload.feed, chunk)

        def submit() -> tuple[list[str], Job]:
            columns = _columns_of(upload)
            services.libraries.open(id).check_columns(columns)
            paths = upload.keep()
            return paths, services.jobs.submit(id, paths, columns)

        paths, job = await services.desk.run(request, submit)
    except ClientDisconnect:
        raise Fault(499, "the caller has gone") from None
    finally:
        await asyncio.to_thread(upload.close)
    return AddAnswer(job=job.look(), files=[Path(path).name for path in paths])


def _columns_of(upload: Upload) -> dict[str, Value] | None:
    """The columns of a form."""
    given = upload.columns()
    try:
        return None if given is None else _COLUMNS.validate_python(given, strict=True)
    except ValidationError:
        detail = "columns must be a JSON object of texts, numbers, true and false"
        raise Fault(400, detail, code="bad_columns", param="columns") from None


def _uploads(services: Services, id: str) -> Path:
    return services.libraries.files_folder(id)


def _remove(services: Services, id: str, asked: RemoveItems) -> Removed:
    if not (asked.paths or asked.ids):
        raise Fault(400, "say what to remove: paths or ids", param="paths")
    for place, path in enumerate(asked.paths):
        if "\0" in path or not path.startswith(("/", "~")):
            raise Fault(400, "a path begins with / or ~", code="bad_path", param=f"paths.{place}")
    _check_idle(services, id)
    library = services.libraries.open(id)
    paths = [absolute(path) for path in asked.paths]
    for place, item in enumerate(asked.ids):
        row = library.row(item)
        if row is None:
            raise Fault(404, "the library has no such item", code="no_item", param=f"ids.{place}")
        paths.append(row.path)
    kept = os.fspath(_uploads(services, id))
    uploads = [state.path for path in paths for state in library.files(under=path) if is_under(state.path, kept)]
    removed = services.libraries.writer(id).remove(paths)
    for path in uploads:
        Path(path).unlink(missing_ok=True)
    return Removed(removed=removed)
