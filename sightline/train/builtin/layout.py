"""A built-in model before its training, as a folder in the published layout; later stages export into copies of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from sightline.model.config import ModelConfig
from sightline.model.vl import QwenVL
from sightline.prep.tokens import Tokenizer
from sightline.train.builtin import geometry
from sightline.train.shards import Spec, write_json, write_tensors

MAX_PIXELS: Final = 262_144
"""Pages were at most 384 x 512 pixels in training; beyond this the tower sees positions it never learned."""
FRAME_PIXELS: Final = 16_384
"""A frame of the clips it learned from: 128 x 128."""


def preprocessor_json() -> dict[str, Any]:
    """``preprocessor_config.json`` as Qwen3-VL writes it."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "image_std": [0.5, 0.5, 0.5],
        "max_pixels": MAX_PIXELS,
        "merge_size": 2,
        "min_pixels": 4096,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": MAX_PIXELS, "shortest_edge": 4096},
        "temporal_patch_size": 2,
    }


def initialise(model: torch.nn.Module, seed: int) -> None:
    """Fills every tensor: matrices normal with deviation 1/sqrt(inputs) (0.02 for tables), norms one, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        with torch.no_grad():
            if name.endswith("bias"):
                tensor.zero_()
            elif tensor.ndim == 1:
                tensor.fill_(1.0)
            elif "embed_tokens" in name or "pos_embed" in name:
                tensor.normal_(0.0, 0.02, generator=generator)
            else:
                deviation = tensor[0].numel() ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.linear_fc2.weight")):
                    deviation *= 0.5
                tensor.normal_(0.0, deviation, generator=generator)


def write_start(folder: Path, seed: int, *, trust: float | None = None) -> None:
    """Writes config, preprocessor, budgets and first weights beside the tokenizer that is there.

    Args:
        folder: holds ``tokenizer.json`` and ``tokenizer_config.json``.
        seed: of the weights.
        trust: of a reranker, see ``sightline.ModelCard``; None writes none.
    """
    tokenizer = Tokenizer(folder / "tokenizer.json")
    config = geometry.config_json(tokenizer.added_tokens)
    model = QwenVL(ModelConfig.from_dict(config))
    initialise(model, seed)
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", preprocessor_json())
    own: dict[str, float] = {"max_pixels": MAX_PIXELS, "frame_pixels": FRAME_PIXELS}
    write_json(folder / "sightline.json", own if trust is None else {**own, "trust": trust})
    tensors = {f"model.{name}": tensor for name, tensor in model.named_parameters()}
    specs = {name: Spec(tuple(tensor.shape), torch.float32) for name, tensor in tensors.items()}
    write_tensors(folder, specs, tensors.__getitem__)
