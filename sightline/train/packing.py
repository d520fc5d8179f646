"""Sides of training pairs as the model takes them: the product's prompts, packed, their common head computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.model.vl import QwenVL
from sightline.prep.patches import Grid, image_patches, video_patches
from sightline.prep.positions import positions
from sightline.prep.prompt import (
    EMBED_INSTRUCTION,
    RERANK_INSTRUCTION,
    Part,
    Visual,
    content,
    embedding_prompt,
    punctuated,
    reranking_prompt,
    runs,
    to_ids,
)
from sightline.prep.tokens import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A query or a document: text, picture, frames, or several of them.

    Attributes:
        text: words, or "".
        image: (Y, X, 3) uint8, sides multiples of 32.
        frames: (F, Y, X, 3) uint8, likewise.
    """

    text: str = ""
    image: NDArray[np.uint8] | None = None
    frames: NDArray[np.uint8] | None = None

    def parts(self) -> list[Part]:
        """Content of the prompt: video, image, text."""
        visuals = []
        if self.frames is not None:
            patches, grid = video_patches(self.frames)
            visuals.append(Visual(patches, grid, tuple(2.0 * k + 0.5 for k in range(grid[0])), b""))
        if self.image is not None:
            patches, grid = image_patches(self.image)
            visuals.append(Visual(patches, grid, (), b""))
        return content(visuals, [self.text] if self.text else [])


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """N prompts in one row, sorted by length.

    Attributes:
        head: ids of the beginning they share, computed once.
        ids, positions: what comes after it, packed.
        lengths: of each segment.
        patches, grids: pictures in the order of their tokens.
        order: row i of the caller is segment ``order[i]``.
    """

    head: NDArray[np.int64]
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    lengths: list[int]
    patches: list[NDArray[np.uint8]]
    grids: list[Grid]
    order: NDArray[np.int64]


def embedding_pack(
    sides: Sequence[Side], tokenizer: Tokenizer, instruction: str = "", *, max_length: int = 160
) -> Pack:
    """Prompts of an embedder. Text is cut so that a prompt of text alone stays under ``max_length``."""
    system = punctuated(instruction) or EMBED_INSTRUCTION
    return _pack([embedding_prompt(system, side.parts()) for side in sides], tokenizer, max_length)


def reranking_pack(
    pairs: Sequence[tuple[Side, Side]], tokenizer: Tokenizer, instruction: str = "", *, max_length: int = 320
) -> Pack:
    """Prompts of a reranker, one for each (query, document)."""
    told = instruction or RERANK_INSTRUCTION
    prompts = [reranking_prompt(told, query.parts(), document.parts()) for query, document in pairs]
    return _pack(prompts, tokenizer, max_length)


def _pack(prompts: Sequence[Sequence[Part]], tokenizer: Tokenizer, max_length: int) -> Pack:
    pads = [tokenizer.control("<|image_pad|>"), tokenizer.control("<|video_pad|>")]
    rows: list[tuple[NDArray[np.int64], NDArray[np.int64], list[Visual]]] = []
    for parts in prompts:
        ids = to_ids(parts, tokenizer)
        visuals = [part for part in parts if isinstance(part, Visual)]
        if not visuals and len(ids) > max_length:
            ids = ids[: max_length - 6] + ids[-6:]
        array = np.asarray(ids, np.int64)
        rows.append((array, positions(array, np.isin(array, pads), runs(visuals)), visuals))
    head = _common([ids for ids, _, _ in rows], pads)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    visuals = [visual for index in order for visual in rows[index][2]]
    return Pack(
        head=rows[0][0][:head],
        ids=np.concatenate([rows[index][0][head:] for index in order]),
        positions=np.concatenate([rows[index][1][:, head:] for index in order], 1),
        lengths=[len(rows[index][0]) - head for index in order],
        patches=[visual.patches for visual in visuals],
        grids=[visual.grid for visual in visuals],
        order=back,
    )


def _common(rows: Sequence[NDArray[np.int64]], pads: Sequence[int]) -> int:
    """Length of the beginning that all rows share, without pictures and shorter than the shortest."""
    first = rows[0]
    length = min(len(row) for row in rows) - 1
    for row in rows[1:]:
        differ = np.flatnonzero(first[:length] != row[:length])
        length = int(differ[0]) if len(differ) else length
    stops = np.flatnonzero(np.isin(first[:length], pads))
    return int(stops[0]) if len(stops) else length


def forward(model: QwenVL, pack: Pack, features: Sequence[Tensor] | None = None) -> Tensor:
    """Final hidden states (N, C) in the caller's order, with gradients.

    Args:
        model: the network.
        pack: prompts.
        features: of the pack's pictures when they are already there; None computes them.
    """
    if features is None:
        features = vision_features(model, pack)
    prefix = None
    if len(pack.head):
        head = torch.from_numpy(pack.head)
        prefix = model.prefix_states(head, torch.arange(len(head)).expand(3, -1))
    states = model(
        torch.from_numpy(pack.ids),
        torch.from_numpy(pack.positions),
        pack.lengths,
        features=features,
        prefix=prefix,
    )
    return states[torch.from_numpy(pack.order)]  # type: ignore[no-any-return]


def vision_features(model: QwenVL, pack: Pack) -> tuple[Tensor, ...]:
    """Features of the pack's pictures; equal still pictures go as one."""
    if not pack.patches:
        return ()
    widths = {patches.shape[1] for patches in pack.patches}
    if len(set(pack.grids)) == 1 and len(widths) == 1:
        times, rows, columns = pack.grids[0]
        joined = torch.from_numpy(np.concatenate(pack.patches))
        return model.vision_features([joined], [(times * len(pack.grids), rows, columns)])
    return model.vision_features([torch.from_numpy(part) for part in pack.patches], pack.grids)
