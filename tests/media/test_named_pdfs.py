"""Sixteen documents that have hurt others, each with its stated outcome, through the whole of indexing.

The numbers in the names are those of the cases; every file is made here.
"""

import io
import re
import socket
import threading
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.settings import Settings
from sightline.testing import ToyEmbedder
from tests.media.outcome import Desk
from tests.media.test_pdf import encrypted

MB = 2**20


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("named-pdfs"), ToyEmbedder())
    yield desk
    desk.close()


@pytest.fixture
def desk_with(tmp_path):
    """A desk with limits of its own."""
    desks = []

    def open_desk(**limits):
        desks.append(Desk(tmp_path, ToyEmbedder(), Settings(**limits)))
        return desks[-1]

    yield open_desk
    for desk in desks:
        desk.close()


def assembled(*objects, version=b"1.7", root=1):
    """A PDF of these objects, numbered from 1, with a table of where they are."""
    out = b"%PDF-" + version + b"\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, root, start)


def stream(body, entries=b""):
    return b"<< /Length %d %s >>\nstream\n" % (len(body), entries) + body + b"\nendstream"


FONT = b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"


def words(text):
    return b"BT /F1 12 Tf 10 50 Td (" + text.encode() + b") Tj ET"


def pages_of(outcome):
    return sorted((row.page, row.text) for row in outcome.rows)


def told(desk, path):
    """(code, page and reason) of what was left out of a file."""
    return [(one.code, one.detail) for one in desk.library.failures() if one.path == str(path)]


def test_01_a_password_to_open(desk, make_pdf):
    outcome = desk.take("a.pdf", encrypted(make_pdf, "secret", "owner"))
    assert (outcome.code, outcome.rows) == ("password", [])


def test_02_a_password_of_the_owner_only(desk, make_pdf):
    outcome = desk.take("a.pdf", encrypted(make_pdf, "", "owner"))
    assert outcome.code == "indexed" and pages_of(outcome) == [(1, "hidden words")]


def test_03_ten_thousand_pages(desk_with, make_pdf):
    desk = desk_with(pdf_max_pages=12)
    data = make_pdf(["x"] * 10_000)
    path = desk.write("a.pdf", data)
    assert 10**6 < len(data) < 4 * 10**6
    outcome = desk.index(path)
    assert outcome.code == "indexed" and [row.page for row in sorted(outcome.rows, key=lambda row: row.page)] == [
        *range(1, 13)
    ]
    assert told(desk, path) == [("too_large", "page 13: pages 13 to 10000 were not read")]


def test_04_the_largest_page_there_may_be(desk):
    """333 bytes: 900 million pixels at 150 dots an inch, for a renderer that does not look first."""
    data = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 14400 14400]>>endobj\ntrailer<</Root 1 0 R>>\n"
    )
    assert len(data) < 333
    outcome = desk.take("a.pdf", data)
    assert outcome.code == "indexed" and len(outcome.rows) == 1
    assert outcome.child_bytes < 300 * MB and outcome.cpu_s < 3


def test_05_a_page_of_a_million_points(desk, make_pdf):
    outcome = desk.take("a.pdf", make_pdf(["words"], box="0 0 1000000 1000000"))
    assert outcome.code == "indexed" and pages_of(outcome) == [(1, "words")]
    assert outcome.child_bytes < 300 * MB


def test_06_a_page_without_size_is_a_letter(desk, make_pdf):
    path = desk.write("a.pdf", make_pdf(["words"], box="0 0 0 0"))
    outcome = desk.index(path)
    assert outcome.code == "indexed" and pages_of(outcome) == [(1, "words")]
    height, width = desk.pool.unit(path, "page", 1).pixels.shape[:2]
    assert height / width == pytest.approx(11 / 8.5, rel=0.01)


def test_07_a_tree_of_pages_that_is_a_ring(desk, make_pdf):
    data = make_pdf(["x"]).replace(b"/Kids [5 0 R] /Count 1", b"/Kids [2 0 R] /Count 9")
    outcome = desk.take("a.pdf", data)
    assert (outcome.code, outcome.rows) == ("corrupt", [])


