"""PDF pages: within the budget, with their words, each failing alone."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sightline.media import pdf, units
from sightline.settings import Settings

read: Any = units.units


@pytest.fixture
def read_bytes(tmp_path):
    """The units of a file with these bytes."""

    def read_bytes(data, title, settings):
        path = tmp_path / f"{title}.pdf"
        path.write_bytes(data)
        return read(path, settings)

    return read_bytes


def test_pages_and_words(make_pdf, settings):
    data = make_pdf(["first page", "second page", "third"])
    assert pdf.num_pages(data, settings) == 3
    found = list(pdf.pages(data, settings))
    assert [(page.number, page.text) for page in found] == [(1, "first page"), (2, "second page"), (3, "third")]
    assert pdf.page(data, 2, settings).text == "second page"
    for page in found:
        height, width = page.pixels.shape[:2]
        assert abs(width / height - 2) < 0.02 and page.pixels.max() == 255 and page.pixels.min() < 100


def test_colours_are_in_order(make_pdf, settings):
    pixels = pdf.page(make_pdf([""], content=b"1 0 0 rg 0 0 200 100 re f "), 1, settings).pixels
    assert pixels[5, 5].tolist() == [255, 0, 0]


@given(st.floats(0.001, 1e7), st.floats(0.001, 1e7), st.integers(4096, 4_000_000))
def test_no_page_is_over_the_budget(width, height, budget):
    scale = pdf.page_scale(width, height, budget)
    columns, rows = np.ceil(width * scale), np.ceil(height * scale)
    assert columns * rows <= budget and max(columns, rows) <= pdf.MAX_SIDE + 1


@pytest.mark.parametrize("size", [(0, 100), (100, 0), (-1, 5), (float("nan"), 5), (float("inf"), 5)])
def test_a_page_without_size(size, code):
    assert code(pdf.page_scale, *size, 10_000) == "corrupt"


@pytest.mark.parametrize(
    "box",
    [
        "0 0 14400 14400",
        "0 0 1000000 1000000",
        "0 0 0 0",
        "0 0 1 14400",
        "5 5 -600 -800",
        "0 0 0.01 0.01",
        "1 2",
        "a b c d",
    ],
)
def test_odd_boxes_stay_small(box, make_pdf, settings, read_bytes):
    start = time.monotonic()
    for value in read_bytes(make_pdf(["words"], box=box), "a", settings):
        if isinstance(value, units.UnitError):
            assert value.code == "corrupt"
        else:
            assert value.pixels.shape[0] * value.pixels.shape[1] <= settings.pdf_page_pixels
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a red bi\x02\r\ncycle", "a red bicycle"),
        ("a red bi\ufffe\r\ncycle", "a red bicycle"),
        ("a\u00adb", "ab"),
        ("well-\r\nKnown", "well-\nKnown"),
        ("a\x00b\x07c", "abc"),
        ("a \ud800 b", "a b"),
        ("a  \t b\r\n\r\n\r\n\r\nc", "a b\n\nc"),
    ],
)
def test_cleaning(given, expected):
    assert pdf.clean_page_text(given) == expected


def test_titles(make_pdf, tmp_path, settings):
    (tmp_path / "paper.pdf").write_bytes(make_pdf(["x"]))
    (tmp_path / "named.pdf").write_bytes(make_pdf(["x", "y"], info="On\r\nBicycles"))
    assert [unit.title for unit in read(tmp_path / "paper.pdf", settings)] == ["paper p. 1"]
    assert [unit.title for unit in read(tmp_path / "named.pdf", settings)] == [
        "On Bicycles p. 1",
        "On Bicycles p. 2",
    ]


def test_no_pages(make_pdf, settings, code):
    assert code(pdf.num_pages, make_pdf([]), settings) == "no_pages"


def test_the_reason_is_not_that_of_the_document_before(make_pdf, settings, code):
    protected, empty = encrypted(make_pdf, "secret", "owner"), make_pdf([])
    for before, why in ((protected, "password"), (b"%PDF-1.4\n", "corrupt"), (empty, "no_pages")):
        assert code(pdf.num_pages, before, settings) == why
        assert code(pdf.num_pages, empty, settings) == "no_pages"


def test_a_page_that_is_not_there(make_pdf, settings, code):
    assert code(pdf.page, make_pdf(["x"]), 2, settings) == "no_pages"
    assert code(pdf.page, make_pdf(["x"]), 0, settings) == "no_pages"


@pytest.mark.parametrize("cut", [9, 100, 300])
def test_truncated(cut, make_pdf, settings, code):
    assert code(pdf.num_pages, make_pdf(["x"])[:cut], settings) in {"corrupt", "no_pages"}


def test_a_broken_cross_reference_is_rebuilt(make_pdf, settings):
    data = make_pdf(["words"]).replace(b"startxref\n", b"startxref\n9")
    assert pdf.page(data, 1, settings).text == "words"


def test_a_page_that_fails_fails_alone(make_pdf, settings, read_bytes):
    data = make_pdf(["one", "two", "three"])
    # the second page's object is no page any more, at the same length
    second = data.index(b"/Type /Page /", data.index(b"(two)"))
    data = data[:second] + b"/Type /Nope /" + data[second + 13 :]
    found = list(read_bytes(data, "a", settings))
    places = [(value.page, isinstance(value, units.UnitError)) for value in found]
    assert places in ([(1, False), (2, True), (3, False)], [(1, False), (2, False), (3, False)])
    assert len(found) == 3


def test_a_cycle_of_pages(make_pdf, settings, read_bytes):
    data = make_pdf(["x"]).replace(b"/Kids [5 0 R] /Count 1", b"/Kids [2 0 R] /Count 9")
    found = list(read_bytes(data, "a", settings))
    assert found and all(isinstance(value, units.UnitError) for value in found)


def test_the_cap_is_reported(make_pdf, read_bytes):
    found = list(read_bytes(make_pdf([str(n) for n in range(9)]), "a", Settings(pdf_max_pages=4)))
    assert [value.page for value in found] == [1, 2, 3, 4, 5]
    assert found[-1] == units.UnitError(code="too_large", detail="pages 5 to 9 were not read", page=5)


def test_ten_thousand_pages_open_quickly(make_pdf, read_bytes):
    data = make_pdf(["x"] * 10_000)
    start = time.monotonic()
    found = list(read_bytes(data, "a", Settings(pdf_max_pages=20, pdf_page_pixels=4096)))
    assert len(found) == 21 and time.monotonic() - start < 5


def test_passwords(tmp_path, settings, code, make_pdf):
    """Encrypted with the standard handler, revision 3: MD5 and RC4, written out here."""
    for user, expected in (("secret", "password"), ("", None)):
        data = encrypted(make_pdf, user, "owner")
        if expected:
            assert code(pdf.num_pages, data, settings) == expected
        else:
            assert pdf.page(data, 1, settings).text == "hidden words"


def rc4(key, data):
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def encrypted(make_pdf, user, owner):
    """ISO 32000-1, 7.6.3: algorithms 2 to 5, 40-bit keys."""
    import hashlib
    import re

    def padded(word):
        return (word.encode() + PADDING)[:32]

    identity, rights = b"0123456789abcdef", -44
    owner_entry = rc4(hashlib.md5(padded(owner)).digest()[:5], padded(user))
    key = hashlib.md5(padded(user) + owner_entry + rights.to_bytes(4, "little", signed=True) + identity).digest()[:5]
    user_entry = rc4(key, PADDING)
    entry = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <" + owner_entry.hex().encode() + b"> /U <"
    entry += user_entry.hex().encode() + b"> /P %d >> /ID [<" % rights + identity.hex().encode() + b"> <00>] "
    data = make_pdf(["hidden words"], extra=entry)

    def hide(match):
        number = int(match[1])
        salted = key + number.to_bytes(3, "little") + b"\x00\x00"
        return match[0].replace(match[2], rc4(hashlib.md5(salted).digest()[:10], match[2]))

    return re.sub(rb"(?s)(\d+) 0 obj\n<< /Length \d+ >>\nstream\n(.*?)\nendstream", hide, data)
