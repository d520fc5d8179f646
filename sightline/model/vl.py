"""Both towers together: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sightline.model.config import ModelConfig
from sightline.model.ops import KeyValue
from sightline.model.text import Decoder
from sightline.model.vision import Grid, VisionTower


class QwenVL(nn.Module):
    """Qwen3-VL without its language-model head: ids and patches to hidden states.

    Its tensors are those of the checkpoints without the leading ``model.``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTower(config.vision)
        self.language_model = Decoder(config.text)

    def vision_features(self, patches: Sequence[Tensor], grids: Sequence[Grid]) -> tuple[Tensor, ...]:
        """Main and DeepStack features of pictures and videos, each (M, C); see ``VisionTower.forward``."""
        return self.visual(patches, grids)  # type: ignore[no-any-return]

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        lengths: Sequence[int],
        *,
        features: Sequence[Tensor] = (),
        prefix: Sequence[KeyValue] | None = None,
    ) -> Tensor:
        """Final hidden state of the last token of each segment.

        Args:
            ids: (T,) int64, segments one after the other.
            positions: (3, T) int64.
            lengths: tokens of each of N segments.
            features: what ``vision_features`` gave for the visuals of these segments, in order.
            prefix: see ``prefix_states``; ids and positions then hold only what comes after it.

        Returns:
            (N, C).
        """
        x, rows = self._embed(ids, features)
        return self.language_model(  # type: ignore[no-any-return]
            x, positions, lengths, deepstack=features[1:], visual_rows=rows, prefix=prefix
        )

    def prefix_states(self, ids: Tensor, positions: Tensor, *, features: Sequence[Tensor] = ()) -> list[KeyValue]:
        """Keys and values of a prompt head shared by many segments, one pair (L, Hkv, D) for each layer."""
        x, rows = self._embed(ids, features)
        return self.language_model.keys_values(x, positions, deepstack=features[1:], visual_rows=rows)

    def _embed(self, ids: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """(T, C) embeddings with visual tokens put in place, and the (M,) rows they stand in."""
        x: Tensor = self.language_model.embed_tokens(ids)
        if not features:
            return x, None
        pads = (ids == self.config.image_token_id) | (ids == self.config.video_token_id)
        rows = torch.nonzero(pads).flatten()
        assert len(rows) == len(features[0]), (len(rows), len(features[0]))
        return x.index_copy(0, rows, features[0].to(x.dtype)), rows