def test_08_a_tree_of_pages_ten_thousand_deep(desk):
    """Deeper than any reader goes: it is refused. Twenty deep is fine."""
    deep = 10_000
    branches = [
        b"<< /Type /Pages /Kids [%d 0 R] /Count 1 /Parent %d 0 R >>" % (number + 1, number - 1)
        for number in range(3, 3 + deep)
    ]
    page = b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 200 100] /Resources %s >>" % (2 + deep, FONT)
    catalog, top = b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    outcome = desk.take("a.pdf", assembled(catalog, top, *branches, page))
    assert outcome.code == "corrupt" and not outcome.rows
    shallow = assembled(
        catalog,
        top,
        *branches[:20],
        b"<< /Type /Page /Parent 22 0 R /MediaBox [0 0 200 100] /Resources %s >>" % FONT,
    )
    assert desk.take("a.pdf", shallow).code == "indexed"


def test_09_a_table_of_objects_that_lies(desk, make_pdf):
    data = re.sub(rb"\n\d{10} 00000 n ", b"\n9999999999 00000 n ", make_pdf(["words"]))
    outcome = desk.take("a.pdf", data.replace(b"startxref\n", b"startxref\n9"))
    assert outcome.code == "indexed" and pages_of(outcome) == [(1, "words")]


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_10_one_byte_is_missing(place, desk, make_pdf):
    data = make_pdf(["words", "more words"])
    cut = int(len(data) * place)
    outcome = desk.take("a.pdf", data[:cut] + data[cut + 1 :])
    assert outcome.code == "indexed" and [row.page for row in outcome.rows].count(1) == 1


@pytest.mark.parametrize(
    ("share", "expected"), [(0.1, "corrupt"), (0.5, "corrupt"), (0.95, "corrupt"), (0.999, "indexed")]
)
def test_11_truncated(share, expected, desk, make_pdf):
    """Without its end a document has no root: it is refused. Without its last words it is whole."""
    data = make_pdf(["words"] * 10)
    outcome = desk.take("a.pdf", data[: int(len(data) * share)])
    assert outcome.code == expected and len(outcome.rows) == (10 if expected == "indexed" else 0)


def test_12_no_pages(desk, make_pdf):
    assert desk.take("a.pdf", make_pdf([])).code == "no_pages"


def test_13_scripts_attachments_and_launching_are_ignored(desk, tmp_path):
    """Nothing is run, written or called; the words of the page are in."""
    target = tmp_path / "written"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.2)
        calls: Any = []

        def watch():
            while True:
                try:
                    calls.append(server.accept())
                except OSError:
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        script = b"app.launchURL('http://127.0.0.1:%d/'); this.exportDataObject({cName: 'a', nLaunch: 2});" % port
        touch = str(target).encode()
        data = assembled(
            b"<< /Type /Catalog /Pages 2 0 R /OpenAction 6 0 R /Names << /JavaScript << /Names [(a) 6 0 R] >>"
            b" /EmbeddedFiles << /Names [(a.exe) 8 0 R] >> >> /AA << /WC 7 0 R >>"
            b" /AcroForm << /Fields [10 0 R] /NeedAppearances true /XFA 9 0 R >> >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R /Resources "
            + FONT
            + b" /AA << /O 7 0 R >> /Annots [5 0 R 10 0 R] >>",
            stream(words("plain words")),
            b"<< /Type /Annot /Subtype /Link /Rect [0 0 200 100] /A << /S /URI /URI (http://127.0.0.1:%d/) >> >>"
            % port,
            b"<< /S /JavaScript /JS (" + script.replace(b"(", b"\\(").replace(b")", b"\\)") + b") >>",
            b"<< /S /Launch /F (/usr/bin/touch) /Unix << /F (/usr/bin/touch) /P (" + touch + b") >> >>",
            b"<< /Type /Filespec /F (a.exe) /EF << /F 9 0 R >> >>",
            stream(b"MZ\x90\x00", b"/Type /EmbeddedFile"),
            b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /Rect [0 0 50 20] /AA << /F 6 0 R /C 6 0 R >> >>",
        )
        outcome = desk.take("a.pdf", data)
        thread.join()
    assert outcome.code == "indexed" and pages_of(outcome) == [(1, "plain words")]
    assert not calls and not target.exists()


@pytest.fixture(scope="module")
def bomb():
    """A gigabyte of zeros, packed bomb; memory holds a chunk."""
    pack = zlib.compressobj(9)
    chunk = bytes(16 * MB)
    body = b"".join(pack.compress(chunk) for _ in range(64)) + pack.flush()
    return zlib.compress(body, 9)


