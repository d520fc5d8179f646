"""The decoder: packed tokens through causal layers.

A prompt head that segments share is computed once (``prefix``), and the last layer only for the pooled tokens.
Names follow the checkpoint's tensors. Source: transformers 4.57.3 ``modeling_qwen3_vl``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.model.config import TextConfig
from sightline.model.ops import KeyValue, Turn, attention, attention_last, rms_norm, rotate, turn

FEW_TOKENS: Final = 256
"""Most tokens of a pass that are rounded up, where that is wanted (``Decoder.rounds_up``)."""
MULTIPLE: Final = 4
"""What they are rounded up to a multiple of."""


class RmsNorm(nn.Module):
    """Root-mean-square norm with a learned weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, size) -> (…, size)."""
        return rms_norm(x, self.weight, self.eps)


class DecoderAttention(nn.Module):
    """Grouped-query attention with normalised queries and keys."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.attention_dtype: torch.dtype | None = None
        """Of the attention alone; None is that of the rest."""
        self.q_proj = nn.Linear(config.hidden_size, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)
        self.q_norm = RmsNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RmsNorm(config.head_dim, config.rms_norm_eps)

    def queries(self, x: Tensor, by: Turn) -> Tensor:
        """(T, C) -> (T, H, D), normalised and rotated."""
        queries = rotate(self.q_norm(self.q_proj(x).view(len(x), -1, self.head_dim)), by)
        return queries.to(self.attention_dtype or x.dtype)

    def keys_values(self, x: Tensor, by: Turn) -> KeyValue:
        """(T, C) -> keys, normalised and rotated, and values, each (T, Hkv, D)."""
        keys = rotate(self.k_norm(self.k_proj(x).view(len(x), -1, self.head_dim)), by)
        dtype = self.attention_dtype or x.dtype
        return keys.to(dtype), self.v_proj(x).view(len(x), -1, self.head_dim).to(dtype)

    def projected(self, x: Tensor, by: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """(T, C) -> queries, keys, values."""
        return self.queries(x, by), *self.keys_values(x, by)

    def added(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(T, C) and what attention mixed, (T, H, D) -> their sum (T, C) behind the last product."""
        return x + self.o_proj(mixed.flatten(1).to(x.dtype))  # type: ignore[no-any-return]


class JoinedDecoderAttention(DecoderAttention):
    """``DecoderAttention`` whose queries, keys and values are one product, one norm and one rotation.

    For inference, and for layers whose every token is asked.

    Args:
        attention: the layer it stands for; what lies behind its attention is taken over.
        weights: of its queries, keys and values.
        linear: makes the joined layer; what it makes has ``plus``, as what lies behind the attention has by then.
    """

    def __init__(
        self, attention: DecoderAttention, weights: Sequence[Tensor], linear: Callable[[nn.Linear], nn.Module]
    ) -> None:
        nn.Module.__init__(self)
        self.head_dim, self.attention_dtype = attention.head_dim, attention.attention_dtype
        self._heads = [len(weight) // self.head_dim for weight in weights]
        whole = nn.Linear(weights[0].shape[1], sum(map(len, weights)), bias=False, device="meta")
        whole.weight = nn.Parameter(torch.cat(list(weights)), requires_grad=False)
        self.qkv, self.o_proj = linear(whole), attention.o_proj
        norms = (attention.q_norm.weight.expand(self._heads[0], -1), attention.k_norm.weight.expand(self._heads[1], -1))
        self.qk_norm = attention.q_norm
        self.qk_norm.weight = nn.Parameter(torch.cat(norms), requires_grad=False)

    def projected(self, x: Tensor, by: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """(T, C) -> queries, keys, values."""
        num_queries, num_keys, num_values = self._heads
        made = self.qkv(x).view(len(x), -1, self.head_dim)
        turned = rotate(self.qk_norm(made[:, : num_queries + num_keys]), by)
        parts = (turned[:, :num_queries], turned[:, num_queries:], made[:, -num_values:])
        dtype = self.attention_dtype or x.dtype
        queries, keys, values = (part.to(dtype) for part in parts)
        return queries, keys, values

    def added(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(T, C) and what attention mixed, (T, H, D) -> their sum (T, C) behind the last product."""
        return self.o_proj.plus(mixed.flatten(1).to(x.dtype), x)  # type: ignore[no-any-return, operator]


class DecoderMlp(nn.Module):
    """x + down(silu(gate) * up)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def added(self, x: Tensor, normed: Tensor) -> Tensor:
        """(T, C) and the same normalised -> (T, C)."""
        return x + self.down_proj(F.silu(self.gate_proj(normed)) * self.up_proj(normed))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Attention and MLP, each after a norm, each added to its input."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(config)
        self.mlp = DecoderMlp(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, by: Turn, lengths: Sequence[int], prefix: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """(T, C) -> (T, C), with the keys and values it made."""
        normed = self.input_layernorm(x)
        queries, keys, values = self.self_attn.projected(normed, by)
        mixed = attention(queries, keys, values, lengths, causal=True, prefix=prefix)
        return self._rest(x, mixed), (keys, values)

    def forward_last(
        self, x: Tensor, by: Turn, lengths: Sequence[int], prefix: KeyValue | None, last: Tensor
    ) -> Tensor:
        """The same for the last token of each segment only: (T, C) -> (N, C), ``last`` holding their N rows.

        Rows behind the segments are passed over.
        """
        normed = self.input_layernorm(x)
        keys, values = (part[: sum(lengths)] for part in self.self_attn.keys_values(normed, by))
        queries = self.self_attn.queries(normed[last], (by[0][last], by[1][last]))
        return self._rest(x[last], attention_last(queries, keys, values, lengths, prefix=prefix))

    def _rest(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.self_attn.added(x, mixed)
        return self.mlp.added(x, self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding table, layers, final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.rounds_up = False
        """Whether passes of few tokens have a multiple of ``MULTIPLE``: where products are compiled for each size."""
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        lengths: Sequence[int],
        *,
        deepstack: Sequence[Tensor] = (),
        visual_rows: Tensor | None = None,
        prefix: Sequence[KeyValue] | None = None,
    ) -> Tensor:
        """Final hidden state of the last token of each segment.

        Args:
            x: (T, C) embeddings, visual tokens already in place.
            positions: (3, T) int64.
            lengths: tokens of each of N segments.
            deepstack: features (M, C) added at the visual tokens after layers 0, 1, 2, …
            visual_rows: (M,) rows of the visual tokens.
            prefix: keys and values of a prompt head that every segment shares, one pair for each layer.

        Returns:
            (N, C) after the final norm.
        """
        last = torch.tensor(lengths, device=x.device).cumsum(0) - 1
        spare = -len(x) % MULTIPLE if self.rounds_up and len(x) <= FEW_TOKENS else 0
        # more tokens behind the last segment are seen by none of those before them
        longer = [*lengths[:-1], lengths[-1] + spare]
        if spare:
            x, positions = F.pad(x, (0, 0, 0, spare)), F.pad(positions, (0, spare))
        by = self._turn(positions, x.dtype)
        for index, layer in enumerate(self.layers[:-1]):
            x, _ = layer(x, by, longer, None if prefix is None else prefix[index])
            x = _add(x, deepstack, index, visual_rows)
        final: DecoderLayer = self.layers[-1]  # type: ignore[assignment]
        # what DeepStack would add after the last layer goes to visual tokens, and the pooled token is never one
        return self.norm(  # type: ignore[no-any-return]
            final.forward_last(x, by, lengths, None if prefix is None else prefix[-1], last)
        )

    def keys_values(
        self,
        x: Tensor,
        positions: Tensor,
        *,
        deepstack: Sequence[Tensor] = (),
        visual_rows: Tensor | None = None,
    ) -> list[KeyValue]:
        """Keys and values of one segment for each layer: the ``prefix`` of later calls. Arguments as in ``forward``."""
        by = self._turn(positions, x.dtype)
        made: list[KeyValue] = []
        for index, layer in enumerate(self.layers[:-1]):
            x, pair = layer(x, by, [len(x)], None)
            x = _add(x, deepstack, index, visual_rows)
            made.append(pair)
        final: DecoderLayer = self.layers[-1]  # type: ignore[assignment]
        made.append(final.self_attn.keys_values(final.input_layernorm(x), by))
        return made

    def _turn(self, positions: Tensor, dtype: torch.dtype) -> Turn:
        """The interleaved three-axis rotary embedding: float32, then cast."""
        dim, section = self.config.head_dim, self.config.mrope_section
        exponents = torch.arange(0, dim, 2, dtype=torch.float, device=positions.device) / dim
        angles = positions[..., None].float() * (1.0 / self.config.rope_theta**exponents)
        mixed = angles[0].clone()
        for axis in (1, 2):  # slots 1, 4, 7, … turn with the row, 2, 5, 8, … with the column, the rest with time
            slots = slice(axis, section[axis] * 3, 3)
            mixed[:, slots] = angles[axis][:, slots]
        return turn(mixed, dtype)


def _add(x: Tensor, deepstack: Sequence[Tensor], index: int, rows: Tensor | None) -> Tensor:
    if index < len(deepstack) and rows is not None:
        return x.index_add(0, rows, deepstack[index].to(x.dtype))
    return x
