"""What a file is, decided by its bytes.

The name of a file is believed in two matters only: how a text is cut, and that a text which calls itself a
picture, a video or a PDF is none (``not_media``). Nothing that is text is ever handed to a media decoder:
SDP, HLS, DASH and ffconcat playlists are text, and FFmpeg would open network connections for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

from sightline.errors import MediaError
from sightline.media.text import SAMPLE_BYTES, SUFFIX_FORMATS, detect_encoding

FileKind: TypeAlias = Literal["image", "pdf", "video", "text"]

HEAD_BYTES: Final = SAMPLE_BYTES
"""Bytes ``sniff`` wants to see; it decides on fewer when the file is shorter."""

MEDIA_SUFFIXES: Final = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif"),
        *(".jxl", ".jp2", ".ppm", ".pgm", ".pbm", ".ico", ".psd", ".eps", ".raw", ".cr2", ".nef", ".dng"),
        *(".pdf", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2ts", ".flv", ".ogv"),
        *(".ogg", ".wmv", ".3gp", ".mp3", ".wav", ".flac", ".m4a", ".aac", ".opus", ".zip", ".gz", ".7z"),
        *(".exe", ".so", ".dll", ".bin", ".docx", ".xlsx", ".pptx"),
    }
)
"""Suffixes under which a text is not what it says it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sniffed:
    """What some bytes are.

    Attributes:
        kind: which decoder they go to.
        format: ``jpeg``, ``png``, …, ``pdf``, ``mp4``, …, or for text how it is cut (``plain``, ``markdown``, …).
        encoding: of a text; "" for others.
    """

    kind: FileKind
    format: str
    encoding: str = ""


