"""Bytes to words, words to blocks, blocks to passages."""

import io
import time
import tracemalloc

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from sightline.media import text
from sightline.media.text import Block, blocks, decode, decode_stream, detect_encoding, groups, passages, unit_passages
from sightline.types import Unit

ENGLISH = "The red bicycle stands in front of the house. " * 20
FRENCH = "Le vélo rouge est garé devant la maison d'à côté, où l'été passe. " * 20
CHINESE = "红色的自行车停在房子前面，天气很好。" * 20


def words(value):
    return len(value.split())


@pytest.mark.parametrize(
    ("value", "encoding", "found"),
    [
        (ENGLISH, "ascii", "utf-8"),
        (CHINESE, "utf-8", "utf-8"),
        (CHINESE, "utf-8-sig", "utf-8-sig"),
        (ENGLISH, "utf-16", "utf-16"),
        (ENGLISH, "utf-16-le", "utf-16-le"),
        (ENGLISH, "utf-16-be", "utf-16-be"),
        (FRENCH, "utf-16-le", "utf-16-le"),
        (ENGLISH, "utf-32", "utf-32"),
        (FRENCH, "latin-1", "cp1252"),
        (FRENCH + "“quoted”", "cp1252", "cp1252"),
        (CHINESE, "gb18030", "gb18030"),
        (CHINESE, "gbk", "gb18030"),
    ],
)
def test_encodings(value, encoding, found):
    data = value.encode(encoding)
    assert decode(data) == (value, found)
    assert "".join(decode_stream(io.BytesIO(data), found)) == value


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)),
        bytes(1000),
        b"\x00\xff" * 500,
        ENGLISH.encode() + bytes(200),
        "Привет, мир. ".encode("cp1251") * 30,
    ],
)
def test_what_is_not_text_is_not_guessed(data, code):
    assert code(decode, data) == "binary"


def test_little_damage_is_borne_and_much_is_not(code):
    assert "\ufffd" in decode(CHINESE.encode() + b"\xff" + CHINESE.encode())[0]
    assert detect_encoding(CHINESE.encode() + b"\xff\xfe\x00" * 40) is None
    assert decode(ENGLISH.encode() + b"\x00")[0] == ENGLISH
    assert code(decode, b"") == "empty"


def test_a_character_cut_by_the_sample_is_no_damage():
    data = ("é" * 10 + "x").encode()
    assert detect_encoding(data[:3]) == "utf-8"


def test_damage_found_late_stops_the_stream(code):
    data = ENGLISH.encode() * 40 + bytes(range(1, 256)) * 9000
    assert code(lambda: decode_stream(io.BytesIO(data), "utf-8")) == "binary"


def test_line_ends_over_chunk_borders(monkeypatch):
    monkeypatch.setattr(text, "CHUNK_BYTES", 3)
    assert "".join(decode_stream(io.BytesIO(b"ab\r\ncd\r\n\r\nef\r"), "utf-8")) == "ab\ncd\n\nef\n"


def test_controls_and_marks_of_order_are_kept_out_or_kept():
    assert text.clean("a\x00b\x1bc\ufeff\td") == "abc\td"
    combining = "a" + "\u0301" * 1000
    assert text.clean(combining) == combining
    assert text.clean("\u202eabc") == "\u202eabc"


# -- blocks


def test_plain_blocks_end_at_blank_lines():
    assert [b.text for b in blocks("one\ntwo\n\n\nthree\n")] == ["one\ntwo", "three"]


def test_code_blocks_keep_functions_whole():
    source = "import a\n\n\ndef f():\n    x = 1\n\n    return x\n\n\nclass C:\n\n    def g(self):\n        pass\n"
    found = [b.text for b in blocks(source, "code")]
    assert found == ["import a", "def f():\n    x = 1\n\n    return x", "class C:\n\n    def g(self):\n        pass"]


def test_markdown_headings_name_what_follows():
    source = "intro\n\n# One #\n\ntext a\n\n```py\n# not a heading\n\nx\n```\n\nTwo\n===\ntext b\n## Three\n"
    found = [(b.title, b.text, b.heading) for b in blocks(source, "markdown", title="file")]
    assert found == [
        ("file", "intro", False),
        ("One", "# One #", True),
        ("One", "text a", False),
        ("One", "```py\n# not a heading\n\nx\n```", False),
        ("Two", "Two", True),
        ("Two", "text b", False),
        ("Three", "## Three", True),
    ]


def test_html_without_scripts_and_styles():
    source = """<!DOCTYPE html><html><head><title>The page</title><style>p{}</style></head><body>
    <script>alert('x')</script><p>A <b>red</b> bi&shy;cycle &amp; more</p><h2>Part</h2><ul><li>one<li>two</ul>
    <table><tr><td>a</td><td>b</td></tr></table><noscript>no</noscript></body></html>"""
    found = [(b.title, b.text) for b in blocks(source, "html")]
    assert found[0] == ("The page", "A red bi\u00adcycle & more")
    assert [entry[1] for entry in found[1:]] == ["Part", "one", "two", "a | b"]
    assert {entry[0] for entry in found[1:]} == {"Part"}


