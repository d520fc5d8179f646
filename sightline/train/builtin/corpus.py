"""The shared training data, read and split once, the same way every time.

What is kept for validation is decided by the hash of what must not leak, and by nothing else:

- a sentence, definition or question falls into the first ``HELD_OUT`` of a hundred parts. Every row of every source
  that holds it, or the same words with other capitals and punctuation, is held out with it, and no page shows it;
- a photograph, icon, chart or picture of shapes by its own name, or its scene's;
- the name of an emoji in one language by base character and language, ``NAMES_HELD_OUT`` of a hundred pairs. The
  picture is learned from its names in other languages, but wherever that name is said in that language (of another
  emoji, in a translation, among keywords) it is held out too.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from PIL import Image

HELD_OUT: Final = 10
"""Percent of every source kept for validation."""
NAMES_HELD_OUT: Final = 8
"""Percent of the pairs of base character and language whose names are kept for validation."""
SALT: Final = "sightline-builtin-1"
PUNCTUATION: Final = re.compile(r"[\s!-/:-@\[-`{-~…“”‘’„«»–—¿¡。、،؟]+")


def held_out(key: str, percent: int = HELD_OUT) -> bool:
    """Whether what this key names belongs to validation."""
    digest = hashlib.blake2b(f"{SALT}|{key}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < percent


def plain(text: str) -> str:
    """The words of a text without capitals and punctuation: texts that are equal so count as one.

    >>> plain("I remember that!") == plain("I remember that.")
    True
    """
    return PUNCTUATION.sub(" ", text.casefold()).strip() or text


@dataclass(frozen=True, slots=True)
class Row:
    """One pair of the shared data: text or picture id on either side."""

    src: str
    task: str
    lang: str
    q_text: str
    q_image: str
    d_text: str
    d_image: str
    neg_image: str


def base(picture: str) -> str:
    """The base character of an emoji's picture, in hexadecimal: what its skin tones and genders share.

    >>> base("img/1f477_1f3fd_200d_2642.webp")
    '1f477'
    """
    return picture.rsplit("/", 1)[-1].split("_", maxsplit=1)[0].removesuffix(".webp")


def name_held_out(picture: str, lang: str) -> bool:
    """Whether the names of this emoji in this language belong to validation."""
    return held_out(f"emoji|{base(picture)}|{lang}", NAMES_HELD_OUT)


def picture_key(row: Row) -> str:
    """What of a row of pictures must not be seen in training; "" for a row of texts."""
    match row.src:
        case "emoji-tone":
            return "emoji|" + base(row.q_image)
        case "nlvr":
            return "nlvr|" + (row.d_image or row.neg_image).rsplit("/", 1)[-1].split("-")[0]
        case "clothing" | "grocery" | "lucide" | "vega":
            return row.q_image
        case _:
            return ""


def text_keys(row: Row) -> tuple[str, ...]:
    """The texts of a row of texts that must not be seen in training, in any source."""
    match row.src:
        case "wordnet-ex":
            return row.d_text.split(": ", 1)[-1], row.q_text
        case "banking77":
            return (row.q_text,)
        case _:
            return (row.d_text,)


EMOJI_NAMES: Final = ("emoji-name", "emoji-keywords", "emoji-xling")


class Corpus:
    """Pairs and pictures of a data folder.

    Attributes:
        train, valid: rows by source.
        sentences, valid_sentences: English sentences to render, none in both.
        hidden: every text that is held out, as ``plain`` gives it.
        names: (language, name) of emoji held out, in small letters.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train: dict[str, list[Row]] = defaultdict(list)
        self.valid: dict[str, list[Row]] = defaultdict(list)
        names = [*Row.__dataclass_fields__]
        columns: dict[str, list[Any]] = pq.read_table(folder / "pairs.parquet", columns=names).to_pydict()
        rows = [Row(*(value or "" for value in values)) for values in zip(*(columns[n] for n in names), strict=True)]
        self._split_emoji(row for row in rows if row.src in EMOJI_NAMES)
        self._split_pictures(row for row in rows if picture_key(row))
        self._split_texts([row for row in rows if row.src not in EMOJI_NAMES and not picture_key(row)])
        sentences = sorted({text for text in self._english() if 12 <= len(text) <= 160 and text.isprintable()})
        self.sentences = [text for text in sentences if plain(text) not in self.hidden]
        self.valid_sentences = [text for text in sentences if plain(text) in self.hidden]
        self._pictures: dict[str, bytes] | None = None

    def _split_texts(self, rows: Sequence[Row]) -> None:
        self.hidden = {plain(text) for row in rows for text in text_keys(row) if held_out(text)}
        for row in rows:
            side = self.valid if any(plain(text) in self.hidden for text in text_keys(row)) else self.train
            side[row.src].append(row)
        # a sentence with two translations, one held out: the other would show half of the held-out pair
        asked = {(row.lang, plain(row.q_text)) for row in self.valid["tatoeba"]}
        self.train["tatoeba"] = [r for r in self.train["tatoeba"] if (r.lang, plain(r.q_text)) not in asked]

    def _split_pictures(self, rows: Iterable[Row]) -> None:
        for row in rows:
            (self.valid if held_out(picture_key(row)) else self.train)[row.src].append(row)

    def _split_emoji(self, rows: Iterable[Row]) -> None:
        """Names held out in a language leave every row of that language: names, translations, keywords."""
        rows = list(rows)
        self.names = {
            (row.lang, row.d_text.casefold())
            for row in rows
            if row.src == "emoji-name" and name_held_out(row.q_image, row.lang)
        }
        for row in rows:
            if row.src == "emoji-keywords":
                words = row.d_text.split(", ")
                kept = [word for word in words if (row.lang, word.casefold()) not in self.names]
                if kept:
                    self.train[row.src].append(replace(row, d_text=", ".join(kept)) if kept != words else row)
                continue
            said = {(row.lang, row.d_text.casefold())}
            if row.src == "emoji-xling":
                said = {(row.lang, row.q_text.casefold()), ("en", row.d_text.casefold())}
            (self.train if said.isdisjoint(self.names) else self.valid)[row.src].append(row)

    def _english(self) -> Iterator[str]:
        for rows in (self.train, self.valid):
            for row in rows["tatoeba"]:
                yield row.d_text
            for row in rows["wordnet-ex"]:
                yield row.q_text
            for row in rows["wordnet"]:
                if len(row.d_text) <= 100:
                    yield row.d_text
            for row in rows["banking77"]:
                yield row.q_text

    def texts(self) -> Iterator[str]:
        """Training texts for the tokenizer; English sentences and names more than once, because they matter most."""
        for src, rows in self.train.items():
            for row in rows:
                repeat = 3 if src in ("tatoeba", "wordnet-ex", "banking77") else 1
                for _ in range(repeat):
                    if row.d_text:
                        yield row.d_text
                if row.q_text:
                    yield row.q_text

    def picture(self, name: str) -> Image.Image:
        """A picture by its id, on white."""
        if self._pictures is None:
            table = pq.read_table(self.folder / "images.parquet", columns=["id", "webp"])
            self._pictures = dict(zip(table["id"].to_pylist(), table["webp"].to_pylist(), strict=True))
        image: Image.Image = Image.open(io.BytesIO(self._pictures[name]))
        if image.mode in ("RGBA", "LA", "P"):
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image = white
        return image.convert("RGB")
