"""Pictures of hits, and the files themselves, by the id of an item of the index.

- A thumbnail or preview is what the decoder's process made of the page, picture or moment, encoded anew as JPEG: no
  byte of the original, and none of its metadata, reaches the browser.
- The file itself is offered as a download under its name. Only videos are shown in place, with the type that their
  bytes have and in ranges, so that a player can jump; a page that plays a moment adds ``#t=start,end`` itself.
- Nothing is served that the index does not list as it stands on disk (see ``originals``).
"""

from __future__ import annotations

import re
import threading
import unicodedata
import urllib.parse
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import PurePath
from typing import IO, Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sightline.errors import MediaError
from sightline.library import Library
from sightline.media import image
from sightline.media.sniff import HEAD_BYTES, Sniffed, sniff
from sightline.server import wire
from sightline.server.faults import Fault
from sightline.server.originals import open_original, reopen
from sightline.server.ranges import one_range
from sightline.server.searching import row_of
from sightline.server.services import Services
from sightline.store.schema import Row
from sightline.types import Pixels, Unit

THUMBNAIL_SIDE: Final = 320
PREVIEW_SIDE: Final = 1600
LEAST_SIDE: Final = 16
MOST_SIDE: Final = 2400
"""Pixels of the longer side."""
CACHE_BYTES: Final = 64 * 2**20
"""Encoded pictures kept in memory: about 3,000 thumbnails."""
CHUNK_BYTES: Final = 256 * 1024
"""Bytes of a file read and sent at a time."""
KEPT: Final = "private, max-age=0, must-revalidate"
"""A browser asks each time, and is told 304: a key taken back or a file changed counts at once."""

VIDEO_TYPES: Final = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "matroska": "video/x-matroska",
    "ogg": "video/ogg",
    "avi": "video/x-msvideo",
    "mpegts": "video/mp2t",
    "flv": "video/x-flv",
}
"""By the format that the bytes have; anything else is a download."""
WEBM_BYTES: Final = 64
"""Within the first bytes a Matroska file says whether it is of the kind that browsers play."""
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Pictures:
    """Encoded pictures by what they are of; the ones used least go when there are too many bytes."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def get(self, tag: str) -> bytes | None:
        """The picture, or None."""
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
            return self._kept.get(tag)

    def put(self, tag: str, data: bytes) -> None:
        """Keep a picture."""
        with self._lock:
            self._num_bytes += len(data) - len(self._kept.pop(tag, b""))
            self._kept[tag] = data
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])

    @property
    def num_bytes(self) -> int:
        """Bytes kept."""
        return self._num_bytes


Side = Annotated[int, Query(ge=LEAST_SIDE, le=MOST_SIDE, description="pixels of the longer side")]
PICTURE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "A JPEG"},
    304: {"description": "The picture that the caller has is still good"},
}
FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
          "description": "The file: a video in its own type, anything else as a download"},
    206: {"description": "The part that was asked for"},
    304: {"description": "The file that the caller has is still good"},
}  # fmt: skip


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/libraries/{id}/items/{item}", tags=["items"])
    pictures = Pictures()

    async def picture(request: Request, id: str, item: str, side: int, part: str) -> Response:
        return await services.desk.run(request, lambda: _picture(services, pictures, request, id, item, side, part))

    @routes.get("/thumbnail", response_class=Response, responses={**wire.errors(409), **PICTURE})
    async def thumbnail(request: Request, id: str, item: str, size: Side = THUMBNAIL_SIDE) -> Response:
        """A small picture of an item: the picture, the page, or the middle frame of a moment."""
        return await picture(request, id, item, size, "middle")

    @routes.get("/preview", response_class=Response, responses={**wire.errors(409), **PICTURE})
    async def preview(request: Request, id: str, item: str, size: Side = PREVIEW_SIDE) -> Response:
        """A large picture of an item: the picture, the page, or the first frame of a moment."""
        return await picture(request, id, item, size, "first")

    @routes.get("/media", response_class=Response, responses={**wire.errors(409, 416), **FILE})
    async def media(request: Request, id: str, item: str) -> Response:
        """The file that an item is of: a video to be played, in ranges; anything else as a download."""
        return await services.desk.run(request, lambda: _media(services, request, id, item))

    return routes


def item_of(services: Services, id: str, item: str) -> tuple[Library, Row]:
    """A library and one of its rows.

    Raises:
        Fault: 404, there is no such library or item.
    """
    library = services.libraries.open(id)
    if not _ID.fullmatch(item):
        raise Fault(404, "the library has no such item", code="no_item")
    return library, row_of(library, item)


def _picture(
    services: Services, pictures: Pictures, request: Request, id: str, item: str, side: int, part: str
) -> Response:
    library, row = item_of(services, id, item)
    if row.kind == "text":
        raise Fault(404, "a passage of text has no picture", code="no_picture")
    with open_original(library, row.path) as (_, state):
        tag = f'"{row.id}-{state.content_hash[:16]}-{part}-{side}"'
        if _has(request, tag):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": KEPT})
        data = pictures.get(tag)
        if data is None:
            try:
                unit = library.unit(row)
            except MediaError as error:
                raise Fault(404, f"no picture can be made of it: {error.detail}", code=error.code) from None
            data = image.encode_jpeg(_pixels(unit, part), side)
            pictures.put(tag, data)
    return Response(data, media_type="image/jpeg", headers={"ETag": tag, "Cache-Control": KEPT})


def _pixels(unit: Unit, part: str) -> Pixels:
    if unit.pixels is not None:
        return unit.pixels
    if unit.frames is None or not len(unit.frames.frames):
        raise Fault(404, "it has no picture", code="no_picture")
    frames = unit.frames.frames
    found: Pixels = frames[len(frames) // 2 if part == "middle" else 0]
    return found


def _has(request: Request, tag: str) -> bool:
    """Whether the caller has this picture or file already."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in given.split(",")[:64])


