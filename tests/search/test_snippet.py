"""Snippets: around the match, in any script, fit to be shown."""

import unicodedata

import pytest
from hypothesis import given, strategies as st

from sightline.search.snippet import SNIPPET_CHARS, matches, printable, snippet, terms


@given(st.text(max_size=600), st.text(max_size=40))
def test_always_short_and_without_control_characters(text: str, query: str) -> None:
    shown = snippet(text, query)
    assert len(shown) <= SNIPPET_CHARS
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("needle", "filler"),
    [
        ("bicycle", "word "),
        ("自行车", "汉字文本"),
        ("자전거를", "한국어 "),
        ("自転車", "ひらがなカタカナ"),
        ("Straße", "wort "),
    ],
)
def test_the_match_is_inside(needle: str, filler: str) -> None:
    text = filler * 200 + needle + filler * 200
    shown = snippet(text, needle)
    assert needle in shown
    assert shown.startswith("… ") and shown.endswith(" …")
    assert len(shown) <= SNIPPET_CHARS


def test_the_window_with_more_words_of_the_query_wins() -> None:
    text = "red " + "x " * 300 + "a red bicycle" + " y" * 300
    assert "a red bicycle" in snippet(text, "red bicycle")


def test_a_cjk_query_is_found_by_its_pairs() -> None:
    assert "红色的自行" in snippet("文" * 400 + "红色的自行" + "字" * 400, "自行车")


def test_beginning_without_a_match() -> None:
    assert snippet("start " + "x " * 300, "absent").startswith("start x")


def test_printable_drops_direction_marks_and_keeps_joiners() -> None:
    assert printable("a\u202eb\u2066c\ufeff\x00") == "abc"
    family = "\U0001f468\u200d\U0001f469"
    assert printable(family) == family


def test_terms_keep_words_and_add_pairs() -> None:
    assert terms("Red bicycle") == ["red", "bicycle"]
    assert terms("자전거") == ["자전거", "자전", "전거"]


def test_huge_text_is_quick() -> None:
    assert len(snippet("a" * 50_000_000, "a b c")) <= SNIPPET_CHARS


def test_small_words_are_not_marked_beside_others():
    text = "Go to the AI desk of room 42, to the left; 茶 is there"

    def marked(query):
        return [text[start:end] for start, end in matches(text, query)]

    assert marked("to the desk of AI in room 42") == ["the", "AI", "desk", "room", "42", "the"]
    assert marked("to of") == ["to", "of", "to"], "where there are no others, they are what was asked for"
    assert marked("to 茶") == ["茶"]


@pytest.mark.parametrize(
    ("text", "query", "marked"),
    [
        ("दिल्ली में पहली बारिश हुई, बस रुकी", "बारिश", ["बारिश"]),  # signs for vowels are a part of the word
        ("சென்னையில் மழை பெய்தது", "மழை", ["மழை"]),
        ("நான் மழையில் நடந்தேன்", "மழையில்", ["மழையில்"]),
        ("นั่งรถไฟไปเชียงใหม่", "รถไฟ", ["รถไฟ"]),  # inside a sentence without blanks
        ("我的iPhone手机坏了", "iphone", ["iPhone"]),
        ("ซื้อiPhoneใหม่", "iPhone", ["iPhone"]),
        ("我的手机坏了", "iPhone手机", ["手机"]),
        ("cafe\u0301s and cafes", "cafe\u0301", ["cafe\u0301s"]),
        ("IMG_0109.jpg by my_camera", "img 0109 camera", ["IMG", "0109", "camera"]),
    ],
)
def test_words_of_any_script_are_marked_whole(text: str, query: str, marked: list[str]) -> None:
    assert [text[start:end] for start, end in matches(text, query)] == marked


@pytest.mark.parametrize("letters", ["कि", "ம்", "ក្រ", "e\u0301"])
def test_a_snippet_is_not_cut_between_a_letter_and_its_sign(letters: str) -> None:
    for before in range(120, 124):
        shown = snippet("x" * before + letters * 400, "x", size=150).removesuffix(" …")
        rest = (letters * 400)[len(shown.lstrip("x")) :]
        assert not unicodedata.category(rest[0]).startswith("M")
