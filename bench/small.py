"""What is measured: a random checkpoint of about 100 M parameters, and the same items for every engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sightline.types import Item, VideoFrames
from tests.parity.checkpoints import EMBEDDING_2B, RERANKER_8B, TEXTS, TINY, Shape, num_parameters, random_checkpoint

SMALL: Final = Shape(
    hidden=768,
    layers=12,
    heads=6,
    kv_heads=2,
    mlp=1536,
    vision_hidden=512,
    vision_depth=12,
    vision_heads=8,
    vision_mlp=1536,
    deepstack=(2, 5, 8),
)
"""117 M parameters: decoder 62, vision tower 55, table 0.7 (the tokenizer is the tests' small one)."""

Size = Literal["tiny", "small", "2b", "8b"]
SIZES: Final = get_args(Size)
SHAPES: Final[dict[Size, Shape]] = {"tiny": TINY, "small": SMALL, "2b": EMBEDDING_2B, "8b": RERANKER_8B}
"""``tiny`` shows that a script runs; ``2b`` and ``8b`` have the true shapes of the published models."""
Asked = list[Item] | tuple[Item, list[Item]]
"""Items to embed, or a query and its documents."""
Tasks = Mapping[str, Callable[[], Asked]]

ONE_AT_A_TIME: Final = "short text, one at a time"
SEEN_BEFORE: Final = "text query, images seen before"

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Items:
    """The work of one run."""

    texts: list[Item]
    queries: list[Item]
    images: list[Item]
    videos: list[Item]
    documents: list[Item]
    pages: list[Item]
    text_query: Item
    image_query: Item


def checkpoint(folder: Path, dtype: str, size: Size) -> Path:
    """The random checkpoint, written once for each geometry and dtype."""
    shape = SHAPES[size]
    place = folder / f"{num_parameters(shape)}-{dtype}"
    return place if (place / "model.safetensors").is_file() else random_checkpoint(place, shape, dtype=dtype)


EMBED_TASKS: Final[dict[str, Callable[[Items], list[Item]]]] = {
    "text": lambda given: given.texts,
    ONE_AT_A_TIME: lambda given: given.queries,
    "image": lambda given: given.images,
    "video": lambda given: given.videos,
}
RERANK_TASKS: Final[dict[str, Callable[[Items], tuple[Item, list[Item]]]]] = {
    "text query, texts": lambda given: (given.text_query, given.documents),
    "text query, images": lambda given: (given.text_query, given.pages),
    SEEN_BEFORE: lambda given: (given.text_query, given.pages),
    "image query, texts": lambda given: (given.image_query, given.documents),
}


def is_alone(task: str) -> bool:
    """Whether items of a task are given one at a time."""
    return task.endswith("one at a time")


def tasks(kind: str, size: Size) -> Tasks:
    """What is asked on a CPU of a model of a size, ``embed`` or ``rerank``."""
    given = items(size)
    chosen: Mapping[str, Callable[[Items], Asked]] = EMBED_TASKS if kind == "embed" else RERANK_TASKS
    return {name: partial(task, given) for name, task in chosen.items()}


def items(size: Size) -> Items:
    """What a model of a size is given: of the true shapes only a few, because one page takes the 2B half a minute."""
    given = drawn(quick=size == "tiny")
    if size not in ("2b", "8b"):
        return given
    page = Item(image=picture(910, 1287, 6))
    return replace(
        given, texts=given.texts[:8], queries=given.queries[:4], images=[page], videos=given.videos[:1],
        documents=given.documents[:5], pages=given.pages[:2],
    )  # fmt: skip


def drawn(*, quick: bool) -> Items:
    """The same items in every run: lengths and sizes are mixed, as they are in a folder."""
    draw = random.Random(7)
    words = " ".join(TEXTS[:3]).replace("<", "").replace(">", "").split()

    def text(characters: int) -> str:
        made = ""
        while len(made) < characters:
            made += draw.choice(words) + " "
        return made[:characters]

    count = 6 if quick else 64
    longest = 300 if quick else 2830
    lengths = [round(41 * (longest / 41) ** ((index / (count - 1)) ** 1.4)) for index in range(count)]
    draw.shuffle(lengths)
    sides = [(96, 64), (64, 128)] if quick else SIDES
    clips = [(64, 64, 2)] if quick else [(320, 180, 6), (320, 240, 10)]
    documents = 3 if quick else 20
    page_sides = (
        [(64 + 32 * (i % 2), 64) for i in range(3)] if quick else [(352 + 32 * (i % 9), 448) for i in range(20)]
    )
    return Items(
        texts=[Item(text=text(length)) for length in lengths],
        queries=[Item(text=text(60)) for _ in range(3 if quick else 16)],
        images=[Item(image=picture(*side, seed)) for seed, side in enumerate(sides)],
        videos=[Item(video=video(*clip)) for clip in clips],
        documents=[Item(text=text(80 if quick else draw.randint(700, 900))) for _ in range(documents)],
        pages=[Item(image=picture(*side, 50 + seed)) for seed, side in enumerate(page_sides)],
        text_query=Item(text=text(150)),
        image_query=Item(image=picture(96, 96, 99) if quick else picture(910, 1287, 99)),
    )


SIDES: Final = [
    *((448, 172), (640, 480), (333, 500), (1000, 872), (800, 600), (512, 512), (910, 1287), (480, 640), (1000, 400)),
    *((320, 240), (720, 720), (600, 900)),
]
"""(width, height) of the twelve pictures; one is the size of a page."""


def picture(width: int, height: int, seed: int) -> Pixels:
    """Coarse random colours with fine noise."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3))
    fine = draw.integers(0, 32, (height, width, 3))
    return (coarse.repeat(32, 0).repeat(32, 1)[:height, :width] * 0.87 + fine).astype(np.uint8)


def video(width: int, height: int, frames: int, first: int = 100) -> VideoFrames:
    """A clip at one frame per second, decoded already; ``first`` is the seed of its first frame."""
    stack = np.stack([picture(width, height, first + index) for index in range(frames)])
    return VideoFrames(frames=stack, indices=tuple(range(frames)), fps=1.0)