def _media(services: Services, request: Request, id: str, item: str) -> Response:
    library, row = item_of(services, id, item)
    file = reopen(library, row.path)
    try:
        state = library.file(row.path)
        assert state is not None
        size = state.size
        tag = f'"{state.content_hash[:32]}"'
        head = file.read(HEAD_BYTES)
        kind = _video_type(head, row.path, size)
        headers = {
            "ETag": tag,
            "Cache-Control": KEPT,
            "Accept-Ranges": "bytes" if kind else "none",
            "Content-Disposition": disposition(row.path, inline=kind is not None),
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        }
        if _has(request, tag):
            file.close()
            return Response(status_code=304, headers=headers)
        span = _span(request, size, tag) if kind else None
        start, end = span or (0, size)
        headers["Content-Length"] = str(end - start)
        if span:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        file.seek(start)
        parts = _parts(file, end - start)
        media_type = kind or "application/octet-stream"
        return _Sent(file, parts, 206 if span else 200, headers=headers, media_type=media_type)
    except BaseException:  # whatever it was, the file is closed and the error goes on
        file.close()
        raise


class _Sent(StreamingResponse):
    """Closes its file however it ends: of a caller who left early, the reading never starts or this is never sent."""

    def __init__(self, file: IO[bytes], parts: Iterator[bytes], status: int, **options: Any) -> None:
        super().__init__(parts, status, **options)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    def __del__(self) -> None:
        self._file.close()


def _parts(file: IO[bytes], num_bytes: int) -> Iterator[bytes]:
    with file:
        while num_bytes > 0 and (part := file.read(min(num_bytes, CHUNK_BYTES))):
            num_bytes -= len(part)
            yield part


def _video_type(head: bytes, path: str, size: int) -> str | None:
    """The type of a video that a browser may be given to play, by its bytes; None for anything else."""
    try:
        found: Sniffed = sniff(head, name=PurePath(path).name, whole=size <= len(head))
    except MediaError:
        return None
    if found.format == "matroska" and b"webm" in head[:WEBM_BYTES]:
        return "video/webm"
    return VIDEO_TYPES.get(found.format) if found.kind == "video" else None


def _span(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """The bytes [start, end) that are asked for; None for all. A caller whose file is another one gets all of it."""
    only_if = request.headers.get("if-range")
    return one_range(request.headers.get("range"), size) if only_if in {None, tag} else None


def disposition(path: str, *, inline: bool) -> str:
    r"""The Content-Disposition of a file: its name without anything that could end the header or the name.

    >>> disposition('/a/b"c\n.pdf', inline=False)
    'attachment; filename="b_c_.pdf"; filename*=UTF-8\'\'b%22c_.pdf'
    """
    name = PurePath(path).name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    name = "".join("_" if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} else char for char in name)
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", name)[:200] or "file"
    coded = urllib.parse.quote(name, safe="")
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{coded}"
