"""PDF pages: pixels within a budget, and the words of the text layer.

The scale of a page is computed from its size before anything is rendered: a page of 14,400 x 14,400 points, the
greatest the format allows, takes a 333-byte file and would be 900 million pixels at 150 dpi.
PDFium is not thread-safe: one lock guards every call, and files that are not trusted go through ``DecodePool``.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import pypdfium2
import pypdfium2.raw

from sightline.errors import MediaError
from sightline.media.source import ByteSource, open_source
from sightline.media.text import clean
from sightline.settings import Settings
from sightline.types import Pixels

POINTS_PER_INCH: Final = 72.0
MAX_DPI: Final = 300.0
"""Small pages are not drawn larger than this."""
MAX_SIDE: Final = 16_384
"""Most pixels of the longer side of a page."""
MAX_TEXT_CHARS: Final = 200_000
"""Most characters taken from the text layer of one page."""
CHANNELS: Final = 3
PASSWORD_ERROR: Final = 4
"""FPDF_ERR_PASSWORD."""

Canvas: TypeAlias = Callable[[int], memoryview | None]
"""Memory of so many bytes, or None."""

_pdfium = threading.RLock()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Page:
    """One page.

    Attributes:
        number: from 1.
        pixels: (Y, X, 3) uint8 RGB.
        text: words of the text layer, "" when there is none.
    """

    number: int
    pixels: Pixels
    text: str


class Document:
    """An open PDF. Made by ``open_pdf``."""

    def __init__(self, handle: Any, canvas: Canvas) -> None:
        self._handle = handle
        self._canvas = canvas
        with _pdfium:
            self.num_pages = len(handle)
            self.title = self._title()
        if self.num_pages < 1:
            raise MediaError("no_pages")

    def _title(self) -> str:
        """The title in the document's own metadata, or ""."""
        try:
            title = str(self._handle.get_metadata_value("Title"))
        except (pypdfium2.PdfiumError, ValueError):
            return ""
        return " ".join(clean(title).split())[:200]

    def page(self, number: int, settings: Settings) -> Page:
        """One page, from 1.

        Raises:
            MediaError: ``corrupt`` when the page cannot be drawn, ``no_pages`` when there is no such page.
        """
        if not 1 <= number <= self.num_pages:
            raise MediaError("no_pages", "the document has no such page")
        with _pdfium:
            try:
                page = self._handle[number - 1]
            except (pypdfium2.PdfiumError, ValueError):
                raise MediaError("corrupt") from None
            try:
                width, height = page.get_size()
                scale = page_scale(width, height, settings.pdf_page_pixels)
                bitmap = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False, bitmap_maker=self._bitmap)
                try:
                    pixels = bitmap.to_numpy()
                finally:
                    bitmap.close()
                return Page(number=number, pixels=_three_channels(pixels), text=_words(page))
            except (pypdfium2.PdfiumError, ValueError, OverflowError):
                raise MediaError("corrupt") from None
            finally:
                page.close()

    def _bitmap(self, width: int, height: int, format: int, **options: Any) -> Any:
        """In memory that outlives the bitmap, its rows packed: the pixels need no copy."""
        size = width * height * CHANNELS
        given = self._canvas(size) if format == pypdfium2.raw.FPDFBitmap_BGR else None
        buffer = None if given is None else (ctypes.c_ubyte * size).from_buffer(given)
        return pypdfium2.PdfBitmap.new_native(width, height, format, buffer=buffer, **options)


@contextmanager
def open_pdf(file: BinaryIO | bytes, canvas: Canvas = lambda _: None) -> Iterator[Document]:
    """A PDF open for reading. Documents that only limit what an owner may do are read; a password is never asked for.

    Args:
        file: the document.
        canvas: gives the memory to draw a page in, which is good until the next one; None draws in new memory.

    Raises:
        MediaError: ``password``, ``no_pages`` or ``corrupt``.
    """
    with _pdfium:
        try:
            handle = pypdfium2.PdfDocument(file)
        except pypdfium2.PdfiumError:
            raise MediaError(_why_not(file)) from None
        except (ValueError, OSError):
            raise MediaError("corrupt") from None
        with suppress(pypdfium2.PdfiumError):  # forms are then not drawn
            handle.init_forms()
    try:
        document = Document(handle, canvas)
        yield document
    finally:
        with _pdfium:
            handle.close()


