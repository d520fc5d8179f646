"""The exact strings of the official templates, as parts: text, control tokens, and slots for pictures and videos.

Parts are joined without separators. What the templates say, and what they do not (no newline between instruction and
``<Query>:``, no space after the colon), decides the vectors; the source is the official repository at 8ce3aab and the
chat template of the embedding checkpoints.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sightline.prep.patches import MERGE, Grid
from sightline.prep.tokens import Tokenizer

EMBED_INSTRUCTION: Final = "Represent the user's input."
RERANK_INSTRUCTION: Final = "Given a search query, retrieve relevant candidates that answer the query."
RERANK_SYSTEM: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
NOTHING: Final = "NULL"
"""What the official code says for an item with nothing in it."""
TEMPLATE: Final = "qwen3-vl-1"
"""Version of these strings; an index remembers it."""

VideoLayout: TypeAlias = Literal["4.57", "5"]
"""Video prompts of transformers 4.57 (what the published results were made with) or of 5.x (one outer pair more)."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control token, by name."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Visual:
    """A picture or video as the vision tower takes it.

    Attributes:
        patches: (P, 768) uint8 for a still picture, (P, 1536) for a video.
        grid: (temporal patches, rows, columns) in patches.
        timestamps_s: seconds of each temporal patch of a video; empty for a picture.
        key: hash of patches and grid, by which vision features are remembered.
        frames: (F, Y, X, 3) uint8 as decoded, where the model's device is to resize them; there are no patches then.
    """

    patches: NDArray[np.uint8]
    grid: Grid
    timestamps_s: tuple[float, ...]
    key: bytes
    frames: NDArray[np.uint8] | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return bool(self.timestamps_s)


Part: TypeAlias = str | Control | Visual


def punctuated(instruction: str) -> str:
    """The instruction, stripped, with a full stop unless it ends in punctuation (embedder only).

    >>> punctuated("Find the page"), punctuated("Which one?")
    ('Find the page.', 'Which one?')
    """
    instruction = instruction.strip()
    if instruction and not unicodedata.category(instruction[-1]).startswith("P"):
        return instruction + "."
    return instruction


def content(visuals: Sequence[Visual], texts: Sequence[str]) -> list[Part]:
    """Videos, then images, then texts, whatever the order they were given in; ``NULL`` for nothing."""
    if not visuals and not texts:
        return [NOTHING]
    return [*(v for v in visuals if v.is_video), *(v for v in visuals if not v.is_video), *texts]


def embedding_prompt(instruction: str, body: Sequence[Part]) -> list[Part]:
    """System turn, user turn, empty assistant turn, and ``<|endoftext|>``, whose last state is the vector."""
    return [*_turns(instruction, body), Control("<|endoftext|>")]


def head_parts(instruction: str) -> list[Part]:
    """The beginning of a prompt that no content can change: "user" and its newline are apart in every tokenizer here.

    The newline itself is left out, because it merges with a newline the text may begin with.
    """
    start = Control("<|im_start|>")
    return [start, "system\n" + instruction, Control("<|im_end|>"), "\n", start, "user"]


def reranking_prompt(instruction: str, query: Sequence[Part], document: Sequence[Part]) -> list[Part]:
    """The yes-or-no question; it is scored at its last token, the newline after ``assistant``."""
    body = [f"<Instruct>: {instruction}", "<Query>:", *query, "\n<Document>:", *document]
    return _turns(RERANK_SYSTEM, body)


def tail_parts() -> list[Part]:
    """The end of both prompts, which the reranker's truncation never touches (5 ids in the published tokenizers)."""
    return [Control("<|im_end|>"), "\n", Control("<|im_start|>"), "assistant\n"]


def _turns(system: str, body: Sequence[Part]) -> list[Part]:
    return [*head_parts(system), "\n", *body, *tail_parts()]


def to_ids(parts: Sequence[Part], tokenizer: Tokenizer, layout: VideoLayout = "4.57") -> list[int]:
    """Ids of a prompt. Neighbouring texts are encoded as one string, because merges cross their borders.

    Args:
        parts: the prompt.
        tokenizer: of the checkpoint.
        layout: which transformers' video prompt to follow.

    Returns:
        token ids; each visual holds as many pad ids as its merged tokens.
    """
    ids: list[int] = []
    span: list[str] = []

    def control(name: str) -> None:
        if span:
            ids.extend(tokenizer.encode("".join(span)))
            span.clear()
        ids.append(tokenizer.control(name))

    def pads(name: str, count: int) -> None:
        control("<|vision_start|>")
        ids.extend([tokenizer.control(name)] * count)
        control("<|vision_end|>")

    for part in parts:
        if isinstance(part, str):
            span.append(part)
        elif isinstance(part, Control):
            control(part.name)
        else:
            per_time = part.grid[1] * part.grid[2] // MERGE**2
            if not part.is_video:
                pads("<|image_pad|>", per_time)
                continue
            if layout == "5":
                control("<|vision_start|>")
            for seconds in part.timestamps_s:
                span.append(f"<{seconds:.1f} seconds>")
                pads("<|video_pad|>", per_time)
            if layout == "5":
                control("<|vision_end|>")
    if span:
        ids.extend(tokenizer.encode("".join(span)))
    return ids


def runs(visuals: Sequence[Visual]) -> list[tuple[int, int]]:
    """(rows, columns) in merged tokens of every run of pads, in prompt order (see ``positions``)."""
    return [(v.grid[1] // MERGE, v.grid[2] // MERGE) for v in visuals for _ in range(v.grid[0])]
