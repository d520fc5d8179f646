"""The vision tower: patches of any number of pictures and videos, packed, to tokens of the decoder's width.

Every picture, and every temporal patch of a video, is a segment of its own. Names follow the checkpoint's tensors.
Source: transformers 4.57.3 ``modeling_qwen3_vl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.model.config import VisionConfig
from sightline.model.ops import Turn, attention, rotate, turn

Grid = tuple[int, int, int]


class Kernel(nn.Module):
    """Weight and bias of a convolution that is computed as a product."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))


class PatchEmbedding(nn.Module):
    """One matrix product. The checkpoint stores it as a Conv3d whose kernel is exactly one patch.

    (As a convolution it is pathologically slow in bf16 on several torch versions: pytorch issue 174051.)
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        shape = (config.in_channels, config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = Kernel((config.hidden_size, *shape))

    def forward(self, patches: Tensor) -> Tensor:
        """(P, 768) still or (P, 1536) video patches -> (P, C).

        uint8 patches are mapped from 0…255 to [-1, 1]; floating ones are taken as they are. The two frames of a still
        picture are equal, so its kernel is summed over time: half the work, equal up to rounding.
        """
        weight: Tensor = self.proj.weight
        if patches.shape[1] * 2 == weight[0].numel():
            weight = weight.sum(2)
        if patches.dtype == torch.uint8:
            patches = (patches.float() - 127.5) / 127.5
        return F.linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)


class VisionAttention(nn.Module):
    """Full attention inside each segment."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_dtype: torch.dtype | None = None
        """Of the attention alone; None is that of the rest."""
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, by: Turn, lengths: Sequence[int]) -> Tensor:
        """(P, C) -> (P, C)."""
        q, k, v = self.qkv(x).view(len(x), 3, self.num_heads, -1).unbind(1)
        # the rotation is done in float32, as in the reference
        dtype = self.attention_dtype or x.dtype
        q = rotate(q.float(), by).to(dtype)
        k = rotate(k.float(), by).to(dtype)
        mixed = attention(q, k, v.to(dtype), lengths, causal=False).to(x.dtype)
        return self.proj(mixed.flatten(1))  # type: ignore[no-any-return]


class VisionMlp(nn.Module):
    """Two linear layers with the tanh approximation of GELU between them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P, C)."""
        return self.linear_fc2(F.gelu(self.linear_fc1(x), approximate="tanh"))  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """Attention and MLP, each after a LayerNorm, each added to its input."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.attn = VisionAttention(config)
        self.mlp = VisionMlp(config)

    def forward(self, x: Tensor, by: Turn, lengths: Sequence[int]) -> Tensor:
        """(P, C) -> (P, C)."""
        x = x + self.attn(self.norm1(x), by, lengths)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Merger(nn.Module):
    """Four patches of a 2 x 2 block become one token.

    DeepStack's mergers normalise after joining the four, the main one before.
    """

    def __init__(self, config: VisionConfig, *, norm_after_joining: bool) -> None:
        super().__init__()
        self.joined_size = config.merged_size
        self.norm_after_joining = norm_after_joining
        self.norm = nn.LayerNorm(self.joined_size if norm_after_joining else config.hidden_size, eps=1e-6)
        self.linear_fc1 = nn.Linear(self.joined_size, self.joined_size)
        self.linear_fc2 = nn.Linear(self.joined_size, config.out_hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P / 4, out)."""
        if self.norm_after_joining:
            x = self.norm(x.view(-1, self.joined_size))
        else:
            x = self.norm(x).view(-1, self.joined_size)
        return self.linear_fc2(F.gelu(self.linear_fc1(x)))  # type: ignore[no-any-return]


class VisionTower(nn.Module):
    """Patches to tokens, with the DeepStack features taken on the way."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config)
        self.pos_embed = nn.Embedding(config.num_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = Merger(config, norm_after_joining=False)
        self.deepstack_merger_list = nn.ModuleList(
            Merger(config, norm_after_joining=True) for _ in config.deepstack_layers
        )

    def forward(self, patches: Sequence[Tensor], grids: Sequence[Grid]) -> tuple[Tensor, ...]:
        """Features of V visuals, packed.

        Args:
            patches: V tensors, (P_v, 768) or (P_v, 1536), see ``PatchEmbedding``.
            grids: (times, rows, columns) in patches of each.

        Returns:
            1 + len(deepstack_layers) tensors (M, out), M = sum of P_v / 4: the main features, then DeepStack's.
        """
        x = torch.cat([self.patch_embed(part) for part in patches])
        x = x + torch.cat([self._positions(grid) for grid in grids])
        by = self._turn(grids)
        lengths = [rows * columns for times, rows, columns in grids for _ in range(times)]
        deepstack: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x, by, lengths)
            if index in self.config.deepstack_layers:
                deepstack.append(self.deepstack_merger_list[len(deepstack)](x))
        return (self.merger(x), *deepstack)

    def _positions(self, grid: Grid) -> Tensor:
        """The learned square grid, stretched bilinearly over rows x columns, (P, C)."""
        times, rows, columns = grid
        weight = self.pos_embed.weight
        index, mix = _corners(rows, columns, round(self.config.num_position_embeddings**0.5))
        index, mix = index.to(weight.device), mix.to(weight.device, weight.dtype)
        corners = weight[index] * mix[..., None]
        return (corners[0] + corners[1] + corners[2] + corners[3]).repeat(times, 1)

    def _turn(self, grids: Sequence[Grid]) -> Turn:
        """The two-dimensional rotary embedding, float32."""
        device = self.pos_embed.weight.device
        angles = torch.cat([_angles(rows, columns, self.config.head_dim).repeat(t, 1) for t, rows, columns in grids])
        return turn(angles.to(device), torch.float32)


def _block_major(grid: Tensor) -> Tensor:
    """(rows, columns, …) -> (rows x columns, …) in the order of the patches: 2 x 2 blocks together."""
    rows, columns = grid.shape[:2]
    blocks = grid.reshape(rows // 2, 2, columns // 2, 2, *grid.shape[2:])
    return blocks.transpose(1, 2).reshape(rows * columns, *grid.shape[2:])


@lru_cache(maxsize=256)
def _corners(rows: int, columns: int, side: int) -> tuple[Tensor, Tensor]:
    """The four table rows and weights of each patch, (4, rows x columns) int64 and float32."""
    y, x = torch.linspace(0, side - 1, rows), torch.linspace(0, side - 1, columns)
    top, left = y.int(), x.int()
    bottom, right = (top + 1).clip(max=side - 1), (left + 1).clip(max=side - 1)
    dy, dx = (y - top)[:, None], (x - left)[None, :]
    index = torch.stack([_block_major(a[:, None] * side + b[None, :]) for a in (top, bottom) for b in (left, right)])
    weights = [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]
    return index.long(), torch.stack([_block_major(weight) for weight in weights])


@lru_cache(maxsize=256)
def _angles(rows: int, columns: int, head_dim: int) -> Tensor:
    """Angles of each patch, (rows x columns, head_dim / 2) float32: row frequencies, then column frequencies."""
    frequencies = 1.0 / (10_000.0 ** (torch.arange(0, head_dim // 2, 2, dtype=torch.float) / (head_dim // 2)))
    row = _block_major(torch.arange(rows)[:, None].expand(rows, columns)).float()
    column = _block_major(torch.arange(columns)[None, :].expand(rows, columns)).float()
    return torch.cat([row[:, None] * frequencies, column[:, None] * frequencies], 1)