def _why_not(file: BinaryIO | bytes) -> str:
    """Why a document could not be opened.

    pypdfium2 asks PDFium for its last error, which is that of another document when this one loads and has no pages.
    """
    raw = pypdfium2.raw
    stream = io.BytesIO(file) if isinstance(file, bytes) else file

    def read(_: Any, place: int, target: Any, size: int) -> int:
        stream.seek(place)
        data = stream.read(size)
        ctypes.memmove(target, data, len(data))
        return int(len(data) == size)

    access = raw.FPDF_FILEACCESS(m_FileLen=stream.seek(0, os.SEEK_END))
    access.m_GetBlock = type(access.m_GetBlock)(read)
    handle = raw.FPDF_LoadCustomDocument(access, None)
    if handle:
        raw.FPDF_CloseDocument(handle)
        return "no_pages"
    return "password" if raw.FPDF_GetLastError() == PASSWORD_ERROR else "corrupt"


def page_scale(width: float, height: float, max_pixels: int) -> float:
    """Pixels per point, so that the page drawn has at most ``max_pixels`` pixels.

    >>> round(page_scale(612, 792, 1_843_200) * 72)  # US Letter, in dots per inch
    140
    >>> page_scale(14400, 14400, 1_843_200) < 0.1
    True

    Raises:
        MediaError: ``corrupt`` for a page without a size.
    """
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        raise MediaError("corrupt", "the page has no size")
    scale = min(math.sqrt(max_pixels / (width * height)), MAX_DPI / POINTS_PER_INCH, MAX_SIDE / max(width, height))
    # the renderer rounds each side up
    while scale > 1e-9 and math.ceil(width * scale) * math.ceil(height * scale) > max_pixels:
        scale *= 0.999
    return scale


def _three_channels(pixels: Pixels) -> Pixels:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


# PDFium marks a hyphen at the end of a line with U+0002 or U+FFFE
_HYPHEN = re.compile("[\u0002\ufffe\u00ad]\n?")
_BROKEN_WORD = re.compile(r"([^\W\d_])-\n([a-zà-öø-ÿа-я])")


def clean_page_text(words: str) -> str:
    r"""Words of a text layer without control characters, with words joined that were broken at the end of a line.

    >>> clean_page_text("a red bi-\r\ncycle\x00  here\r\n\r\n\r\nend")
    'a red bicycle here\n\nend'
    """
    words = _HYPHEN.sub("", words.replace("\r\n", "\n").replace("\r", "\n"))
    words = _BROKEN_WORD.sub(r"\1\2", clean(words))
    # lone surrogates cannot be stored as UTF-8
    words = words.encode("utf-8", "ignore").decode("utf-8")
    words = re.sub(r"[^\S\n]+", " ", words)
    return re.sub(r" ?\n ?(?:\n ?)+", "\n\n", words).strip()


def _words(page: Any) -> str:
    """The text layer of a page; a broken one is no reason to lose the picture."""
    try:
        layer = page.get_textpage()
    except pypdfium2.PdfiumError:
        return ""
    try:
        number = min(layer.count_chars(), MAX_TEXT_CHARS)
        return clean_page_text(layer.get_text_range(0, number)) if number > 0 else ""
    except (pypdfium2.PdfiumError, ValueError):
        return ""
    finally:
        layer.close()


def num_pages(source: ByteSource, settings: Settings) -> int:
    """How many pages a PDF has."""
    with open_source(source, settings) as opened, open_pdf(_pdf_file(opened.sniffed.kind, opened.file)) as document:
        return document.num_pages


def page(source: ByteSource, number: int, settings: Settings) -> Page:
    """One page of a PDF, from 1."""
    with open_source(source, settings) as opened, open_pdf(_pdf_file(opened.sniffed.kind, opened.file)) as document:
        return document.page(number, settings)


def pages(source: ByteSource, settings: Settings) -> Iterator[Page]:
    """The pages of a PDF up to ``settings.pdf_max_pages``; the first that cannot be drawn raises ``MediaError``.

    ``units`` goes on behind such a page.
    """
    with open_source(source, settings) as opened, open_pdf(_pdf_file(opened.sniffed.kind, opened.file)) as document:
        for number in range(1, min(document.num_pages, settings.pdf_max_pages) + 1):
            yield document.page(number, settings)


def _pdf_file(kind: str, file: BinaryIO) -> BinaryIO:
    if kind != "pdf":
        raise MediaError("not_media")
    return file