def test_broken_html_is_still_read():
    assert next(blocks("<p>one<div <p>two</b></p><!-- <p>three", "html")).text == "one"


def test_html_streams():
    chunks = [f"<p>paragraph {number}</p>" for number in range(1000)]
    assert [b.text for b in blocks("".join(chunks), "html")] == [b.text for b in blocks(chunks, "html")]


def test_csv_repeats_the_header():
    rows = [f"{number},name {number},{'x' * 40}" for number in range(100)]
    found = [b.text for b in blocks("id,name,note\n" + "\n".join(rows), "csv")]
    assert len(found) > 3
    assert all(part.startswith("id,name,note\n") and len(part) <= 900 for part in found)
    assert [line for part in found for line in part.split("\n")[1:]] == rows


@pytest.mark.parametrize("format", ["plain", "markdown", "html", "csv", "code"])
def test_a_long_line_is_cut_and_memory_is_bounded(format):
    def chunks():
        for _ in range(300):
            yield "word " * 20_000

    tracemalloc.start()
    longest = max(len(block.text) for block in blocks(chunks(), format))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert longest <= 2 * text.BLOCK_CHARS
    assert peak < 8 * 2**20


@pytest.mark.parametrize("format", ["plain", "markdown", "html", "csv", "code"])
@given(source=st.text(max_size=300))
@hypothesis_settings(max_examples=60)
def test_no_text_breaks_a_splitter(format, source):
    for block in blocks(text.clean(source), format):
        assert block.text.strip()


# -- groups and passages


def test_groups_hold_one_section():
    source = "# A\n\none\n\n## B\n\n### C\n\ntwo\n"
    found = [(g.title, g.text) for g in groups(blocks(source, "markdown"))]
    assert found == [("A", "# A\n\none"), ("C", "## B\n\n### C\n\ntwo")]


def test_groups_are_bounded():
    found = list(groups(Block(text="x" * 900) for _ in range(50)))
    assert all(len(group.text) <= text.UNIT_CHARS for group in found)
    assert sum(group.text.count("x") for group in found) == 45_000


def test_passages_merge_within_a_section():
    source = "# A\n\none two\n\nthree\n\n# B\n\nfour\n"
    found = [(p.title, p.text) for p in passages(blocks(source, "markdown"), 100, words)]
    assert found == [("A", "# A\n\none two\n\nthree"), ("B", "# B\n\nfour")]


def test_passages_are_cut_at_sentences():
    found = [p.text for p in passages([Block(text="One two. Three four five! Six? Seven.")], 5, words)]
    assert found == ["One two. Three four five!", "Six? Seven."]


def test_passages_are_cut_at_chinese_stops():
    found = [p.text for p in passages([Block(text="红色的自行车。蓝色的汽车！绿色的船？")], 8, len)]
    assert found == ["红色的自行车。", "蓝色的汽车！", "绿色的船？"]


def test_a_word_without_end_is_cut_hard():
    found = [p.text for p in passages([Block(text="x" * 95)], 10, len)]
    assert [len(part) for part in found] == [10] * 9 + [5]


@given(st.text(alphabet="ab 。.\n", max_size=400), st.integers(1, 30))
def test_passages_fit_and_lose_nothing(source, most):
    found = list(passages(blocks(source), most, len))
    assert all(0 < len(part.text) <= most for part in found)
    assert "".join("".join(part.text for part in found).split()) == "".join(source.split())


def test_unit_passages_keep_functions_whole():
    unit = Unit(kind="text", title="a", text="def f():\n    x\n\n    y\n\ndef g():\n    z")
    assert [p.text for p in unit_passages(unit, 4, words)] == ["def f():\n    x\n\n    y", "def g():\n    z"]


def test_splitting_counts_seldom():
    calls = 0

    def count(value):
        nonlocal calls
        calls += 1
        return len(value.split())

    found = list(passages(blocks("word " * 20_000), 200, count))
    assert len(found) >= 100
    assert calls < 30 * len(found)


def test_speed_of_a_megabyte():
    start = time.perf_counter()
    assert list(passages(blocks(ENGLISH * 1000), 256, words))
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("format", ["plain", "markdown", "html", "csv", "code"])
@pytest.mark.parametrize(
    "piece", ["#", "# ", " ", "# #", "<", "<!--", "</", "&", "`", "=", '"', ". ", "。", "a", "\u0301"]
)
def test_no_text_takes_long_to_cut(format, piece):
    start = time.perf_counter()
    list(passages(blocks("# a" + piece * (20_000 // len(piece)), format), 256, len))
    assert time.perf_counter() - start < 2
