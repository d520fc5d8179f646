"""Linear layers whose weights lie as oneDNN reads them: on CPUs, where a product otherwise sorts them at every call.

The numbers are the same up to the order of sums; products of few tokens take half the time, those of many a tenth less
(docs/performance.md). What follows a product is done inside it where oneDNN can, before anything is rounded.
"""

from __future__ import annotations

import os
from typing import Final

import torch
from torch import Tensor, nn

from sightline.model.text import DecoderAttention, DecoderMlp, JoinedDecoderAttention
from sightline.model.vision import VisionMlp
from sightline.model.vl import QwenVL

# oneDNN and torch over it each remember two programs for every number of rows they have seen, a thousand in all and
# half a megabyte each. Making one anew takes less than a millisecond: little of a batch, but with one for each product
# a third of a query. So as many are kept as queries need, whose tokens are rounded up (``Decoder.rounds_up``). Both
# read this when they are first used.
for _name, _kept in (("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256"), ("LRU_CACHE_CAPACITY", "64")):
    os.environ.setdefault(_name, _kept)

_NARROW: Final = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine and this torch have such products."""
    ops = torch.ops.mkldnn
    if not torch._C._has_mkldnn or not hasattr(ops, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype in _NARROW and bool(getattr(ops, _NARROW[dtype])()))


class PackedLinear(nn.Module):
    """A linear layer (C -> D) for inference.

    Args:
        linear: the layer it stands for; its weights are not kept.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # no parameter and no buffer: in this order weights can be neither compared nor copied
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def dense(self) -> Tensor:
        """The weights (D, C) as the layer had them."""
        return self._packed.to_dense()  # type: ignore[no-any-return]

    def forward(self, x: Tensor, then: str = "none", how: str = "") -> Tensor:
        """(T, C) -> (T, D), and ``then`` "swish" or "gelu" (``how`` "tanh" or "none")."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, then, [], how)  # type: ignore[no-any-return]

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(T, C) -> (T, D), multiplied by ``other`` (T, D)."""
        product = torch.ops.mkldnn._linear_pointwise.binary
        return product(x, other, self._packed, self.bias, "mul")  # type: ignore[no-any-return]

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """(T, C) -> (T, D), added to ``other`` (T, D)."""
        product = torch.ops.mkldnn._linear_pointwise.binary
        return product(x, other, self._packed, self.bias, "add")  # type: ignore[no-any-return]


class PackedDecoderMlp(nn.Module):
    """``DecoderMlp`` in three products and nothing between them; takes over its packed layers."""

    def __init__(self, mlp: DecoderMlp) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def added(self, x: Tensor, normed: Tensor) -> Tensor:
        """(T, C) and the same normalised -> (T, C)."""
        wide = self.up_proj.times(normed, self.gate_proj(normed, "swish"))  # type: ignore[operator]
        return self.down_proj.plus(wide, x)  # type: ignore[no-any-return, operator]


class PackedVisionMlp(nn.Module):
    """``VisionMlp`` in two products and nothing between them; takes over its packed layers."""

    def __init__(self, mlp: VisionMlp) -> None:
        super().__init__()
        self.linear_fc1, self.linear_fc2 = mlp.linear_fc1, mlp.linear_fc2

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P, C)."""
        return self.linear_fc2(self.linear_fc1(x, "gelu", "tanh"))  # type: ignore[no-any-return]


def joined(network: QwenVL) -> QwenVL:
    """The network, built of ``PackedLinear`` layers, with what stands between them done inside them; in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, DecoderMlp):
                setattr(module, name, PackedDecoderMlp(child))
            elif isinstance(child, VisionMlp):
                setattr(module, name, PackedVisionMlp(child))
    for layer in network.language_model.layers[:-1]:  # the last is asked of a few tokens only
        attention: DecoderAttention = layer.self_attn  # type: ignore[assignment]  # of a ModuleList
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        weights: list[Tensor] = [part.dense() for part in parts]  # type: ignore[operator]
        layer.self_attn = JoinedDecoderAttention(attention, weights, PackedLinear)
    network.language_model.rounds_up = True
    return network
