"""Pictures and videos of requests: what is taken, what is refused before anything is decoded, where it is decoded."""

from __future__ import annotations

import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from PIL import Image

from sightline.errors import ItemError, MediaError
from sightline.media import pool as pool_module
from sightline.media.reader import Reader
from sightline.server import attachments as attachments_module
from sightline.server.attachments import Attachments, decoded, payload
from sightline.server.faults import Fault
from sightline.server.wire import Part
from sightline.settings import Settings
from sightline.types import VideoFrames
from tests.media.conftest import code, make_video  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
def attachments():
    found = Attachments(Settings(serve_max_media=4), workers=2)
    yield found
    found.close()


@pytest.fixture
def no_decoding(monkeypatch):
    """Whoever starts to decode or fetch fails the test."""

    def refuse(*_, **__):
        raise AssertionError("something was decoded or fetched")

    monkeypatch.setattr(pool_module.DecodePool, "_ask", refuse)
    monkeypatch.setattr(attachments_module, "fetch", refuse)


def picture(size=(8, 6), format="PNG", **options) -> bytes:
    file = io.BytesIO()
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3).astype(np.uint8)
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(data: bytes, kind="image/png") -> str:
    return f"data:{kind};base64,{b64(data)}"


def test_every_way_to_write_a_picture_gives_the_pixels_of_the_file(attachments):
    data = picture()
    expected = Reader().image(data)
    broken_lines = base64.encodebytes(data).decode()
    for source in (url(data), b64(data), url(data, "image/jpeg"), url(data, ""), url(data, "IMAGE/PNG;name=a.png")):
        assert (attachments.image(source) == expected).all()
    assert (attachments.image(broken_lines) == expected).all()
    assert (attachments.image("DATA:image/png;BASE64," + b64(data)) == expected).all()


def test_pictures_stand_upright(attachments):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert attachments.image(b64(picture((8, 6), "JPEG", exif=exif))).shape == (8, 6, 3)


def test_items_hold_what_the_parts_held(attachments):
    data = picture()
    parts = [Part(text=["a", "b"], instruction="i"), Part(image=[url(data), b64(data)], text=["c"]), "words"]
    first, second, third = attachments.items(parts)
    assert first.text == ["a", "b"] and first.instruction == "i" and first.image is None and first.video is None
    assert [image.shape for image in second.images] == [(6, 8, 3)] * 2 and second.texts == ("c",)
    assert third.texts == ("words",)
    assert attachments.item(Part(image=[b64(data)])).text is None


def test_videos_are_sampled_as_files_are(attachments, make_video):  # noqa: F811
    data = make_video(num=60, rate=10).read_bytes()
    for fps, most in ((None, None), (2.0, None), (5.0, 8), (2**31, 2**31)):
        expected = Reader().video(data, fps=min(fps or 1.0, 60), max_frames=min(most or 64, 64))
        found = attachments.video(b64(data), fps, most)
        assert isinstance(expected, VideoFrames)
        assert found.indices == expected.indices and found.fps == expected.fps
        assert (found.frames == expected.frames).all()
    (item,) = attachments.items([Part(video=[url(data, "video/mp4")], fps=2.0)])
    assert len(item.video[0].indices) == 12


def test_the_ceiling_of_frames_is_the_servers(make_video):  # noqa: F811
    data = b64(make_video(num=60, rate=10).read_bytes())
    found = Attachments(Settings(video_max_frames=6), workers=1)
    try:
        assert len(found.video(data, 60.0, 4096).indices) == 6
    finally:
        found.close()


@pytest.mark.parametrize(
    ("fps", "most"),
    [(0, 8), (-1, 8), (float("nan"), 8), (float("inf"), 8), ("1e9", 8), (True, 8), (1, 0), (1, -1), (1, 1), (1, "8")],
)
def test_numbers_that_make_no_sense(attachments, no_decoding, code, fps, most):  # noqa: F811
    assert code(attachments.video, "AAAA", fps, most) == "option"


def test_an_animation_is_a_video_and_a_still_is_none(attachments, code):  # noqa: F811
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 60, 120, 180, 240)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert attachments.video(b64(file.getvalue())).frames.shape[1:] == (8, 8, 3)
    assert code(attachments.video, b64(picture())) == "no_video"


NO_SOURCES = [
    *("data:image/png;base64," + "=" * 1_000_000, "=" * 1_000_000, "data:" + ";a=b" * 100_000 + ";base64,AAAA"),
    *("data:image/png,AAAA", "data:image/png;base64", "data:", "data:;base64,!!!!", "data:text/html;base64,PGI+"),
    *("/etc/passwd", "/etc/pas", "file:///etc/passwd", "ftp://a/b", "gopher://a", "javascript:alert(1)", "../a.png"),
    *("AAA", "A===", "AAAA====", "====AAAA", "AA-_", "AAAA BBBB", "AAAA\x00", "ÄÖ==", "AAAA\u2028", "a.png", "\ud800"),
    *("blob:http://a", "data:image/png;base64,%41%41%41%41", "data:image/png;base64,AAA=AAAA", "C:\\a.png"),
]


@pytest.mark.parametrize("source", NO_SOURCES, ids=lambda source: ascii(source[:24]))
def test_strings_that_are_no_media(attachments, code, source):  # noqa: F811
    assert code(attachments.image, source) == "not_media"
    assert code(attachments.video, source) in {"not_media", "no_video"}


