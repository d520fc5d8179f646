"""A network that computes in float32 over weights that stay as they are: a second opinion for what overflowed.

It shares every large tensor with the network it is made of and widens one layer at a time, so it costs little memory
and about the time of reading the weights; it is for single items, not for work.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.model.int8 import WideEmbedding
from sightline.model.text import DecoderAttention
from sightline.model.vision import VisionAttention
from sightline.model.vl import QwenVL


class WideLinear(nn.Module):
    """A linear layer (C -> D) that widens its weights when it is called; stands for a packed one as well.

    Args:
        layer: the layer it stands for, whose weights it shares.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)  # in a tuple: its parameters are not ours

    def forward(self, x: Tensor, then: str = "none", how: str = "") -> Tensor:
        """(T, C) -> (T, D) float32, and ``then`` "swish" or "gelu" (``how`` "tanh" or "none")."""
        (layer,) = self._layer
        weight = layer.weight if isinstance(layer, nn.Linear) else layer.dense()  # type: ignore[operator]
        bias: Tensor | None = layer.bias  # type: ignore[assignment]
        y = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
        return F.silu(y) if then == "swish" else F.gelu(y, approximate=how) if then == "gelu" else y

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(T, C) -> (T, D), multiplied by ``other`` (T, D)."""
        return self(x) * other  # type: ignore[no-any-return]

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """(T, C) -> (T, D), added to ``other`` (T, D)."""
        return self(x) + other  # type: ignore[no-any-return]


def widened(network: QwenVL) -> QwenVL:
    """The same network in float32, its weights shared; the one given is not touched, others may be running it.

    Layers of int8 weights stay, for they compute in float32 already.
    """
    shared: list[object] = [*network.parameters(), *network.buffers()]
    shared += [module for module in network.modules() if _is_packed(module)]
    wide = deepcopy(network, {id(part): part for part in shared})
    for module in list(wide.modules()):
        if _is_packed(module):
            continue
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) or hasattr(child, "dense"):
                setattr(module, name, WideLinear(child))
        if isinstance(module, (VisionAttention, DecoderAttention)):
            module.attention_dtype = None
        if not isinstance(module, (nn.Linear, nn.Embedding)) or module is wide.visual.pos_embed:
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.dtype != torch.float32:
                    setattr(module, name, nn.Parameter(parameter.float(), requires_grad=False))
    table = wide.language_model.embed_tokens
    if not isinstance(table, WideEmbedding):
        wide.language_model.embed_tokens = WideEmbedding(table)
    return wide.eval()


def _is_packed(module: nn.Module) -> bool:
    """Whether a layer keeps its weights in an order that cannot be copied."""
    return hasattr(module, "_packed")
