"""The other engines, each as a careful user would call it.

transformers: ``AutoModel``, SDPA, no cache, batches sorted by true length. sentence-transformers: ``encode``, which
sorts by characters. Pictures and videos come to both as patches: their processors need torchvision.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, PreTrainedTokenizerFast

from bench.watch import Stages
from sightline.prep.patches import full_patches
from sightline.prep.prepare import Prepared

Prompt = str | Prepared
"""A text is given as its chat string and tokenized in the measured time; media come prepared (no torchvision)."""


class Transformers:
    """Hidden states of the last token, in padded batches."""

    def __init__(self, folder: Path, dtype: str, device: str) -> None:
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        arithmetic = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
        self.network = AutoModel.from_pretrained(folder, **arithmetic).eval().to(device)
        self.stages = Stages(self.network.visual, self.network.language_model)

    @torch.no_grad()
    def states(self, prompts: Sequence[Prompt], batch: int) -> tuple[NDArray[np.float32], int]:
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
            out[chosen] = hidden[:, -1].float().cpu().numpy()
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
        return {name: tensor.to(self.network.device) for name, tensor in out.items()}


class SentenceTransformers:
    """sentence-transformers with the modules of the published embedder: last token, length 1."""

    def __init__(self, folder: Path, dtype: str, device: str) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.base.modules.normalize import Normalize
        from sentence_transformers.sentence_transformer.modules.pooling import Pooling

        words = Path(tempfile.mkdtemp(prefix="sightline-bench-"))
        shutil.copy(folder / "tokenizer.json", words)
        said = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left", "pad_token": "<|endoftext|>"}
        (words / "tokenizer_config.json").write_text(json.dumps(said | {"model_max_length": 32_768}))
        arithmetic = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
        reader = Transformer(str(folder), tokenizer_name_or_path=str(words), model_kwargs=arithmetic)
        width = reader.model.config.text_config.hidden_size
        self.model = SentenceTransformer(modules=[reader, Pooling(width, "lasttoken"), Normalize()], device=device)
        self.stages = Stages(reader.model.visual, reader.model.language_model)
        self._padding = 0
        reader.register_forward_pre_hook(self._count)
        self._batches = Transformers.__new__(Transformers)
        self._batches.network = reader.model

    def _count(self, _: object, given: tuple[dict[str, Tensor], ...]) -> None:
        self._padding += int((given[0]["attention_mask"] == 0).sum())

    @torch.no_grad()
    def states(self, prompts: Sequence[Prompt], batch: int) -> tuple[NDArray[np.float32], int]:
        """(N, C) vectors of length 1 in the order given, and how many tokens of padding were computed."""
        self._padding = 0
        if all(isinstance(prompt, str) for prompt in prompts):
            return self.model.encode(list(prompts), batch_size=batch, show_progress_bar=False), self._padding
        made = []
        for start in range(0, len(prompts), batch):
            chosen = [prompt for prompt in prompts[start : start + batch] if isinstance(prompt, Prepared)]
            ids = [prompt.ids.tolist() for prompt in chosen]
            given = self._batches._inputs(ids, max(map(len, ids)), chosen)
            made.append(self.model(given | {"modality": "text"})["sentence_embedding"].float().cpu().numpy())
        return np.concatenate(made), self._padding
