"""Vectors made coarse while they are trained, so that little is lost when the store makes them coarse.

LSQ (Esser et al., "Learned step size quantization", ICLR 2020): values are rounded to whole steps and the step is
learned with them. Rounding has no gradient; values get the one of what comes after it, as if nothing were rounded.

Letters: N vectors, E width, Q the largest level: 127 for int8, 1 for binary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from sightline.errors import ConfigError

Coarse = Literal["int8", "binary"]

LEVELS: Final[dict[Coarse, int]] = {"int8": 127, "binary": 1}
FIRST_STEP: Final[dict[Coarse, float]] = {"int8": 1 / 127, "binary": 2.0}
"""Of the largest magnitude of a vector (what the store takes); of its mean magnitude (2 / sqrt(Q), the paper's)."""
_TINY: Final = 1e-12


def lsq(values: Tensor, step: Tensor, precision: Coarse) -> Tensor:
    """Values as whole steps from -Q to Q, with the gradients of LSQ.

    With x = v / step, the gradient of a result is by its value 1 where abs(x) <= Q, else 0; by the step, before
    scaling, level - x where abs(x) <= Q, else the level, -Q or Q. The step's is scaled by 1 / sqrt(E Q). (The paper
    scales by the number of features of a layer, not by that times the batch; losses are means over the batch.)

    Args:
        values: (N, E) float32.
        step: () over 0.
        precision: int8 rounds to the nearest level, halves to the even one. Binary has the levels -1 and 1 only: the
            sign, 0 being -1 as the store has it.

    Returns:
        (N, E): level x step.
    """
    levels = LEVELS[precision]
    gentle = step.detach() + (step - step.detach()) / math.sqrt(values.shape[-1] * levels)
    x = (values / gentle).clamp(-levels, levels)
    level = x.detach().round() if precision == "int8" else torch.where(values > 0, 1.0, -1.0)
    return (level + (x - x.detach())) * gentle


class Lsq(nn.Module):
    """Unit vectors as the store will keep them, with a learned step for each width.

    The store (``sightline.vectors``) takes int8 as round(127 x / max|x|), and binary as sign bits, and compares both by
    cosine. So steps are measured by each vector itself: int8 by its largest magnitude, binary by its mean one. Before
    anything is learned the levels are just those of the store, nothing clipped.

    Where they differ: the store's int8 step stays 1 / 127 of the largest magnitude. A learned one that has become
    smaller clips the largest values, a larger one leaves the outermost levels unused; ``step`` says how far it went.
    For binary nothing differs: cosine does not see the step; it only says which values, those of at most a step, may
    still be moved across 0.

    One step for each width, not one for all: the fewer values a vector has, the nearer its largest one is to the mean
    one, so what is worth clipping differs. It costs one number a width.

    When to begin: where states share a large part, as those of an untrained network do, nearly all binary vectors are
    equal. CoSENT at a low temperature likes them better equal than in a wrong order, and keeps them so (InfoNCE was
    seen to get out of it). Take graded losses on binary vectors once float ones are spread, or at a temperature of 0.2.

    What is learned is ``shift``, the logarithm of step / first step: a step stays over 0, an optimiser that moves all
    numbers by its learning rate moves it by that share, and weight decay pulls it back to the store's.

    Args:
        precision: int8 or binary.
        dims: the widths it will be given.

    Raises:
        ConfigError: another precision, or no dims; in ``forward`` a width that is not of dims.
    """

    def __init__(self, precision: Coarse, dims: Sequence[int]) -> None:
        super().__init__()
        if precision not in LEVELS:
            raise ConfigError(f"a loss can be taken on {' or '.join(get_args(Coarse))} vectors, not {precision!r}")
        if not dims:
            raise ConfigError("a quantiser needs the widths it will be given")
        self.precision: Coarse = precision
        self.dims = tuple(dims)
        self.shift = nn.Parameter(torch.zeros(len(self.dims)))

    def step(self, dim: int) -> Tensor:
        """The learned step of a width, (): in largest magnitudes for int8, in mean magnitudes for binary."""
        if dim not in self.dims:
            raise ConfigError(f"this quantiser knows the widths {', '.join(map(str, self.dims))}, not {dim}")
        return self.shift[self.dims.index(dim)].float().exp() * FIRST_STEP[self.precision]

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (N, E) as their nearest levels, float32 and about as long as before (so not of length 1)."""
        vectors = vectors.float()
        sizes = vectors.detach().abs()
        size = sizes.amax(-1, keepdim=True) if self.precision == "int8" else sizes.mean(-1, keepdim=True)
        size = size.clamp_min(_TINY)
        return lsq(vectors / size, self.step(vectors.shape[-1]), self.precision) * size
