"""Attention of many short segments as few products, with gradients: for training on a CPU.

torch's fused kernel goes back through each run of equal segments by itself, and a batch of texts has hardly two of one
length: a third of a step's time went there. Here neighbours of about one length are padded to it and go together, and
the prefix that all of them see is multiplied once for all (measured: docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

LONGEST: Final = 512
"""Tokens of a segment up to which its scores may be held for the way back."""
SPARE: Final = 1.25
"""Rows that padding may add: this many times the tokens."""


def attention_short(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, causal: bool, prefix: tuple[Tensor, Tensor] | None
) -> Tensor:
    """As ``ops.attention``; it keeps T x H x (prefix + segment) weights for the way back."""
    groups = list(_groups(lengths, SPARE if causal else 1.0))
    parts = zip(groups, *(torch.split(x, [sum(group) for group in groups]) for x in (q, k, v)), strict=True)
    out = []
    for group, *rows in parts:
        count, length = len(group), max(group)
        if min(group) == length:
            out.append(_attention_equal(rows, length, causal=causal, prefix=prefix))
            continue
        # padding stands at the end, where no token looks
        places = torch.cat([torch.arange(own) + index * length for index, own in enumerate(group)]).to(q.device)
        padded = [_spread(x, places, count * length) for x in rows]
        out.append(_gather(_attention_equal(padded, length, causal=causal, prefix=prefix), places))
    return torch.cat(out)


def _attention_equal(
    parts: Sequence[Tensor], length: int, *, causal: bool, prefix: tuple[Tensor, Tensor] | None
) -> Tensor:
    """The same of segments of one length; ``parts`` are their q, k and v."""
    q, k, v = parts
    num_heads, head_dim = q.shape[1:]
    num_kv, count = k.shape[1], len(q) // length
    repeat, before = num_heads // num_kv, 0 if prefix is None else len(prefix[0])
    # the query heads of one key head stand as rows of one product, so that no key is repeated
    rows = (q * head_dim**-0.5).view(count, length, num_kv, repeat, head_dim).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(count * num_kv, repeat * length, head_dim)
    keys = k.view(count, length, num_kv, head_dim).permute(0, 2, 3, 1).reshape(-1, head_dim, length)
    values = v.view(count, length, num_kv, head_dim).transpose(1, 2).reshape(-1, length, head_dim)
    scores = torch.bmm(rows, keys).view(count, num_kv, repeat, length, length)
    if causal and length > 1:
        scores = scores + torch.full_like(scores[0, 0, 0], float("-inf")).triu(1)
    if prefix is not None:
        by_head = rows.view(count, num_kv, -1, head_dim).transpose(0, 1).reshape(num_kv, -1, head_dim)
        first = torch.bmm(by_head, prefix[0].permute(1, 2, 0)).view(num_kv, count, repeat, length, before)
        scores = torch.cat([first.transpose(0, 1), scores], -1)
    weights = scores.softmax(-1).to(scores.dtype)
    mixed = torch.bmm(weights[..., before:].reshape(count * num_kv, -1, length), values)
    mixed = mixed.view(count, num_kv, repeat, length, head_dim)
    if prefix is not None:
        by_head = weights[..., :before].transpose(0, 1).reshape(num_kv, -1, before)
        first = torch.bmm(by_head, prefix[1].transpose(0, 1))
        mixed = mixed + first.view(num_kv, count, repeat, length, head_dim).transpose(0, 1)
    return mixed.permute(0, 3, 1, 2, 4).reshape(count * length, num_heads, head_dim)


def _groups(lengths: Sequence[int], spare: float) -> Iterator[list[int]]:
    """Neighbouring lengths whose padding to the longest of them costs no more than ``spare`` times their sum.

    >>> list(_groups([4, 5, 5, 20], 1.25))
    [[4, 5, 5], [20]]
    """
    group: list[int] = []
    for length in lengths:
        if group and max(*group, length) * (len(group) + 1) > spare * (sum(group) + length):
            yield group
            group = []
        group.append(length)
    yield group


def _spread(x: Tensor, places: Tensor, num_rows: int) -> Tensor:
    return _Spread.apply(x, places, num_rows)  # type: ignore[no-any-return, no-untyped-call]  # torch types it so


def _gather(x: Tensor, places: Tensor) -> Tensor:
    return _Gather.apply(x, places)  # type: ignore[no-any-return, no-untyped-call]  # torch types it so


class _Spread(torch.autograd.Function):
    """Rows to their places among rows of zeros. The places differ, so the way back is a plain copy too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(places)
        return x.new_zeros(num_rows, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """The rows at some places, which differ."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.num_rows = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0]
        return grad.new_zeros(ctx.num_rows, *grad.shape[1:]).index_copy_(0, ctx.saved_tensors[0], grad), None
