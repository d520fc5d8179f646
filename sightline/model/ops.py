"""The numeric pieces both towers share.

``attention`` is the single seam: a fast body, and a plain one that tests compare with it. Everything is packed: a batch
is one row of T tokens, ``lengths`` says where its segments end, and no segment sees another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import groupby
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.model.short import LONGEST, attention_short

PADDED_FROM: Final = 512
"""Queries from which padding beats a mask."""
BLOCK_QUERIES: Final = 128
"""Queries whose scores are held at a time: they stay in a core's cache."""
BLOCKS_FROM: Final = 512
"""Tokens of a segment from which blocks beat the fused kernel; many short segments are faster as one batched call."""
WIDE_BLOCK_QUERIES: Final = 256
"""The same in float32 by oneDNN's product, one head at a time."""
WIDE_BLOCKS_FROM: Final = 1024
"""Tokens of a segment from which that beats the fused kernel, where oneDNN's product is the faster one."""
CAUSAL_BLOCKS_FROM: Final = 48
"""The same for causal attention, where the fused kernel computes a masked square after a prefix."""
MASK_KEPT: Final = 128
"""Tokens of a segment, and before it, up to which its mask is kept, as of queries: every layer asks for the same."""

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (T, Hkv, D)."""


def attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, causal: bool, prefix: KeyValue | None = None
) -> Tensor:
    """Attention inside each segment, after an optional prefix that every segment sees.

    Neighbouring segments of equal length run as one batched call: the frames of a video, or prompts sorted by length.

    Args:
        q: (T, H, D).
        k, v: (T, Hkv, D); H is a multiple of Hkv.
        lengths: tokens of each segment; their sum is T.
        causal: a token sees the prefix, itself and what stands before it in its segment.
        prefix: keys and values (L, Hkv, D) seen by all.

    Returns:
        (T, H, D).
    """
    narrow_cpu = q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if (narrow_cpu or _is_cast(q)) and q.requires_grad and torch.is_grad_enabled() and max(lengths) <= LONGEST:
        return attention_short(q, k, v, lengths, causal=causal, prefix=prefix)
    if narrow_cpu and not causal and prefix is None and max(lengths) >= BLOCKS_FROM:
        return _attention_in_blocks(q, k, v, lengths)
    repeat, grouped = _repeats(q, k)
    out = []
    runs = list(_equal_runs(lengths))
    sizes = [length * count for length, count in runs]
    # split, not sliced: the gradient of a slice is a whole tensor of zeros
    parts = zip(*(torch.split(x, sizes) for x in (q, k, v)), strict=True)
    for (length, count), (q_run, k_run, v_run) in zip(runs, parts, strict=True):
        if causal and narrow_cpu and length >= CAUSAL_BLOCKS_FROM:
            segments = zip(*(torch.split(part, length) for part in (q_run, k_run, v_run)), strict=True)
            out += [_causal_in_blocks(query, key, value, prefix) for query, key, value in segments]
            continue
        if not causal and prefix is None and length >= WIDE_BLOCKS_FROM and _is_wide(q) and _is_onednn_faster():
            segments = zip(*(torch.split(part, length) for part in (q_run, k_run, v_run)), strict=True)
            out += [_head_by_head(query, key, value) for query, key, value in segments]
            continue
        queries = q_run.view(count, length, *q.shape[1:]).transpose(1, 2)
        keys = _with_prefix(k_run.view(count, length, *k.shape[1:]), prefix, 0, repeat)
        values = _with_prefix(v_run.view(count, length, *v.shape[1:]), prefix, 1, repeat)
        if causal and prefix is not None and length > 1:
            result = _causal_after_prefix(queries, keys, values, grouped)
        else:
            result = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=causal and length > 1, enable_gqa=grouped
            )
        out.append(result.transpose(1, 2).reshape(length * count, *q.shape[1:]))
    return out[0] if len(out) == 1 else torch.cat(out)


def attention_plain(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, causal: bool, prefix: KeyValue | None = None
) -> Tensor:
    """The same in the plainest words: one dense matrix, a mask, a softmax in float32."""
    repeat = q.shape[1] // k.shape[1]
    num_prefix = 0
    if prefix is not None:
        num_prefix = len(prefix[0])
        k, v = torch.cat([prefix[0], k]), torch.cat([prefix[1], v])
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(q.device)
    seen = segment[:, None] == segment[None, :]
    if causal:
        order = torch.arange(len(q), device=q.device)
        seen &= order[:, None] >= order[None, :]
    seen = torch.cat([torch.ones(len(q), num_prefix, dtype=torch.bool, device=q.device), seen], 1)
    scores = torch.einsum("thd,shd->hts", q.float(), k.float()) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hts,shd->thd", weights, v.float()).to(q.dtype)


def attention_last(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, prefix: KeyValue | None = None
) -> Tensor:
    """Causal attention of the last token of each segment only.

    Args:
        q: (N, H, D), one query for each of N segments.
        k, v: (T, Hkv, D).
        lengths: tokens of each segment.
        prefix: as in ``attention``.

    Returns:
        (N, H, D).
    """
    repeat, grouped = _repeats(q, k)
    out = []
    runs = list(_equal_runs(lengths))
    sizes = [length * count for length, count in runs]
    queries = torch.split(q, [count for _, count in runs])
    parts = zip(queries, torch.split(k, sizes), torch.split(v, sizes), strict=True)
    for (length, count), (q_run, k_run, v_run) in zip(runs, parts, strict=True):
        keys = _with_prefix(k_run.view(count, length, *k.shape[1:]), prefix, 0, repeat)
        values = _with_prefix(v_run.view(count, length, *v.shape[1:]), prefix, 1, repeat)
        out.append(F.scaled_dot_product_attention(q_run[:, :, None], keys, values, enable_gqa=grouped)[:, :, 0])
    return torch.cat(out)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis: variance in float32, weight applied in the dtype of ``x``."""
    wide = x.float()
    # the norm reads the numbers once; their squares as a tensor would be written, read and given back
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = torch.addcmul(_number(eps, x.device), norm, norm, value=1 / x.shape[-1]).rsqrt_()
    is_ours = wide is not x and not (wide.requires_grad and torch.is_grad_enabled())
    scaled = wide.mul_(scale) if is_ours else wide * scale
    return scaled.to(x.dtype).mul_(weight)


