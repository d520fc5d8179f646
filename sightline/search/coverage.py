"""How much of what a query says stands in a row: the share by which its places in the word lists count.

Ranks alone do not tell a row that holds every word of the query from one that shares an "of the" with it: both may come
first. In fusion by rank the second would count as much as the nearest vector, so that a question of eight words went to
whatever text holds most small words, and a picture to one whose file name shares two letters with the query. So a row's
place in a word list counts by its share::

    share(row) = sum of worth(t) * held(t, row) / sum of worth(t)         over the terms t of the query
    worth(t)   = ln((S + 1) / (n(t) + 1/2)) ** 2                          of S texts near the query, n hold t

The square is that of tf-idf, where the query and the row each bring the rarity once. ``held`` is 1 for a whole word or
a few characters of a script without blanks, ``LONGER`` or ``INSIDE`` for a part of a longer word and for one that
begins alike, else 0. Words that no row holds count among what is not found: one word in four is a quarter.

The rarity is taken from the texts that the vector found: small words stand in most of them in any language, and the
index is not counted for it. A small index holds too little of a language for that, so the small words of the larger
languages count ``SMALL`` of it (``small_words``).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from sightline.search.small_words import SMALL_WORDS
from sightline.search.words import is_of_word, is_unspaced, pieces, words
from sightline.store.schema import Found

LONGER: Final = 0.9
"""Of a word that stands there with another ending: "froth" in "frothing"."""
INSIDE: Final = 0.7
"""Of a word that is another part of a longer one, or begins like one: "stars" and "star"."""
SHORT_CHARS: Final = 3
"""Letters of a word that counts as a whole word only: "art" stands in "chart", and says nothing about it."""
SMALL: Final = 0.03
"""Of the worth of a word that says little."""
WRITTEN_ON: Final = "\u0648\u0641\u0628\u0643\u0644\u05d5\u05d1\u05dc\u05db\u05de\u05e9\u05d4"
"""Letters that are words of their own in Arabic and Hebrew, and stand joined to the next word."""
MOST_TERMS: Final = 48
"""Of a query, from its beginning."""
MOST_CHARS: Final = 8_000
"""Characters of a row that are looked through."""
SAMPLE: Final = 50
"""Rows with a text that the rarity is taken from, the nearest first."""

_MARKS: Final = re.compile("[\u0300-\u036f]+")


class Coverage:
    """The shares of one query.

    Args:
        query: its words.
        near: rows that the vector found, nearest first; those without a text of their own are passed over.
    """

    def __init__(self, query: str, near: Iterable[Found]) -> None:
        wanted = _terms_of(query)[:MOST_TERMS]
        texts = (_fold(row.text[:MOST_CHARS]) for row in near if row.text.strip())
        sample = list(islice(texts, SAMPLE))
        self._terms: list[tuple[_Term, float]] = []
        for term in map(_Term.of, wanted):
            num_holding = sum(term.held(text) > 0 for text in sample)
            rarity = math.log((len(sample) + 1) / (num_holding + 0.5))
            self._terms.append((term, rarity**2 * (SMALL if term.text in SMALL_FOLDED else 1.0)))
        self._whole = sum(worth for _, worth in self._terms)

    def share(self, row: Found) -> float:
        """Of the query, in [0, 1], what stands in the row's title and text; 1 for a query of no words."""
        if not self._whole:
            return 1.0
        text = _fold(f"{row.title}\n{row.text[:MOST_CHARS]}")
        return sum(worth * term.held(text) for term, worth in self._terms) / self._whole


def _fold(text: str) -> str:
    """Small letters without accents, compatible forms made one."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFKD", text.lower())))


def _terms_of(query: str) -> list[str]:
    """Words, and of scripts without blanks pieces."""
    found: dict[str, None] = {}
    for word in words(_fold(query)):
        found.update(dict.fromkeys(pieces(word) if is_unspaced(word) else [word]))
    return list(found)


SMALL_FOLDED: Final = frozenset(map(_fold, SMALL_WORDS))


@dataclass(frozen=True, slots=True)
class _Term:
    """A word, or a few characters of a script without blanks.

    Attributes:
        beginning: with which a word has to begin to count as another form of it.
        bare: the word without an "and", "in", "to" that is written onto it, as in Arabic; "" where there is none.
    """

    text: str
    beginning: str
    bare: str
    unspaced: bool

    @classmethod
    def of(cls, text: str) -> _Term:
        short = len(text) <= SHORT_CHARS
        beginning = text if short else text[: -1 if len(text) <= SHORT_CHARS + 2 else -2]
        bare = text[1:] if len(text) > SHORT_CHARS + 1 and text[0] in WRITTEN_ON else ""
        return cls(text, beginning, bare, is_unspaced(text))

    def held(self, text: str) -> float:
        """1 where it stands as a word, ``LONGER`` or ``INSIDE`` where it is a part of one or one begins alike, else 0.

        No pattern: those took 50 ms for 200 rows of 1,200 characters, this 3.
        """
        wanted, beginning = self.text, self.beginning
        if self.unspaced:
            return float(wanted in text)
        best, at = 0.0, text.find(beginning)
        while at >= 0:
            begins_a_word = at == 0 or not is_of_word(text[at - 1])
            is_there = text.startswith(wanted, at)
            end = at + len(wanted)
            if begins_a_word and is_there and (end == len(text) or not is_of_word(text[end])):
                return 1.0
            if len(wanted) > SHORT_CHARS and (begins_a_word or is_there):
                best = max(best, LONGER if begins_a_word and is_there else INSIDE)
            at = text.find(beginning, at + 1)
        return best or (INSIDE if self.bare and self.bare in text else 0.0)
