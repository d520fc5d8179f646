"""What a word is in any script, and what of it is looked for.

A word is a run of letters and digits with the signs that stand on them: most words of India hold vowels that are
neither letter nor digit, and would fall apart without. It ends where the script changes to one that is written without
blanks: the "iPhone" of 我的iPhone is a word. Of those scripts no word is known, so their runs are looked for in pieces:
two characters where a character is a syllable or a word (Chinese, Japanese, Korean), three letters, each with its
signs, where it is a letter (Thai, Lao, Burmese, Khmer).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

_CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_JOINED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED_RUN: Final = re.compile(f"[{_CJK}]+|[{_JOINED}]+")
_IS_CJK: Final = re.compile(f"[{_CJK}]")
_LAST_MARK: Final = 0x1E950
"""Code point after the last script with signs on its letters (Adlam)."""


def is_of_word(char: str) -> bool:
    """Letters, digits, and the signs on them that are neither.

    >>> is_of_word("é"), is_of_word("ि"), is_of_word("-")
    (True, True, False)
    """
    return char.isalnum() or (not char.isascii() and is_sign(char))


def is_sign(char: str) -> bool:
    """Whether a character stands on, under or beside the one before it, and is nothing without it.

    >>> is_sign("ि"), is_sign("\u0301"), is_sign("e")
    (True, True, False)
    """
    return unicodedata.category(char)[0] == "M"


def is_unspaced(text: str) -> bool:
    """Whether a text holds characters of a script that is written without blanks.

    >>> is_unspaced("a 自行车"), is_unspaced("รถไฟ"), is_unspaced("bicycle")
    (True, True, False)
    """
    return _UNSPACED_RUN.search(text) is not None


def words(text: str) -> list[str]:
    """The words of a text, and the runs of scripts without blanks, in order.

    >>> words("my iPhone手机, पहली बारिश")
    ['my', 'iPhone', '手机', 'पहली', 'बारिश']
    """
    whole = "".join(char if is_of_word(char) else " " for char in text)
    return _UNSPACED_RUN.sub(lambda run: f" {run[0]} ", whole).split()


def pieces(run: str) -> list[str]:
    """What is looked for of a run of a script without blanks.

    >>> pieces("自行车"), pieces("ต้มยำ")
    (['自行', '行车'], ['ต้มย', 'มยำ'])
    """
    letters, size = (list(run), 2) if _IS_CJK.match(run) else (_letters(run), 3)
    return ["".join(letters[at : at + size]) for at in range(max(1, len(letters) - size + 1))]


def _letters(run: str) -> list[str]:
    """Letters with the signs on them."""
    out: list[str] = []
    for char in run:
        if out and is_sign(char):
            out[-1] += char
        else:
            out.append(char)
    return out


@cache
def spaced() -> str:
    """A pattern for one character of a word of a script with blanks; of width one, so that one may look behind it."""
    marks = "".join(char for char in map(chr, range(0x300, _LAST_MARK)) if is_sign(char) and not is_unspaced(char))
    return rf"(?:[^\W_{_CJK}{_JOINED}]|[{marks}])"
