"""Linear layers with weights of one byte, for CPUs with VNNI or AMX: a product takes half the time of bf16's.

Weights are rounded once, with a scale for each output; inputs at every call, with a scale for each token, so that one
loud token does not silence the others. Sums are exact int32, everything else of the network is float32. The tables of
words stay as they are stored. What it costs in accuracy: docs/performance.md.
"""

from __future__ import annotations

import hashlib
import weakref
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.model.text import DecoderAttention, DecoderMlp, JoinedDecoderAttention
from sightline.model.vision import VisionAttention, VisionMlp
from sightline.model.vl import QwenVL

TOP: Final = 127
ZERO: Final = 128
"""The kernel takes unsigned inputs (signed ones fall to its reference code, a thousand times slower): 128 is zero."""


def can_int8() -> bool:
    """Whether this machine and this torch have the fast kernel."""
    return bool(torch.cpu._is_vnni_supported()) and hasattr(torch.ops.onednn, "qlinear_pointwise")


class Rounded:
    """The last tensor rounded: the query, key and value layers share one input, as do gate and up."""

    def __init__(self) -> None:
        self._last: tuple[weakref.ref[Tensor], Tensor, Tensor] | None = None

    def of(self, x: Tensor, *, spent: bool = False) -> tuple[Tensor, Tensor]:
        """(T, C) float32 -> (T, C) uint8 around 128, and (T, 1) float32 scales; a ``spent`` one is written over."""
        last = self._last
        if last is not None and last[0]() is x:
            return last[1], last[2]
        loudest = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_())
        scales = loudest.clamp_min_(1e-12).div_(TOP)
        # through signed bytes, which torch makes five times as fast as unsigned ones; 128 more is the other sign bit
        whole = x.div_(scales) if spent else x / scales
        rounded = whole.round_().to(torch.int8).view(torch.uint8).add_(ZERO)
        self._last = None if spent else (weakref.ref(x), rounded, scales)
        return rounded, scales


class Int8Linear(nn.Module):
    """A linear layer (C -> D) with int8 weights.

    Args:
        linear: the layer it stands for; its weights are not kept.
        rounded: shared by the layers of one network.
    """

    def __init__(self, linear: nn.Linear, rounded: Rounded) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(1).clamp_min_(1e-12) / TOP
        whole = (weight / scales[:, None]).round_().to(torch.int8)
        digest = hashlib.sha256(whole.numpy().tobytes()).digest()
        # the packed weights cannot be compared or copied: they are no buffer, and the digest stands for them
        self._packed = torch.ops.onednn.qlinear_prepack(whole, None)
        self._zeros = torch.zeros(len(whole), dtype=torch.int32)
        self._rounded = rounded
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self.register_buffer("digest", torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def unscaled(self, x: Tensor, *, spent: bool = False) -> tuple[Tensor, Tensor]:
        """(T, C) -> the product (T, D) float32 before its bias, and (T, 1) by which its rows are to be multiplied.

        A ``spent`` input is written over.
        """
        rounded, scales = self._rounded.of(x, spent=spent)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, ZERO, self._packed, self.scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y, scales

    def forward(self, x: Tensor, *, spent: bool = False) -> Tensor:
        """(T, C) -> (T, D) float32; a ``spent`` input is written over."""
        y, scales = self.unscaled(x, spent=spent)
        y.mul_(scales)
        bias: Tensor | None = self.bias  # type: ignore[assignment]
        return y if bias is None else y.add_(bias)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """(T, C) -> (T, D), added to ``other`` (T, D), of a layer without bias."""
        return torch.addcmul(other, *self.unscaled(x))


class Int8DecoderMlp(nn.Module):
    """``DecoderMlp`` without a tensor for each step between its products; takes over its layers."""

    def __init__(self, mlp: DecoderMlp) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def added(self, x: Tensor, normed: Tensor) -> Tensor:
        """(T, C), which is written over, and the same normalised -> (T, C)."""
        up, scales = self.up_proj.unscaled(normed)  # type: ignore[operator]
        wide = F.silu(self.gate_proj(normed), inplace=True).mul_(up)
        # what a row is multiplied by before it is rounded, its rounding divides it by
        down, own = self.down_proj.unscaled(wide, spent=True)  # type: ignore[operator]
        return x.addcmul_(down, own * scales)


class Int8VisionMlp(nn.Module):
    """``VisionMlp`` likewise."""

    def __init__(self, mlp: VisionMlp) -> None:
        super().__init__()
        self.linear_fc1, self.linear_fc2 = mlp.linear_fc1, mlp.linear_fc2

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P, C)."""
        wide = torch.ops.aten.gelu_(self.linear_fc1(x), approximate="tanh")
        return self.linear_fc2(wide, spent=True)  # type: ignore[no-any-return]


class WideEmbedding(nn.Embedding):
    """A table kept in its narrow type whose rows come out in float32.

    Args:
        table: whose rows they are.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, device="meta")
        self.weight = table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(T,) -> (T, C) float32."""
        return F.embedding(ids, self.weight).float()


def to_int8(network: QwenVL) -> QwenVL:
    """The network with int8 weights, changed in place a layer at a time; on a CPU."""
    rounded = Rounded()
    for layer in network.language_model.layers[:-1]:  # the last is asked of a few tokens only
        attention: DecoderAttention = layer.self_attn  # type: ignore[assignment]  # of a ModuleList
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        layer.self_attn = JoinedDecoderAttention(attention, [part.weight for part in parts], lambda linear: linear)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child, rounded))
        if isinstance(module, (VisionAttention, DecoderAttention)) and torch.cpu._is_avx512_bf16_supported():
            module.attention_dtype = torch.bfloat16
        if module is not network.language_model.embed_tokens:
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.float(), requires_grad=False))
    for block in network.visual.blocks:
        block.mlp = Int8VisionMlp(block.mlp)  # type: ignore[arg-type]  # of a ModuleList
    for layer in network.language_model.layers:
        layer.mlp = Int8DecoderMlp(layer.mlp)  # type: ignore[arg-type]  # of a ModuleList
    network.language_model.embed_tokens = WideEmbedding(network.language_model.embed_tokens)
    network.language_model.rounds_up = True
    return network
