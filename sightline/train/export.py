"""A trained model as a folder in the published layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from sightline.model.vl import QwenVL
from sightline.prep.tokens import Tokenizer
from sightline.train import geometry

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


def export(model: QwenVL, tokenizer_folder: Path, folder: Path, *, trust: float | None = None) -> None:
    """Writes config, tokenizer, preprocessor, budgets and bf16 weights.

    Args:
        model: the network.
        tokenizer_folder: holds ``tokenizer.json`` and ``tokenizer_config.json``, copied as they are.
        folder: made when it is not there.
        trust: of a reranker, see ``sightline.ModelCard``; None writes none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(tokenizer_folder / "tokenizer.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if tokenizer_folder != folder:
            shutil.copyfile(tokenizer_folder / name, folder / name)
    rows = model.config.text.vocab_size
    _write(folder / "config.json", geometry.config_json(tokenizer.added_tokens, rows))
    _write(folder / "preprocessor_config.json", preprocessor_json())
    own: dict[str, float] = {"max_pixels": MAX_PIXELS, "frame_pixels": FRAME_PIXELS}
    _write(folder / "sightline.json", own if trust is None else {**own, "trust": trust})
    tensors = {
        f"model.{name}": tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.named_parameters()
    }
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / "model.safetensors")


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