@cache
def _number(value: float, device: torch.device) -> Tensor:
    """() float32; kept, for making it costs as much as what is done with it."""
    with torch.inference_mode(False):  # it may be wanted for training later
        return torch.tensor(value, dtype=torch.float32, device=device)


Turn = tuple[Tensor, Tensor]
"""Cosines and signed sines of each token's angles, each (T, D); made by ``turn``."""


def turn(angles: Tensor, dtype: torch.dtype) -> Turn:
    """What ``rotate`` needs of angles (T, D / 2) float32: sines have the sign of their half already."""
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, by: Turn) -> Tensor:
    """Rotary embedding of x (T, H, D), halves convention."""
    cos, sin = by
    first, second = x.chunk(2, -1)
    return (x * cos[:, None]).addcmul_(torch.cat([second, first], -1), sin[:, None])


def _is_cast(x: Tensor) -> bool:
    """Whether products of ``x`` are computed in bf16 on a CPU, as training does it."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def _is_wide(x: Tensor) -> bool:
    """Whether it is float32 on a CPU, and no gradient is wanted."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not (x.requires_grad and torch.is_grad_enabled())


@cache
def _is_onednn_faster() -> bool:
    """Whether oneDNN's float32 product takes much less time here than torch's own, which is MKL's on most machines.

    On AMD's Zen 5 it takes less than half (docs/performance.md). Asked once, in a few milliseconds.
    """
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    rows, weights = torch.ones(WIDE_BLOCK_QUERIES, 64), torch.ones(1024, 64)

    def seconds(product: Callable[[Tensor, Tensor], Tensor]) -> float:
        best = math.inf
        for _ in range(10):
            begin = time.perf_counter()
            product(rows, weights)
            best = min(best, time.perf_counter() - begin)
        return best

    return seconds(_product) < 0.75 * seconds(F.linear)


def _product(x: Tensor, weights: Tensor) -> Tensor:
    """(T, C) and (D, C) -> (T, D) by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(x, weights, None, "none", [], "")  # type: ignore[no-any-return]


def _equal_runs(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(length, how many) of neighbouring segments of equal length."""
    for length, group in groupby(lengths):
        yield length, len(list(group))


def _with_prefix(x: Tensor, prefix: KeyValue | None, which: int, repeat: int) -> Tensor:
    """(count, length, Hkv, D) -> (count, Hkv x repeat, L + length, D)."""
    if prefix is not None:
        x = torch.cat([prefix[which].expand(len(x), *prefix[which].shape), x], 1)
    x = x.transpose(1, 2)
    return x.repeat_interleave(repeat, 1) if repeat > 1 else x


def _repeats(q: Tensor, k: Tensor) -> tuple[int, bool]:
    """How often keys and values are repeated, and whether SDPA shares them among query heads in place of that."""
    repeat = q.shape[1] // k.shape[1]
    grouped = repeat > 1 and q.device.type == "cpu" and not torch.is_grad_enabled() and _is_grouped_fused(q.dtype)
    return (1, True) if grouped else (repeat, False)


@cache
def _is_grouped_fused(dtype: torch.dtype) -> bool:
    """Whether the fused kernel of this torch shares heads on a CPU; its slow path copies them, and more."""
    q, k = torch.zeros(1, 2, 2, 8, dtype=dtype), torch.zeros(1, 1, 2, 8, dtype=dtype)
    return bool(torch._fused_sdp_choice(q, k, k, enable_gqa=True))


