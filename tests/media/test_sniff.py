"""Files are known by their bytes."""

import contextlib
import io
import struct
import time

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from sightline.errors import MediaError
from sightline.media.sniff import Sniffed, sniff


def picture(format):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, format)
    return file.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM"])
def test_pictures_by_any_name(format):
    for name in ("", "a.txt", "a.pdf", "a.jpg", "a"):
        assert sniff(picture(format), name=name) == Sniffed(kind="image", format=format.lower())


@pytest.mark.parametrize(
    ("head", "kind", "format"),
    [
        (b"%PDF-1.7\n", "pdf", "pdf"),
        (b" \n%PDF-1.4\n", "pdf", "pdf"),
        (b"\x00junk\n%PDF-1.4\n", "pdf", "pdf"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "video", "mp4"),
        (b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ", "video", "mp4"),
        (b"\x00\x00\x00\x08wide\x00\x00\x00\x10mdat", "video", "mov"),
        (b"\x1aE\xdf\xa3" + bytes(20), "video", "matroska"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video", "avi"),
        (b"FLV\x01\x05", "video", "flv"),
        (b"OggS\x00\x02", "video", "ogg"),
        ((b"G" + bytes(187)) * 6, "video", "mpegts"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif", "image", "avif"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "image", "heif"),
    ],
)
def test_other_media(head, kind, format):
    assert sniff(head, name="x.bin") == Sniffed(kind=kind, format=format)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "format_not_allowed"),
        (b"\xc5\xd0\xd3\xc6" + bytes(20), "format_not_allowed"),
        (b"\xd7\xcd\xc6\x9a" + bytes(20), "format_not_allowed"),
        (b"SIMPLE  =                    T", "format_not_allowed"),
        (b"8BPS\x00\x01", "format_not_allowed"),
        (b"icns\x00\x00", "format_not_allowed"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "format_not_allowed"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "format_not_allowed"),
        (b"\xff\x0a\x00", "unsupported"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "unsupported"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "unsupported"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><!DOCTYPE svg SYSTEM 'file:///etc/passwd'><svg/>", "unsupported"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg width='1'/>", "unsupported"),
        (b"PK\x03\x04\x14\x00", "not_media"),
        (b"\x7fELF\x02\x01\x01", "not_media"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "no_video"),
        (b"ID3\x03\x00\x00\x00\x00\x00\x21" + bytes(range(256)), "no_video"),
        (bytes(range(256)) * 4, "not_media"),
    ],
)
@pytest.mark.parametrize("name", ["x.jpg", "x.png", ""])
def test_refused(head, expected, name, code):
    assert code(sniff, head, name=name) == expected


def test_a_polyglot_is_what_it_begins_with():
    assert sniff(picture("JPEG") + b"PK\x03\x04" + bytes(100)).format == "jpeg"


@pytest.mark.parametrize(
    ("text", "name", "format"),
    [
        (b"words", "a.txt", "plain"),
        (b"words", "", "plain"),
        (b"# words", "a.MD", "markdown"),
        (b"a,b\n1,2", "a.csv", "csv"),
        (b"def f(): pass", "a.py", "code"),
        (b"<!DOCTYPE html><p>words", "a.txt", "html"),
        (b"<p>words", "a.htm", "html"),
        ("自行车".encode("gb18030") * 9, "a.txt", "plain"),
    ],
)
def test_texts_are_cut_by_name(text, name, format):
    found = sniff(text, name=name, whole=True)
    assert (found.kind, found.format) == ("text", format)


PLAYLISTS = [
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 40000 RTP/AVP 96\r\n",
    b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>http://127.0.0.1/</BaseURL></MPD>",
]


@pytest.mark.parametrize("text", PLAYLISTS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m3u8", "a.sdp", ""])
def test_playlists_never_reach_a_decoder(text, name):
    try:
        assert sniff(text, name=name, whole=True).kind == "text"
    except MediaError as error:
        assert error.code == "not_media" and name.endswith((".mp4", ".mov"))


@given(st.binary(max_size=300), st.sampled_from(["", "a.png", "a.txt", "a.mp4"]))
def test_any_bytes_give_an_answer_or_our_error(head, name):
    with contextlib.suppress(MediaError):
        assert sniff(head, name=name, whole=True).kind in {"image", "pdf", "video", "text"}


def test_numbers_that_look_like_utf_16_are_not_text(code):
    table = struct.pack(">256H", *([257] * 200), *np.arange(56))
    assert code(sniff, table) == "not_media"


@pytest.mark.parametrize(
    "head",
    [
        b"<!---->" * 9000,
        b"<!-- " * 13_000,
        b"<?xml " * 9000,
        b" " * 65_000,
        b"P6 " + b"# " * 32_000,
        b"P6\n" + b"#\n" * 32_000,
        b"P5 " + b"1" * 65_000,
    ],
)
def test_recognising_takes_no_time(head):
    start = time.perf_counter()
    with contextlib.suppress(MediaError):
        sniff(head)
    assert time.perf_counter() - start < 0.5
