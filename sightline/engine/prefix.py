"""How much of their beginning prompts share. Integers only.

Causal attention makes a shared beginning exact to reuse: its keys and values are computed once and every prompt goes on
from there. A picture belongs to the shared part whole or not at all, and only when its patches are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.prep.patches import num_tokens
from sightline.prep.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Head:
    """A shared beginning.

    Attributes:
        length: ids.
        num_visuals: pictures and videos inside it.
    """

    length: int
    num_visuals: int


def shared_head(prompts: Sequence[Prepared], pads: tuple[int, int]) -> Head:
    """The longest beginning all prompts share, shorter than the shortest of them.

    Args:
        prompts: at least one.
        pads: ids of the image and the video token.
    """
    first = prompts[0]
    length = min(len(prompt) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        differ = np.flatnonzero(first.ids[:length] != prompt.ids[:length])
        length = int(differ[0]) if len(differ) else length
    rows = np.flatnonzero(np.isin(first.ids, pads))
    begin = 0
    for index, visual in enumerate(first.visuals):
        span = rows[begin : begin + num_tokens(visual.grid)]
        begin += len(span)
        if span[0] >= length:
            return Head(length, index)
        same = all(len(p.visuals) > index and p.visuals[index].key == visual.key for p in prompts)
        if span[-1] >= length or not same:
            return Head(int(span[0]), index)
    return Head(length, len(first.visuals))