def _causal_after_prefix(q: Tensor, k: Tensor, v: Tensor, grouped: bool) -> Tensor:
    """Queries (B, H, length, D) at the end of keys (B, Hkv, L + length, D), the prefix of L seen whole.

    A mask aligned at the lower right corner says it; a long segment is better padded with L queries, whose results are
    dropped, because without a mask the kernel skips what lies above the diagonal (measured: docs/performance.md).
    """
    length, before = q.shape[2], k.shape[2] - q.shape[2]
    if length >= PADDED_FROM and length >= 4 * before:
        padded = F.pad(q, (0, 0, before, 0))
        return F.scaled_dot_product_attention(padded, k, v, is_causal=True, enable_gqa=grouped)[:, :, before:]
    mask = (_kept_mask if max(length, before) <= MASK_KEPT else _mask)(length, before, q.dtype, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


def _mask(length: int, before: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(length, before + length): 0 where a query may look, minus infinity behind it."""
    with torch.inference_mode(False):  # one that is kept may be wanted for training later
        later = torch.ones(length, before + length, dtype=torch.bool, device=device).triu(before + 1)
        return torch.zeros(length, before + length, dtype=dtype, device=device).masked_fill_(later, float("-inf"))


_kept_mask = lru_cache(64)(_mask)


def _attention_in_blocks(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Full attention of bf16 on a CPU as plain products, a block of queries at a time.

    torch's fused kernel computes in float32 there and reaches a third of what bf16 products do.
    """
    repeat = q.shape[1] // k.shape[1]
    out = []
    for queries, keys, values in zip(*(torch.split(part, list(lengths)) for part in (q, k, v)), strict=True):
        scaled = _with_prefix(keys[None], None, 0, repeat)[0].transpose(1, 2) * q.shape[-1] ** -0.5
        scaled, held = scaled.contiguous(), _with_prefix(values[None], None, 1, repeat)[0].contiguous()
        blocks = torch.split(queries.transpose(0, 1), BLOCK_QUERIES, 1)
        out += [((block @ scaled).softmax(-1) @ held).transpose(0, 1) for block in blocks]
    return torch.cat(out)


def _head_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention of one segment in float32 by oneDNN's products, a head and a block of queries at a time."""
    repeat = q.shape[1] // k.shape[1]
    queries = q.transpose(0, 1).contiguous()
    scaled = (k * q.shape[-1] ** -0.5).transpose(0, 1).contiguous()
    values = v.permute(1, 2, 0).contiguous()
    mixed = torch.empty_like(queries)
    for head in range(len(queries)):
        keys, held = scaled[head // repeat], values[head // repeat]
        for start in range(0, len(q), WIDE_BLOCK_QUERIES):
            weights = _product(queries[head, start : start + WIDE_BLOCK_QUERIES], keys).softmax(-1)
            mixed[head, start : start + WIDE_BLOCK_QUERIES] = _product(weights, held)
    return mixed.transpose(0, 1)


@lru_cache(BLOCK_QUERIES)
def _later(length: int) -> Tensor:
    """(length, length) on the CPU: what stands after a token."""
    with torch.inference_mode(False):  # it may be wanted for training later
        return torch.ones(length, length, dtype=torch.bool).triu(1)


def _causal_in_blocks(q: Tensor, k: Tensor, v: Tensor, prefix: KeyValue | None) -> Tensor:
    """Causal attention of one segment in bf16 on a CPU: a block of queries at a time, and only the keys it sees.

    The query heads of one key head stand as rows of one product, so that no key is repeated.
    """
    length, num_heads, head_dim = q.shape
    num_kv = k.shape[1]
    if prefix is not None:
        k, v = torch.cat([prefix[0], k]), torch.cat([prefix[1], v])
    before, repeat = len(k) - length, num_heads // num_kv
    keys, values = (k * head_dim**-0.5).permute(1, 2, 0), v.transpose(0, 1)
    queries = q.view(length, num_kv, repeat, head_dim).permute(1, 2, 0, 3)
    out = []
    for start in range(0, length, BLOCK_QUERIES):
        end = min(start + BLOCK_QUERIES, length)
        rows = queries[:, :, start:end].reshape(num_kv, repeat * (end - start), head_dim)
        scores = torch.bmm(rows, keys[:, :, : before + end]).view(num_kv, repeat, end - start, before + end)
        scores[..., before + start :].masked_fill_(_later(end - start), float("-inf"))
        weights = scores.view(num_kv, repeat * (end - start), before + end).softmax(-1)
        mixed = torch.bmm(weights, values[:, : before + end])
        out.append(mixed.view(num_kv, repeat, end - start, head_dim))
    return torch.cat(out, 2).permute(2, 0, 1, 3).reshape(length, num_heads, head_dim)
