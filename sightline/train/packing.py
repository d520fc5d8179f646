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
from sightline.prep.prepare import Prepared, visual
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
            visuals.append(visual(patches, grid, tuple(2.0 * k + 0.5 for k in range(grid[0]))))
        if self.image is not None:
            visuals.append(visual(*image_patches(self.image)))
        return content(visuals, [self.text] if self.text else [])


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """N prompts in one row, sorted by length.

    Attributes:
        head: ids of the beginning they share, computed once.
        ids, positions: what comes after it, packed.
        lengths: of each segment.
        patches, grids, keys: pictures in the order of their tokens; equal ones have equal keys.
        order: row i of the caller is segment ``order[i]``.
    """

    head: NDArray[np.int64]
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    lengths: list[int]
    patches: list[NDArray[np.uint8]]
    grids: list[Grid]
    keys: list[bytes]
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
    rows = []
    for parts in prompts:
        ids = to_ids(parts, tokenizer)
        visuals = [part for part in parts if isinstance(part, Visual)]
        if not visuals and len(ids) > max_length:
            ids = ids[: max_length - 6] + ids[-6:]
        array = np.asarray(ids, np.int64)
        rows.append(Prepared(array, positions(array, np.isin(array, pads), runs(visuals)), tuple(visuals)))
    return pack(rows, tokenizer)


def pack(prepared: Sequence[Prepared], tokenizer: Tokenizer) -> Pack:
    """Prompts as the product prepared them, at least one, in one row."""
    pads = [tokenizer.control("<|image_pad|>"), tokenizer.control("<|video_pad|>")]
    head = _common([prompt.ids for prompt in prepared], pads)
    order = sorted(range(len(prepared)), key=lambda index: len(prepared[index]))
    back = np.empty(len(prepared), np.int64)
    back[order] = np.arange(len(prepared))
    visuals = [each for index in order for each in prepared[index].visuals]
    return Pack(
        head=prepared[0].ids[:head],
        ids=np.concatenate([prepared[index].ids[head:] for index in order]),
        positions=np.concatenate([prepared[index].positions[:, head:] for index in order], 1),
        lengths=[len(prepared[index]) - head for index in order],
        patches=[each.patches for each in visuals],
        grids=[each.grid for each in visuals],
        keys=[each.key for each in visuals],
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


def cut(pack: Pack, rows: Sequence[int], pads: Sequence[int]) -> Pack:
    """Some rows of a pack, at least one, in the order given.

    Args:
        pack: prompts.
        rows: of the caller, as ``Pack.order`` counts them.
        pads: ids of the tokens that stand for pictures and videos.
    """
    ends = np.cumsum(pack.lengths)
    segments = [int(pack.order[row]) for row in rows]
    firsts = _first_grids(pack, pads)
    taken = sorted(segments)
    spans = [np.arange(ends[s] - pack.lengths[s], ends[s]) for s in taken]
    pictures = [place for s in taken for place in range(firsts[s], firsts[s + 1])]
    columns = np.concatenate(spans)
    return Pack(
        head=pack.head,
        ids=pack.ids[columns],
        positions=pack.positions[:, columns],
        lengths=[pack.lengths[s] for s in taken],
        patches=[pack.patches[place] for place in pictures],
        grids=[pack.grids[place] for place in pictures],
        keys=[pack.keys[place] for place in pictures],
        order=np.asarray([taken.index(s) for s in segments], np.int64),
    )


def _first_grids(pack: Pack, pads: Sequence[int]) -> list[int]:
    """Index of the first picture of each segment, and one more for the end."""
    is_pad = np.isin(pack.ids, pads)
    firsts, grid, start = [0], 0, 0
    for length in pack.lengths:
        left = int(is_pad[start : start + length].sum())
        while left > 0:
            times, rows, columns = pack.grids[grid]
            left -= times * rows * columns // 4
            grid += 1
        firsts.append(grid)
        start += length
    return firsts


def chunks(pack: Pack, max_tokens: int, pads: Sequence[int]) -> tuple[Pack, ...]:
    """A pack as several, rows in order, each of at most ``max_tokens`` tokens or one row; whole when it has no more."""
    if sum(pack.lengths) <= max_tokens:
        return (pack,)
    groups: list[list[int]] = [[]]
    tokens = 0
    for row, segment in enumerate(pack.order):
        tokens += pack.lengths[segment]
        if groups[-1] and tokens > max_tokens:
            groups.append([])
            tokens = pack.lengths[segment]
        groups[-1].append(row)
    return tuple(cut(pack, rows, pads) for rows in groups)


def num_tokens(packs: Sequence[Pack]) -> int:
    """Tokens that go through the decoder."""
    return sum(len(pack.head) + sum(pack.lengths) for pack in packs)


def forward(model: QwenVL, pack: Pack, features: Sequence[Tensor] | None = None) -> Tensor:
    """Final hidden states (N, C) in the caller's order, with gradients.

    Args:
        model: the network.
        pack: prompts.
        features: of the pack's pictures when they are already there; None computes them.
    """
    if features is None:
        features = vision_features(model, pack)
    device = next(model.parameters()).device
    prefix = None
    if len(pack.head):
        head = torch.from_numpy(pack.head).to(device)
        prefix = model.prefix_states(head, torch.arange(len(head), device=device).expand(3, -1))
    states = model(
        torch.from_numpy(pack.ids).to(device),
        torch.from_numpy(pack.positions).to(device),
        pack.lengths,
        features=features,
        prefix=prefix,
    )
    return states[torch.from_numpy(pack.order).to(device)]  # type: ignore[no-any-return]


def vision_features(model: QwenVL, pack: Pack) -> tuple[Tensor, ...]:
    """Features of the pack's pictures. The tower sees a picture once, in however many prompts it stands."""
    if not pack.patches:
        return ()
    firsts = {key: row for row, key in reversed([*enumerate(pack.keys)])}
    rows = sorted(firsts.values())
    features = _tower(model, [pack.patches[row] for row in rows], [pack.grids[row] for row in rows])
    if len(rows) == len(pack.keys):
        return features
    sizes = [times * height * width // 4 for times, height, width in (pack.grids[row] for row in rows)]
    spans = dict(zip(rows, torch.split(torch.arange(sum(sizes), device=features[0].device), sizes), strict=True))
    again = torch.cat([spans[firsts[key]] for key in pack.keys])
    return tuple(feature[again] for feature in features)


def _tower(model: QwenVL, patches: Sequence[NDArray[np.uint8]], grids: Sequence[Grid]) -> tuple[Tensor, ...]:
    """Features of pictures; those of one size go as one."""
    device = next(model.parameters()).device
    if len(set(grids)) == 1 and len({part.shape[1] for part in patches}) == 1:
        times, rows, columns = grids[0]
        return model.vision_features(
            [torch.from_numpy(np.concatenate(patches)).to(device)], [(times * len(grids), rows, columns)]
        )
    return model.vision_features([torch.from_numpy(part).to(device) for part in patches], grids)