@pytest.mark.parametrize("kind", ["content", "objects", "picture"])
def test_14_a_bomb(kind, desk_with, bomb):
    """Some kilobytes that unpack to gigabytes cost that file or that page, and the parent nothing."""
    desk = desk_with(decode_timeout_s=20.0, decode_memory_bytes=512 * MB)
    assert len(bomb) < 20_000
    entries = b"/Filter [/FlateDecode /FlateDecode]"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents %d 0 R /Resources " + FONT + b" >>"
    catalog = b"<< /Type /Catalog /Pages 2 0 R >>"
    if kind == "objects":
        held = stream(bomb, entries + b" /Type /ObjStm /N 1000000 /First 100")
        path = desk.write("a.pdf", assembled(catalog, b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page % 4, held))
    else:
        if kind == "picture":
            entries += b" /Type /XObject /Subtype /Image /Width 30000 /Height 30000 /BitsPerComponent 8"
            entries += b" /ColorSpace /DeviceRGB"
            page = page.replace(FONT, b"<< /XObject << /X 4 0 R >> >>")
        objects = [
            catalog,
            b"<< /Type /Pages /Kids [3 0 R 5 0 R] /Count 2 >>",
            page % (7 if kind == "picture" else 4),
            stream(bomb, entries),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 6 0 R /Resources " + FONT + b" >>",
            stream(words("after the bomb")),
            stream(b"/X Do"),
        ]
        path = desk.write("a.pdf", assembled(*objects))
    outcome = desk.index(path)
    assert outcome.parent_bytes < 200 * MB and outcome.child_bytes < 600 * MB
    if kind == "objects":
        assert outcome.code in {"crash", "memory"} and not outcome.rows
    elif kind == "content":
        assert pages_of(outcome) == [(2, "after the bomb")]
        assert [detail.partition(":")[0] for _, detail in told(desk, path)] == ["page 1"]
    else:
        assert pages_of(outcome) == [(1, ""), (2, "after the bomb")]


def test_15_a_page_that_draws_itself(desk, make_pdf):
    """A form that holds itself, and a letter that is drawn with itself."""
    data = assembled(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >>"
        b" /Pattern << /P 6 0 R >> /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        stream(b"/X Do /Pattern cs /P scn 0 0 200 100 re f " + words("around")),
        stream(
            b"q 1 0 0 1 1 1 cm /X Do Q",
            b"/Type /XObject /Subtype /Form /BBox [0 0 200 100] /Resources << /XObject << /X 5 0 R >> >>",
        ),
        stream(
            b"/Pattern cs /P scn 0 0 9 9 re f",
            b"/PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 10 10] /XStep 10 /YStep 10"
            b" /Resources << /Pattern << /P 6 0 R >> >>",
        ),
    )
    outcome = desk.take("a.pdf", data)
    assert outcome.code == "indexed" and pages_of(outcome) == [(1, "around")]


def test_15_a_page_that_takes_for_ever(desk_with):
    """Forms that each draw the next ten times: a billion drawings. That page is lost, the one behind it is not."""
    desk = desk_with(decode_timeout_s=8.0)
    depth = 11
    forms = [
        stream(
            b"/X Do " * 10 if number < depth - 1 else b"0 0 m 200 100 l 9 9 l 100 3 l S " * 20,
            b"/Type /XObject /Subtype /Form /BBox [0 0 200 100] /Resources << /XObject << /X %d 0 R >> >>"
            % (8 + number),
        )
        for number in range(depth)
    ]
    data = assembled(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 5 0 R /Resources"
        b" << /XObject << /X 7 0 R >> >> >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 6 0 R /Resources " + FONT + b" >>",
        stream(b"/X Do"),
        stream(words("behind it")),
        *forms,
    )
    path = desk.write("a.pdf", data)
    start = time.monotonic()
    outcome = desk.index(path)
    assert outcome.code == "indexed" and pages_of(outcome) == [(2, "behind it")]
    assert told(desk, path) == [("timeout", "page 1: decoding took too long")]
    assert time.monotonic() - start < 60


def test_16_a_scan(desk):
    picture = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    Image.fromarray(pixels).save(picture, "JPEG")
    entries = b"/Type /XObject /Subtype /Image /Width 200 /Height 100 /BitsPerComponent 8 /ColorSpace /DeviceRGB"
    data = assembled(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R"
        b" /Resources << /XObject << /X 5 0 R >> >> >>",
        stream(b"q 200 0 0 100 0 0 cm /X Do Q"),
        stream(picture.getvalue(), entries + b" /Filter /DCTDecode"),
    )
    path = desk.write("a.pdf", data)
    outcome = desk.index(path)
    assert outcome.code == "indexed" and pages_of(outcome) == [(1, "")]
    assert desk.pool.unit(path, "page", 1).pixels.std() > 20, "the scan is what is seen"