_IMAGES: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_VIDEOS: Final = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
)
_REFUSED: Final = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x01\x00\x09\x00\x00\x03", "WMF"),
    (b"SIMPLE  =", "FITS"),
    (b"8BPS", "PSD"),
    (b"icns", "ICNS"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OLE (FPX, old Office)"),
    (b"DDS ", "DDS"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x02\x00", "CUR"),
    (b"\x01\xda", "SGI"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"qoif", "QOI"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMV"),
    (b"\x00\x00\x01\xba", "MPEG program stream"),
    (b"\x00\x00\x01\xb3", "MPEG elementary stream"),
    (b"GIMP", "GIMP"),
    (b"gimp xcf", "XCF"),
    (b"\x89HDF", "HDF5"),
    (b"BLP", "BLP"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
)
_LACKING: Final = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"IIRO", "camera RAW"),
    (b"IIU\x00", "camera RAW"),
    (b"FUJIFILMCCD-RAW", "camera RAW"),
)
_SOUND: Final = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9", b"#!AMR", b"MThd", b"FORM")
_OTHER: Final = (
    *(b"PK\x03\x04", b"PK\x05\x06", b"\x7fELF", b"MZ", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh"),
    *(b"\xfd7zXZ", b"\xca\xfe\xba\xbe", b"SQLite format 3\x00", b"!<arch>\n", b"\x28\xb5\x2f\xfd"),
)
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIF: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_MOV_BOXES: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
# possessive and atomic throughout: these run in the parent on bytes of strangers, and must not backtrack
_PPM = re.compile(rb"P[1-6]\s++(?>#[^\n]*+\n\s*+)*+\d++\s++(?>#[^\n]*+\n\s*+)*+\d++\s")
_PPM_FLOAT = re.compile(rb"P[fF]\s++\d++\s++\d++\s++-?\d")
_PDF = re.compile(rb"(?:\A\s*|[\r\n\x00-\x08])%PDF-")
_SVG = re.compile(
    rb"\s*+(?><\?xml[^>]*+>\s*+)?+(?><!--.*?-->\s*+)*+<(?:!DOCTYPE\s++svg\b|svg[\s>]|svg:svg\b)", re.I | re.S
)
_XML_SVG = re.compile(rb"\s*+<(?:\?xml|!DOCTYPE|!--).{0,4000}?<(?:svg:)?svg[\s>]", re.I | re.S)
_HTML = re.compile(
    r"\s*+(?><\?xml[^>]*+>\s*+)?+(?><!--.*?-->\s*+)*+<(?:!doctype\s++html|html|head|body)\b", re.I | re.S
)


def sniff(head: bytes, *, name: str = "", whole: bool = False) -> Sniffed:
    """What a file is, by its first bytes.

    Args:
        head: the first ``HEAD_BYTES`` bytes, or all of a shorter file.
        name: file name, used for text only (see above); "" when there is none.
        whole: whether ``head`` is the whole file.

    Raises:
        MediaError: ``empty``, ``not_media``, ``unsupported``, ``format_not_allowed`` or, for sound, ``no_video``.

    >>> sniff(b"GIF89a.."), sniff(b"# Title", name="a.md").format
    (Sniffed(kind='image', format='gif', encoding=''), 'markdown')
    """
    if not head:
        raise MediaError("empty")
    found = _by_magic(head)
    if found is not None:
        return found
    encoding = detect_encoding(head[:SAMPLE_BYTES], whole=whole and len(head) <= SAMPLE_BYTES)
    if encoding is None:
        raise MediaError("not_media")
    if _SVG.match(head.lstrip(b"\xef\xbb\xbf")) or _XML_SVG.match(head.lstrip(b"\xef\xbb\xbf")):
        raise MediaError("unsupported", "SVG drawings are not rendered")
    suffix = PurePath(name).suffix.lower()
    if suffix in MEDIA_SUFFIXES:
        raise MediaError("not_media")
    start = head[:4096].decode(encoding, "replace")
    cut = SUFFIX_FORMATS.get(suffix) or ("html" if _HTML.match(start) else "plain")
    return Sniffed(kind="text", format=cut, encoding=encoding)


def _by_magic(head: bytes) -> Sniffed | None:
    lacking = _named(_LACKING, head) or ("camera RAW" if head[:4] == b"II*\x00" and head[8:10] == b"CR" else None)
    if lacking:
        raise MediaError("unsupported", f"{lacking} needs a decoder that is not installed")
    picture = _named(_IMAGES, head)
    if picture:
        return Sniffed(kind="image", format=picture)
    refused = _named(_REFUSED, head)
    if refused:
        raise MediaError("format_not_allowed", f"{refused} is not on the allow-list")
    video = _named(_VIDEOS, head)
    if video:
        return Sniffed(kind="video", format=video)
    if _PDF.search(head[:1024]):
        return Sniffed(kind="pdf", format="pdf")
    if head.startswith(_OTHER):
        raise MediaError("not_media")
    if head.startswith(_SOUND) and detect_encoding(head[:SAMPLE_BYTES]) is None:
        raise MediaError("no_video")
    return _by_structure(head)


def _named(table: Sequence[tuple[bytes, str]], head: bytes) -> str | None:
    return next((name for magic, name in table if head.startswith(magic)), None)


def _by_structure(head: bytes) -> Sniffed | None:
    """Formats that are known by more than their first bytes."""
    found: Sniffed | None = None
    if head[:4] == b"RIFF" and len(head) >= 12:
        found = _by_chunk(head[8:12])
    elif head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        found = Sniffed(kind="image", format="bmp")
    elif _PPM.match(head) or _PPM_FLOAT.match(head):
        found = Sniffed(kind="image", format="ppm")
    elif head[4:8] == b"ftyp":
        found = _by_brand(head)
    elif head[4:8] in _MOV_BOXES and (head[:3] == b"\x00\x00\x00" or int.from_bytes(head[:4], "big") >= 8):
        found = Sniffed(kind="video", format="mov")
    elif _is_transport_stream(head):
        found = Sniffed(kind="video", format="mpegts")
    return found


def _is_transport_stream(head: bytes) -> bool:
    """MPEG-TS: a sync byte every 188 bytes, or every 192 after four bytes of time stamp."""
    return any(
        len(head) > start + 4 * step and all(head[start + step * index] == 0x47 for index in range(5))
        for start, step in ((0, 188), (4, 192))
    )


def _by_chunk(chunk: bytes) -> Sniffed:
    """RIFF: WebP pictures, AVI videos, WAVE sound."""
    if chunk == b"WEBP":
        return Sniffed(kind="image", format="webp")
    if chunk == b"AVI ":
        return Sniffed(kind="video", format="avi")
    raise MediaError("no_video" if chunk == b"WAVE" else "not_media")


def _by_brand(head: bytes) -> Sniffed:
    """ISO base media: AVIF and HEIF pictures, else MP4 and QuickTime videos."""
    end = min(max(int.from_bytes(head[:4], "big"), 16), 256)
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if head[8:12] == b"crx ":
        raise MediaError("unsupported", "camera RAW needs a decoder that is not installed")
    if head[8:12] in _AVIF or (head[8:12] in {b"mif1", b"msf1"} and brands & _AVIF):
        return Sniffed(kind="image", format="avif")
    if head[8:12] in _HEIF:
        return Sniffed(kind="image", format="heif")
    return Sniffed(kind="video", format="mp4")