def test_bytes_that_are_no_picture(attachments, code):  # noqa: F811
    for data, expected in {
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": "unsupported",
        b"%PDF-1.4 something": "not_media",
        b"just some words, no picture": "not_media",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 40000 RTP/AVP 96\r\n": "not_media",
        b"#EXTM3U\nhttp://127.0.0.1/a.ts": "not_media",
        picture((64, 64))[:100]: "corrupt",
        b"%!PS-Adobe": "format_not_allowed",
        b"\x00" * 100: "not_media",
    }.items():
        assert code(attachments.image, b64(data)) == expected
    assert (
        code(attachments.video, b64(b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 40000 RTP/AVP 96\r\n")) == "no_video"
    )
    assert code(attachments.image, "") == code(attachments.image, "data:image/png;base64,") == "empty"


def test_too_much_is_refused_before_anything_is_decoded(no_decoding, code):  # noqa: F811
    small = Attachments(Settings(image_max_bytes=1000, serve_max_bytes=2000, serve_max_media=3))
    assert code(small.image, b64(b"x" * 1001)) == "too_large" and code(small.image, url(b"x" * 1001)) == "too_large"
    assert code(small.video, b64(b"x" * 2001)) == "too_large"
    good = url(picture())
    many = [Part(image=[good]), Part(image=[good], video=["AAAA"]), Part(text=["a"], image=[good])]
    with pytest.raises(Fault) as caught:
        small.items(many)
    assert (caught.value.status, caught.value.code) == (400, "too_many_media")
    # one bad part, and the good ones before it are not decoded either
    for bad, expected in (
        (Part(image=["/etc/passwd", "file:///etc/passwd"]), "not_media"),
        (Part(image=["http://example.org/a.png"]), "url_off"),
        (Part(video=["A" * 4000]), "too_large"),
    ):
        with pytest.raises(ItemError) as error:
            small.items([Part(text=["a"]), Part(image=[good]), bad])
        assert (error.value.position, error.value.code) == (2, expected)
    small.close()


def test_errors_of_decoding_name_the_item(attachments):
    with pytest.raises(ItemError) as error:
        attachments.items([Part(image=[b64(picture())]), Part(text=["a"]), Part(image=[b64(b"no picture at all")])])
    assert (error.value.position, error.value.code) == (2, "not_media")


def test_the_pixels_of_a_request_are_limited(monkeypatch):
    monkeypatch.setattr(attachments_module, "MAX_PIXELS", 100)
    found = Attachments(Settings(), workers=1)
    try:
        with pytest.raises(ItemError) as error:
            found.items([Part(image=[b64(picture())]), Part(text=["a"]), Part(image=[b64(picture()), b64(picture())])])
        assert (error.value.position, error.value.code) == (2, "too_large")
        assert found.image(b64(picture())).shape == (6, 8, 3), "each request has a budget of its own"
    finally:
        found.close()


def test_nothing_is_decoded_here(attachments, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("decoded in the process of the server")

    monkeypatch.setattr(Image, "open", refuse)
    assert attachments.image(b64(picture((8, 6)))).shape == (6, 8, 3)


def test_few_decoders_serve_many_threads(attachments):
    most, now, lock = 0, 0, threading.Lock()
    ask = attachments._pool._ask

    def counted(*arguments):
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        try:
            yield from ask(*arguments)
        finally:
            with lock:
                now -= 1

    attachments._pool._ask = counted
    try:
        data = [b64(picture((8 + number, 6))) for number in range(24)]
        with ThreadPoolExecutor(12) as threads:
            shapes = [pixels.shape for pixels in threads.map(attachments.image, data)]
    finally:
        del attachments._pool._ask
    assert shapes == [(6, 8 + number, 3) for number in range(24)] and 1 <= most <= 2


def test_a_decoder_that_dies_costs_one_picture(code):  # noqa: F811
    found = Attachments(Settings(decode_memory_bytes=384 * 2**20, image_max_pixels=400_000_000), workers=1)
    try:
        file = io.BytesIO()
        Image.new("L", (11_000, 11_000)).save(file, "PNG")
        assert code(found.image, b64(file.getvalue())) in {"memory", "crash", "too_large"}
        assert found.image(b64(picture())).shape == (6, 8, 3)
    finally:
        found.close()


@given(st.binary(min_size=1, max_size=300))
def test_base64_comes_back(data):
    assert decoded(payload(url(data)), 300) == data
    assert decoded(payload(base64.encodebytes(data).decode()), 300) == data
    if len(data) > 4:
        with pytest.raises(MediaError):
            decoded(b64(data + data), len(data))


@given(st.text(max_size=120) | st.from_regex(r"data:[a-z/;=,.]{0,20}(;base64)?,?[A-Za-z0-9+/=]{0,20}", fullmatch=True))
@example("data:,")
@example("data:image/png;base64,")
@example("data:;base64,AAAA")
def test_any_string_is_base64_or_an_error_of_ours(text):
    try:
        data = decoded(payload(text), 1000)
    except MediaError as error:
        assert error.code in {"not_media", "empty", "too_large"}
    else:
        assert b64(data) == text.rpartition(",")[2].replace("\r", "").replace("\n", "")
