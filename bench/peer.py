"""Plain transformers, as a careful user would call it: AutoModel, SDPA, no cache, batches sorted by true length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, PreTrainedTokenizerFast

from bench.measure import Stages
from sightline.prep.patches import full_patches
from sightline.prep.prepare import Prepared

Prompt = str | Prepared
"""A text is given as its chat string and tokenized in the measured time; media come prepared (no torchvision)."""


class Transformers:
    """Hidden states of the last token, in padded batches."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.network = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()
        self.stages = Stages(self.network.visual, self.network.language_model)

    @torch.no_grad()
    def states(self, prompts: Sequence[Prompt], batch: int, *, special: bool = True) -> tuple[NDArray[np.float32], int]:
        """(N, C) hidden states in the order given, and how many tokens of padding were computed."""
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        encoded = iter(self.tokenizer(texts)["input_ids"] if texts else [])
        ids = [list(next(encoded)) if isinstance(prompt, str) else prompt.ids.tolist() for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        out = np.zeros((len(ids), self.network.config.text_config.hidden_size), np.float32)
        padding = 0
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            longest = max(len(ids[index]) for index in chosen)
            padding += sum(longest - len(ids[index]) for index in chosen)
            given = self._inputs([ids[index] for index in chosen], longest, [prompts[index] for index in chosen])
            hidden = self.network(**given, use_cache=False).last_hidden_state
            out[chosen] = hidden[:, -1].float().numpy()
        return out, padding

    def _inputs(self, ids: Sequence[list[int]], longest: int, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Padded on the left: the last token is the last column for all."""
        config = self.network.config
        rows = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        types = (rows == config.image_token_id).int() + 2 * (rows == config.video_token_id).int()
        out = {"input_ids": rows, "attention_mask": mask, "mm_token_type_ids": types}
        visuals = [visual for prompt in prompts if isinstance(prompt, Prepared) for visual in prompt.visuals]
        for is_video, pixels, grid in (
            (False, "pixel_values", "image_grid_thw"),
            (True, "pixel_values_videos", "video_grid_thw"),
        ):
            shown = [visual for visual in visuals if visual.is_video == is_video]
            if shown:
                patches = np.concatenate([full_patches(visual.patches) for visual in shown])
                out[pixels] = torch.from_numpy(patches).to(self.network.dtype)
                out[grid] = torch.tensor([visual.grid for visual in shown])
        return out


def unit(states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return F.normalize(torch.from_numpy(states), dim=-1).numpy()
