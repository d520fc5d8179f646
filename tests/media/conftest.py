"""Files of every kind, made here: nothing is copied from elsewhere."""

from fractions import Fraction

import av
import numpy as np
import pytest

from sightline.settings import Settings


@pytest.fixture
def settings():
    return Settings()


@pytest.fixture
def code():
    """The code of the ``MediaError`` a call raises."""
    from sightline.errors import MEDIA_CODES, MediaError

    def code(function, *arguments, **options):
        with pytest.raises(MediaError) as caught:
            value = function(*arguments, **options)
            if hasattr(value, "__next__"):
                list(value)
        assert caught.value.code in MEDIA_CODES
        assert "0x" not in str(caught.value)
        return caught.value.code

    return code


def colour_of(number):
    """The colour of frame ``number`` of a test video, up to 4095: told apart after any good codec."""
    return tuple(number // place % 16 * 16 + 8 for place in (1, 16, 256))


def _number_of(frame):
    digits = np.asarray(frame).reshape(-1, 3).mean(0) // 16
    return int(digits @ (1, 16, 256))


@pytest.fixture
def make_video(tmp_path):
    """A video whose frames tell their number by their colour."""

    def make(
        name="a.mp4", num=60, rate=10, size=(64, 48), codec="libx264", gop=10, times=None, pix_fmt=None, container=None
    ):
        path = tmp_path / name
        with av.open(str(path), "w", format=container) as file:
            stream = file.add_stream(codec, rate=rate)
            stream.width, stream.height = size
            formats = {"ffv1": "bgr0", "magicyuv": "gbrp", "rawvideo": "bgr24", "libx264": "yuv444p"}
            stream.pix_fmt = pix_fmt or formats.get(codec, "yuv420p")
            stream.codec_context.gop_size = gop
            if codec == "libx264":
                stream.options = {"crf": "4"}
            file.start_encoding()
            for number in range(num):
                picture = np.empty((size[1], size[0], 3), np.uint8)
                picture[:] = colour_of(number)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                if times is not None:
                    frame.pts = times[number]
                    frame.time_base = Fraction(1, rate)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path

    return make


@pytest.fixture
def number_of():
    """The number of a frame of a test video."""
    return _number_of


@pytest.fixture
def make_pdf():
    """The bytes of a PDF."""
    return _make_pdf


def _make_pdf(pages, *, box="0 0 200 100", info="", content=b"", extra=b""):
    """A hand-written PDF: each page draws ``content`` and one line of text."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids = []
    for words in pages:
        body = content + b"BT /F1 12 Tf 10 50 Td (" + words.encode("latin-1") + b") Tj ET"
        objects.append(b"<< /Length %d >>\nstream\n" % len(body) + body + b"\nendstream")
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox ["
            + box.encode()
            + b"] /Contents %d 0 R" % len(objects)
            + b" /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [" + b" ".join(kids) + b"] /Count %d >>" % len(kids)
    objects.append(b"<< /Title (" + info.encode("latin-1") + b") >>")
    out = b"%PDF-1.4\n"
    places = []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + text + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"<< /Size %d /Root 1 0 R /Info %d 0 R " % (len(objects) + 1, len(objects)) + extra + b">>"
    return out + b"trailer\n" + trailer + b"\nstartxref\n%d\n%%%%EOF\n" % start
