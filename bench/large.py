"""What is asked on a GPU: enough of each kind to fill it, each of one length, so that a rate says something."""

from __future__ import annotations

import random
from typing import Final

from bench.small import Size, Tasks, picture, video
from sightline.types import Item
from tests.parity.checkpoints import TEXTS

PAGES: Final = "page, 1,800 tokens"
IMAGES: Final = "image, 256 tokens"
LONG_TEXTS: Final = "text, 512 tokens"
VIDEOS: Final = "video, 64 frames"
QUERIES: Final = "query, 20 tokens, one at a time"
DOCUMENTS: Final = "text query, 100 texts"
LETTERS: Final = 4.4
"""Characters to a token of the checkpoints' tokenizer, in these words."""


def tasks(kind: str, size: Size) -> Tasks:
    """Items by task, ``embed`` or ``rerank``; a few small ones for the size ``tiny``."""
    quick = size == "tiny"
    words = " ".join(TEXTS[:3]).replace("<", "").replace(">", "").split()

    def text(tokens: int, seed: int = 0) -> Item:
        draw, made = random.Random(seed), ""
        while len(made) < tokens * LETTERS:
            made += draw.choice(words) + " "
        return Item(text=made)

    def pictures(count: int, width: int, height: int) -> list[Item]:
        if quick:
            count, width, height = 3, 64, 64
        return [Item(image=picture(width, height, seed)) for seed in range(count)]

    if kind == "rerank":
        length, count = (30, 4) if quick else (128, 100)
        return {DOCUMENTS: lambda: (text(30), [text(length, seed) for seed in range(count)])}
    length, count = (40, 4) if quick else (512, 256)
    clips, clip = (2, (64, 64, 2)) if quick else (8, (448, 320, 64))
    return {
        PAGES: lambda: pictures(32, 1280, 1440),
        IMAGES: lambda: pictures(256, 512, 512),
        LONG_TEXTS: lambda: [text(length, seed) for seed in range(count)],
        VIDEOS: lambda: [Item(video=video(*clip, first=1000 * (1 + seed))) for seed in range(clips)],
        QUERIES: lambda: [text(20, seed) for seed in range(3 if quick else 32)],
    }
