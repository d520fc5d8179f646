"""The shared training data, read and split once, the same way every time.

A row is kept for validation when the hash of what must not leak (the sentence, the base character, the picture, the
definition) falls into the first ``HELD_OUT`` of a hundred parts. The hash knows nothing but that key, so a sentence
held out of one source is held out of every source and of every page rendered from it.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

HELD_OUT: Final = 10
"""Percent of every source kept for validation."""
SALT: Final = "sightline-builtin-1"

Pixels = NDArray[np.uint8]


def held_out(key: str) -> bool:
    """Whether what this key names belongs to validation."""
    digest = hashlib.blake2b(f"{SALT}|{key}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT


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


def split_key(row: Row) -> str:
    """What of a row must not be seen in training when the row is used for validation."""
    match row.src:
        case "emoji-name" | "emoji-keywords" | "emoji-tone":
            return "emoji|" + row.q_image.rsplit("/", 1)[-1].split("_")[0].removesuffix(".webp")
        case "wordnet":
            return row.d_text
        case "wordnet-ex":
            return row.d_text.split(": ", 1)[-1]
        case "nlvr":
            return "nlvr|" + (row.d_image or row.neg_image).rsplit("/", 1)[-1].split("-")[0]
        case "clothing" | "grocery" | "lucide" | "vega":
            return row.q_image
        case "banking77":
            return row.q_text
        case _:
            return row.d_text


class Corpus:
    """Pairs and pictures of a data folder.

    Attributes:
        train, valid: rows by source.
        sentences, valid_sentences: English sentences to render, none in both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train: dict[str, list[Row]] = defaultdict(list)
        self.valid: dict[str, list[Row]] = defaultdict(list)
        names = [*Row.__dataclass_fields__]
        columns: dict[str, list[Any]] = pq.read_table(folder / "pairs.parquet", columns=names).to_pydict()
        for values in zip(*(columns[name] for name in names), strict=True):
            row = Row(*(value or "" for value in values))
            side = self.valid if held_out(split_key(row)) else self.train
            side[row.src].append(row)
        self._hold_out_names()
        sentences = sorted({text for text in self._english() if 12 <= len(text) <= 160 and text.isprintable()})
        self.sentences = [text for text in sentences if not held_out(text)]
        self.valid_sentences = [text for text in sentences if held_out(text)]
        self._pictures: dict[str, bytes] | None = None

    def _hold_out_names(self) -> None:
        """Names of held-out emoji leave the training of text too, where only their pictures would be unseen."""
        names = {row.d_text for row in self.valid["emoji-name"] if row.lang == "en"}
        self.valid["emoji-xling"] += [row for row in self.train["emoji-xling"] if row.d_text in names]
        self.train["emoji-xling"] = [row for row in self.train["emoji-xling"] if row.d_text not in names]

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


def to_multiple(image: Image.Image, width: int, height: int) -> Pixels:
    """The picture resized to sides that are multiples of 32 pixels, as the model takes it."""
    width, height = max(32, round(width / 32) * 32), max(32, round(height / 32) * 32)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8)


def group_by_text(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of one query text together."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.q_text].append(row)
    return dict(groups)
