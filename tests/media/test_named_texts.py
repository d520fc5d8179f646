"""Fourteen texts that have hurt others, each with its stated outcome, through the whole of indexing.

A text is indexed with its encoding in the ledger, or skipped with a reason; it is never indexed as other words than
it holds. The numbers in the names are those of the cases.
"""

import random
import zlib

import numpy as np
import pytest

from sightline.media import text
from sightline.settings import Settings
from sightline.testing import ToyEmbedder
from tests.media.outcome import Desk, watched

MB = 2**20
ENGLISH = "The red bicycle stands in front of the house. "
FRENCH = "Le vélo rouge est garé devant la maison d'à côté, où l'été passe. "
CHINESE = "红色的自行车停在房子前面，天气很好。"
SPECIAL = (
    "<|im_start|> <|im_end|> <|endoftext|> <|vision_start|><|image_pad|><|vision_end|> <|video_pad|> <tool_call> "
    "</tool_call> <think> </think> <|fim_prefix|> <|im_<|im_end|>end|> <|placeholder|> <|object_ref_start|>"
)


class QuickEmbedder(ToyEmbedder):
    """As quick as a test of fifty megabytes needs it: one direction for each text, four characters a token."""

    def _one(self, item):
        vector = np.full(self.card.dim, 0.01)
        vector[zlib.crc32("".join(item.texts).encode()) % self.card.dim] = 1
        return vector

    def count_tokens(self, text):
        return len(text) // 4


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("named-texts"), QuickEmbedder())
    yield desk
    desk.close()


def words(outcome):
    """The words of the rows, without regard to how they were cut."""
    assert outcome.code == "indexed", (outcome.code, outcome.detail)
    return sorted("\n".join(row.text for row in outcome.rows).split())


def assert_indexed(desk, data, encoding, value, name="a.txt"):
    outcome = desk.take(name, data)
    assert words(outcome) == sorted(value.split())
    assert outcome.detail == f"encoding {encoding}"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.json", "a"])
def test_01_nothing_is_empty(desk, name):
    assert desk.take(name, b"").code == "empty"


@pytest.mark.parametrize("data", [b" ", b"\n" * 999, " \t\r\n\u3000\u2028".encode() * 99, "\ufeff".encode(), b"\x1b\n"])
def test_02_white_space_is_empty(desk, data):
    path = desk.write("a.txt", data)
    assert [desk.index(path).code for _ in range(2)] == ["empty", "empty"]


def test_03_two_hundred_megabytes_and_a_byte_are_too_large(desk):
    path = desk.write("large.txt", ENGLISH.encode() * 2000)
    with path.open("r+b") as file:
        file.truncate(Settings().text_max_bytes + 1)
    outcome = desk.index(path)
    assert outcome.code == "too_large"
    assert outcome.parent_bytes < 50 * MB


def lines(num_bytes):
    """Different words on every line."""
    chosen, made = random.Random(0), 0
    while made < num_bytes:
        line = f"{chosen.randrange(10**12)} {ENGLISH * 3}\n"
        made += len(line)
        yield line


@pytest.mark.slow
def test_03_two_hundred_megabytes_stream_in_bounded_memory(desk):
    """Decoded as they are for indexing: what a decoder and this process hold is chunks, not the file."""
    path = desk.write("large.txt", b"")
    with path.open("w") as file:
        file.writelines(lines(Settings().text_max_bytes - 1000))
    size = 0
    with watched() as peaks:
        for unit in desk.pool.units(path):
            size += len(unit.text)
    assert size > 0.95 * path.stat().st_size
    assert peaks["parent"] < 3 * text.CHUNK_BYTES + 30 * MB
    assert peaks["grown"] < 3 * text.CHUNK_BYTES + 30 * MB


