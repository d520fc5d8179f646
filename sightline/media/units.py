"""One file becomes its units: a picture, pages, moments of a video, pieces of text.

The file is recognised by its bytes. A page or a moment that fails is a ``UnitError`` among the others; a file that
fails as a whole raises ``MediaError``. What a limit leaves out is said by a last ``UnitError`` (``too_large``).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from sightline.errors import MEDIA_CODES, MediaError
from sightline.media import image, text
from sightline.media.source import Opened, local_path, open_descriptor, open_source
from sightline.settings import Settings
from sightline.types import Kind, PathLike, Unit, VideoFrames

IMAGE_PIXELS: Final = 16_777_216
"""Pixels of a picture a ``Unit`` carries: nine times the models' budget. Bigger ones are scaled down to it, so that
a batch of them fits into memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitError:
    """A page or a moment that cannot be read, or what a limit left out; the rest of the file goes on.

    Attributes:
        code: a key of ``MEDIA_CODES``.
        detail: a short sentence.
        page: page number from 1, for pages.
        start_s: start in seconds, for moments.
    """

    code: str
    detail: str = ""
    page: int | None = None
    start_s: float | None = None

    def __post_init__(self) -> None:
        if not self.detail:
            object.__setattr__(self, "detail", MEDIA_CODES.get(self.code, self.code))


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """How a decoder's process gets a file.

    Attributes:
        descriptor: the file, already open; None opens it by its name.
        first_page: page of a PDF to begin with: those before it were given by another process.
        on_pages: called when a PDF is open, and its pages are what comes next.
        copied: whether pixels are copied on at once, so that those of a picture may be read-only.
        canvas: gives memory for the pixels of a page, which are good until the next is asked for; see ``pdf.open_pdf``.
    """

    descriptor: int | None = None
    first_page: int = 1
    on_pages: Callable[[], None] = lambda: None
    copied: bool = False
    canvas: Callable[[int], memoryview | None] = lambda _: None


BY_NAME: Final = Handed()


def _open(path: str, handed: Handed, settings: Settings) -> AbstractContextManager[Opened]:
    if handed.descriptor is None:
        return open_source(path, settings)
    return open_descriptor(handed.descriptor, PurePath(path).name, settings)


def short_title(path: PathLike) -> str:
    r"""A file's name without suffix, fit for people: normalised, on one line, without control characters.

    >>> short_title("/a/red\nbike.jpg")
    'red bike'
    """
    stem = PurePath(os.fsdecode(path)).stem.encode("utf-8", "replace").decode("utf-8")
    plain = (
        " " if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} else char
        for char in unicodedata.normalize("NFC", stem)
    )
    return " ".join("".join(plain).split())[:200]


def units(path: PathLike, settings: Settings, handed: Handed = BY_NAME) -> Iterator[Unit | UnitError]:
    """The units of one file, in order, each made when it is asked for.

    Raises:
        MediaError: when the file as a whole cannot be read.
    """
    path = local_path(path)
    with _open(path, handed, settings) as opened:
        title = short_title(path)
        kind = opened.sniffed.kind
        if kind == "image":
            yield _image(opened, title, settings, handed)
        elif kind == "text":
            yield from _texts(opened, title)
        elif kind == "pdf":
            yield from _pages(opened, title, settings, handed)
        else:
            yield from _moments(opened, title, settings)


def unit(
    path: PathLike,
    kind: Kind,
    page: int | None,
    start_s: float | None,
    end_s: float | None,
    settings: Settings,
    handed: Handed = BY_NAME,
) -> Unit:
    """One image, page or moment read again, as ``units`` gave it.

    Raises:
        MediaError: when it cannot be read, or the file is no longer of this kind (``changed``).
    """
    path = local_path(path)
    title = short_title(path)
    with _open(path, handed, settings) as opened:
        found = opened.sniffed.kind
        if kind == "image" and found == "image":
            return _image(opened, title, settings, handed)
        if kind == "page" and found == "pdf" and page is not None:
            return _page(opened, title, page, settings, handed)
        if kind == "moment" and found == "video" and start_s is not None and end_s is not None:
            return _moment(opened, title, start_s, end_s, settings)
    raise MediaError("changed", "the file is not of the kind it was")


def _image(opened: Opened, title: str, settings: Settings, handed: Handed) -> Unit:
    pixels = image.decode_file(opened.file, opened.sniffed.format, settings, writable=not handed.copied)
    return Unit(kind="image", title=title, pixels=image.shrink(pixels, IMAGE_PIXELS))


def _texts(opened: Opened, title: str) -> Iterator[Unit | UnitError]:
    chunks = text.decode_stream(opened.file, opened.sniffed.encoding)
    pieces = text.blocks(chunks, opened.sniffed.format, title=title)  # type: ignore[arg-type]
    empty = True
    for group in text.groups(pieces):
        empty = False
        yield Unit(kind="text", title=group.title, text=group.text)
    if empty:
        raise MediaError("empty", "the file holds no words")


def _pages(opened: Opened, title: str, settings: Settings, handed: Handed) -> Iterator[Unit | UnitError]:
    from sightline.media.pdf import open_pdf

    with open_pdf(opened.file, handed.canvas) as document:
        title = document.title or title
        last = min(document.num_pages, settings.pdf_max_pages)
        handed.on_pages()
        for number in range(handed.first_page, last + 1):
            try:
                page = document.page(number, settings)
            except MediaError as error:
                yield UnitError(code=error.code, detail=error.detail, page=number)
            except MemoryError:
                yield UnitError(code="memory", page=number)
            else:
                yield Unit(kind="page", page=number, title=f"{title} p. {number}", text=page.text, pixels=page.pixels)
        if last < document.num_pages:
            detail = f"pages {last + 1} to {document.num_pages} were not read"
            yield UnitError(code="too_large", detail=detail, page=last + 1)


def _page(opened: Opened, title: str, number: int, settings: Settings, handed: Handed) -> Unit:
    from sightline.media.pdf import open_pdf

    with open_pdf(opened.file, handed.canvas) as document:
        page = document.page(number, settings)
        title = document.title or title
        return Unit(kind="page", page=number, title=f"{title} p. {number}", text=page.text, pixels=page.pixels)


def _moments(opened: Opened, title: str, settings: Settings) -> Iterator[Unit | UnitError]:
    from sightline.media.video import file_moments

    for start_s, end_s, value in file_moments(opened.file, settings):
        if isinstance(value, MediaError):
            yield UnitError(code=value.code, detail=value.detail, start_s=start_s)
        else:
            yield _moment_unit(title, start_s, end_s, value)


def _moment(opened: Opened, title: str, start_s: float, end_s: float, settings: Settings) -> Unit:
    from sightline.media.video import file_moment

    return _moment_unit(title, start_s, end_s, file_moment(opened.file, start_s, end_s, settings))


def _moment_unit(title: str, start_s: float, end_s: float, frames: VideoFrames) -> Unit:
    place = f"{clock(start_s)}–{clock(end_s)}"
    return Unit(kind="moment", start_s=start_s, end_s=end_s, title=f"{title} {place}", frames=frames)


def clock(seconds: float) -> str:
    """A time for people.

    >>> clock(75.9), clock(3600)
    ('1:15', '1:00:00')
    """
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
