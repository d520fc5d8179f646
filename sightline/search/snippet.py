"""The words around a match, fit to be shown.

Works on characters, not on words between blanks, so that Chinese, Japanese, Korean and Thai are found too: a word of
the query counts where one of the text begins with it, and a run of a script without blanks also by its pieces.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from sightline.search.words import is_sign, is_unspaced, pieces, spaced, words

SNIPPET_CHARS: Final = 200
"""Most characters of a snippet, ellipses included."""
SEARCHED_CHARS: Final = 200_000
"""Characters of a text that are looked through."""
SHORT_CHARS: Final = 3
"""Letters of a word that is marked only where it stands alone: "a" would mark every word that begins with it."""

SMALL_CHARS: Final = 2
"""Letters of a word that says little: "a", "of", "to", "in"."""

_JOINERS: Final = "\u200c\u200d"


def printable(text: str) -> str:
    r"""One line without control, direction, private or half characters; blanks are folded.

    >>> printable("a\x1b[31m b\n\tc\u202e")
    'a[31m b c'
    """
    kept = []
    for char in text:
        if char.isspace():
            kept.append(" ")
        elif char in _JOINERS or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn"}:
            kept.append(char)
    return " ".join("".join(kept).split())


def snippet(text: str, query: str = "", *, size: int = SNIPPET_CHARS) -> str:
    """About ``size`` characters of the text around the words of the query, or its beginning.

    >>> snippet("one two three", "two")
    'one two three'
    >>> snippet("x " * 300 + "needle" + " y" * 300, "needle", size=20)
    '… x x needle y y …'
    """
    line = printable(text[:SEARCHED_CHARS])
    if len(line) <= size:
        return line
    start = _best_start(line, terms(query), size - 4)
    end = min(len(line), start + size - (4 if start else 2))
    start, end = _on_borders(line, start, end)
    return ("… " if start else "") + line[start:end].strip() + (" …" if end < len(line) else "")


def terms(query: str) -> list[str]:
    """What to look for: words, and of scripts without blanks the runs and their pieces.

    >>> terms("Red 自行车")
    ['red', '自行车', '自行', '行车']
    """
    found: dict[str, None] = {}
    for word in words(_fold(printable(query))):
        found[word] = None
        if is_unspaced(word):
            found.update(dict.fromkeys(pieces(word)))
    return list(found)


def _fold(text: str) -> str:
    """Lower case of the same length, so that places stay places."""
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _best_start(line: str, wanted: list[str], size: int) -> int:
    """Where the window with the most characters of different terms begins; the matches stand near its first third."""
    folded = _fold(line)
    places = sorted(
        (match.start(), term) for term in wanted[:64] for match in list(re.finditer(_pattern(term), folded))[:200]
    )
    if not places:
        return 0
    best, best_worth = places[0][0], 0
    for index, (start, _) in enumerate(places):
        inside: set[str] = set()
        for place, term in places[index:]:
            if place + len(term) > start + size * 2 // 3:
                break
            inside.add(term)
        worth = sum(len(term) for term in inside)
        if worth > best_worth:
            best, best_worth = start, worth
    return max(0, min(best - size // 3, len(line) - size))


def _pattern(term: str) -> str:
    """At the beginning of a word; anywhere for scripts without blanks."""
    return re.escape(term) if is_unspaced(term) else rf"(?<!{spaced()}){re.escape(term)}"


def _on_borders(line: str, start: int, end: int) -> tuple[int, int]:
    """Moves both ends to a blank if one is near, and off signs that stand on a letter in any case."""
    if start:
        blank = line.find(" ", start, start + 20)
        start = blank + 1 if blank >= 0 else start
        while start < end and (is_sign(line[start]) or line[start] in _JOINERS):
            start += 1
    if end < len(line):
        blank = line.rfind(" ", max(start, end - 20), end + 1)
        end = blank if blank > start else end
        while end > start and end < len(line) and (is_sign(line[end]) or line[end] in _JOINERS):
            end -= 1
    return start, end


def _is_small(word: str) -> bool:
    return len(word) <= SMALL_CHARS and word.isalpha() and word.islower()  # scripts without capitals are not lower


def matches(shown: str, query: str) -> list[tuple[int, int]]:
    """Where words of the query stand in a snippet: [start, end) in characters (code points), in order, apart.

    A word of the query counts at the beginning of a word, as in ``snippet``, and marks it to its end; one of up to
    three letters only counts as a whole word. Small words of one or two letters ("of", "to", but not "AI" or "42")
    are not marked beside others.

    >>> matches("The redder bicycles are red", "red bicycle")
    [(11, 19), (24, 27)]
    >>> matches("a cup of tea", "of a cup"), matches("to be", "to")
    ([(2, 5)], [(0, 2)])
    """
    folded = _fold(shown)
    found: set[tuple[int, int]] = set()
    wanted = terms(query)[:64]
    small = {word for word in words(printable(query)) if _is_small(word)}
    for term in [term for term in wanted if term not in small] or wanted:
        rest = "" if is_unspaced(term) else f"(?!{spaced()})" if len(term) <= SHORT_CHARS else f"{spaced()}*"
        found.update(match.span() for match in re.finditer(_pattern(term) + rest, folded))
    apart: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if apart and start <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((start, end))
    return apart