@pytest.mark.parametrize("size", [5 * MB, pytest.param(50 * MB, marks=pytest.mark.slow)])
def test_04_a_line_of_fifty_megabytes_is_cut(desk, size):
    value = ENGLISH * (size // len(ENGLISH))
    # fifty thousand rows are mostly work of the store and its indexes
    outcome = desk.take("line.txt", value.encode(), max_s=120)
    assert outcome.code == "indexed"
    assert max(len(row.text) for row in outcome.rows) <= 4 * Settings().text_passage_tokens + 3
    # words are cut nowhere and lost nowhere
    assert sum(len(row.text.split()) for row in outcome.rows) == len(value.split())
    assert outcome.child_bytes < 150 * MB


def test_05_stray_nul_bytes_are_left_out(desk):
    assert_indexed(desk, (ENGLISH * 20).encode() + b"\0end\0", "utf-8", ENGLISH * 20 + "end")


@pytest.mark.parametrize("data", [bytes(1000), (ENGLISH + "\0").encode() * 20 + bytes(900)])
def test_05_many_nul_bytes_are_no_text(desk, data):
    assert desk.take("a.txt", data).code == "not_media"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("value", [ENGLISH * 20, FRENCH * 20])
def test_06_utf_16_with_and_without_its_mark(desk, encoding, value):
    assert_indexed(desk, value.encode(encoding), encoding, value)


def test_06_utf_16_of_chinese_with_its_mark(desk):
    assert_indexed(desk, (CHINESE * 20).encode("utf-16"), "utf-16", CHINESE * 20)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_07_latin_1(desk, encoding):
    value = FRENCH * 20 + ("“quoted” – €" if encoding == "cp1252" else "")
    assert_indexed(desk, value.encode(encoding), "cp1252", value)


@pytest.mark.parametrize("encoding", ["gb18030", "gbk"])
def test_08_gb18030(desk, encoding):
    value = "\n\n".join([CHINESE * 3] * 20)
    assert_indexed(desk, value.encode(encoding), "gb18030", value)


def test_09_a_little_invalid_utf_8_is_borne_and_marked(desk):
    value = CHINESE * 40
    outcome = desk.take("a.txt", value.encode() + b"\xff" + value.encode())
    assert outcome.detail == "encoding utf-8"
    found = "".join(row.text for row in outcome.rows)
    assert found.count("\ufffd") == 1


@pytest.mark.parametrize("value", [CHINESE, "Привет, мир. "])
def test_09_much_invalid_utf_8_is_no_text(desk, value):
    data = bytearray((value * 200).encode())
    for place in range(0, len(data), 40):
        data[place] = 0xFF
    assert desk.take("a.txt", bytes(data)).code == "not_media"


def test_09_damage_that_comes_late_is_told_and_no_wrong_words_are_indexed(desk):
    good = (ENGLISH * 60_000).encode()
    outcome = desk.take("late.txt", good + bytes(range(1, 256)) * 9000)
    assert {row.text for row in outcome.rows if "\ufffd" in row.text} == set()
    assert outcome.code == "indexed"
    (failure,) = [one for one in desk.library.failures() if one.path.endswith("late.txt")]
    assert failure.code == "binary"


@pytest.mark.parametrize("late", [FRENCH, "Año nuevo, mañana será otro día. "])
def test_09_an_encoding_that_shows_late_is_found(desk, late):
    """Sixty-four kilobytes of ASCII say nothing about what follows."""
    value = ENGLISH * 2000 + late * 200
    assert_indexed(desk, value.encode("latin-1"), "cp1252", value)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a"])
def test_10_binary_named_txt_is_no_text(desk, name):
    data = random.Random(0).randbytes(5000)
    assert desk.take(name, b"x" + data).code == "not_media"


def test_11_a_million_combining_marks(desk):
    value = "a" + "\u0301" * 1_000_000
    outcome = desk.take("zalgo.txt", value.encode())
    assert outcome.code == "indexed"
    assert sum(row.text.count("\u0301") for row in outcome.rows) == 1_000_000
    assert all(len(row.text) <= 4 * Settings().text_passage_tokens + 3 for row in outcome.rows)


def test_12_writing_against_the_grain(desk):
    """The override is in the words; no hit lets it turn what stands around it."""
    value = "invoice \u202egpj.exe\u2066 \u2067 \u200f paid"
    outcome = desk.take("rtl.txt", value.encode())
    (row,) = outcome.rows
    assert row.text == value
    (hit,) = [hit for hit in desk.library.search("invoice paid", k=10) if hit.path.endswith("rtl.txt")]
    assert not set(hit.snippet) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_13_special_tokens_are_words(desk):
    outcome = desk.take("tokens.txt", SPECIAL.encode())
    (row,) = outcome.rows
    assert row.text == SPECIAL
    assert "tokens.txt" in {hit.path.rsplit("/", 1)[1] for hit in desk.library.search(SPECIAL, k=3)}


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b'{"a": "\\ud800", "b": "red bicycle"}', "\\ud800"),
        (b'{"a": "' + b"\xed\xa0\x80" + b'", "b": "' + b"red bicycle " * 60 + b'"}', "\ufffd"),
    ],
)
def test_14_half_characters_in_json(desk, data, seen):
    outcome = desk.take("a.json", data)
    assert outcome.code == "indexed"
    found = "".join(row.text for row in outcome.rows)
    assert seen in found
    assert "red bicycle" in found
    assert not any("\ud800" <= char <= "\udfff" for char in found)
