"""How much of a query stands in a row."""

import math

import pytest

from sightline.search.coverage import INSIDE, LONGER, Coverage
from sightline.store.schema import Found


def row(text: str = "", title: str = "") -> Found:
    return Found(
        score=1.0,
        id=f"{title}|{text}",
        path_id="p",
        path="/p",
        kind="text" if text else "image",
        page=None,
        start_s=None,
        end_s=None,
        title=title,
        text=text,
        modified_s=0.0,
        columns={},
    )


NEAR = [row(f"this is where the {word} of the house is") for word in ("garden", "kitchen", "roof", "cellar")]


def test_a_row_with_every_word_holds_all_and_one_with_none_holds_nothing() -> None:
    coverage = Coverage("roof of the house", NEAR)
    assert coverage.share(row("The house, with the roof of tiles")) == 1.0
    assert coverage.share(row("a garden")) == 0.0


def test_the_share_is_as_written() -> None:
    # "roof" stands in one of four texts and "house" in all; "slate" in none. All have four letters or more.
    roof, house, slate = (math.log(5 / (held + 0.5)) ** 2 for held in (1, 4, 0))
    coverage = Coverage("slate roof house", NEAR)
    assert coverage.share(row("a roof")) == pytest.approx(roof / (roof + house + slate))


def test_small_words_say_next_to_nothing() -> None:
    coverage = Coverage("where is the roof of the house", NEAR)
    assert coverage.share(row("the end of the story is here")) < 0.1 < 0.4 < coverage.share(row("a roof"))


def test_in_a_small_index_small_words_are_known_by_a_list() -> None:
    """No text near holds "how" or "do"; of the two words that say something one stands there."""
    coverage = Coverage("how do I froth milk", [])
    assert coverage.share(row("froth")) == pytest.approx((1 - coverage.share(row("how do I"))) / 2)
    assert coverage.share(row("how do I")) < 0.2
    assert Coverage("comment protéger les rosiers", []).share(row("comment les")) < 0.2


def test_words_that_stand_nowhere_count_among_what_is_missing() -> None:
    known, unknown = Coverage("roof", NEAR), Coverage("roof astronaut", NEAR)
    assert unknown.share(row("a roof")) < 0.5 < known.share(row("a roof")) == 1.0


def test_a_part_of_a_word_and_another_ending_count_less_than_the_word() -> None:
    coverage = Coverage("stars", NEAR)
    shares = [
        coverage.share(row(text))
        for text in ("two stars", "the starship, starsailor", "one star", "megastars", "charts")
    ]
    assert shares == [1.0, LONGER, INSIDE, INSIDE, 0.0]
    assert Coverage("art", NEAR).share(row("a bar chart")) == 0.0, "a short word counts where it stands alone"


def test_the_title_is_looked_at_too() -> None:
    assert Coverage("holiday", []).share(row(title="holiday")) == 1.0


@pytest.mark.parametrize(
    ("query", "text", "least", "most"),
    [
        ("绿茶怎么泡", "泡绿茶不要用沸水", 0.2, 0.5),  # one pair of four
        ("绿茶", "泡绿茶不要用沸水", 1.0, 1.0),
        ("café crème", "CAFE\u0301 CREME", 1.0, 1.0),
        ("Ｒｅｄ", "red", 1.0, 1.0),
        ("बारिश", "जब पहली बारिश होती है", 1.0, 1.0),  # signs for vowels are a part of the word
        ("बारिश", "बस रुक शहर", 0.0, 0.0),  # and its letters alone are not the word
        ("รถไฟ", "นั่งรถไฟไปเชียงใหม่", 1.0, 1.0),  # Thai: "train" in "take the train to Chiang Mai"
        ("รถไฟ", "แมวนอนหลับทั้งวัน", 0.0, 0.0),
        ("iPhone手机", "新的iPhone", 0.3, 0.7),  # a word of either script
        ("iPhone手机", "iPhone 和手机壳", 1.0, 1.0),
        ("والنخيل", "أشجار النخيل", INSIDE, INSIDE),  # "and the palms", "trees of palms"
    ],
)
def test_scripts_and_forms(query: str, text: str, least: float, most: float) -> None:
    assert least <= Coverage(query, []).share(row(text)) <= most


def test_a_query_without_words_leaves_places_as_they_are() -> None:
    assert Coverage("?!", NEAR).share(row("anything")) == 1.0


def test_a_very_long_query_and_a_very_long_row_are_looked_at_from_their_beginnings() -> None:
    coverage = Coverage(" ".join(f"word{number}" for number in range(500)), NEAR)
    assert coverage.share(row(" ".join(f"word{number}" for number in range(100)) + " x" * 100_000)) == 1.0
