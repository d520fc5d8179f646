"""What of a network learns: low-rank updates (LoRA, by ``peft``), or the weights of a tower themselves.

In bf16 arithmetic what does not learn is stored in bf16, half the memory, and what learns in float32: the updates of
fine-tuning are often smaller than the distance of neighbouring bf16 numbers, and would be rounded away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sightline.errors import ConfigError, MissingExtraError
from sightline.model.text import DecoderLayer
from sightline.model.vision import VisionBlock
from sightline.model.vl import QwenVL
from sightline.train.config import Lora, Stage

ADAPTER: Final = "default"
"""Name that peft gives to the only adapter."""


def settle(network: QwenVL, stage: Stage) -> None:
    """Decides what learns, in place: adapters or whole towers, their dtypes, gradient checkpointing.

    Raises:
        ConfigError: no layer has one of the names of ``lora.targets``.
        MissingExtraError: LoRA without peft.
    """
    network.requires_grad_(False)
    if stage.lora is not None:
        put_on(network, stage.lora, stage.learn)
    else:
        network.language_model.requires_grad_(stage.learn != "vision")
        network.visual.requires_grad_(stage.learn != "decoder")
    arithmetic = {"bfloat16": torch.bfloat16, "float32": torch.float32}[stage.dtype]
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else arithmetic)
    if stage.gradient_checkpointing:
        checkpoint_layers(network)


def put_on(network: QwenVL, lora: Lora, learn: str = "decoder") -> None:
    """Puts low-rank updates on the linear layers that are named, in place; at first they change nothing.

    Args:
        network: its other weights stop learning.
        lora: the table of the stage.
        learn: decoder, vision or both: where layers are looked for.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError("peft", "train") from None
    names = []
    if learn != "vision":
        names += [rf"language_model\.layers\.\d+\..*\b{re.escape(name)}" for name in lora.targets]
    if learn != "decoder":
        names += [
            rf"visual\.(blocks|merger|deepstack_merger_list)\b.*\b{re.escape(name)}" for name in lora.vision_targets
        ]
    for name in names:
        if not any(re.fullmatch(name, path) and isinstance(part, nn.Linear) for path, part in network.named_modules()):
            linear = sorted(
                {path.rpartition(".")[2] for path, part in network.named_modules() if isinstance(part, nn.Linear)}
            )
            raise ConfigError(f"lora: no linear layer matches {name}; the layers are {', '.join(linear)}")
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="|".join(f"({n})" for n in names)
    )
    inject_adapter_in_model(config, network, adapter_name=ADAPTER)
    network.train()  # for dropout; nothing else here differs


def _adapted(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers with an update, by name."""
    for name, part in network.named_modules():
        if hasattr(part, "lora_A") and hasattr(part, "base_layer"):
            yield name, part


@torch.no_grad()
def merge(network: QwenVL) -> None:
    """Adds the updates to the weights, in place: the network is a plain one again and gives the same vectors."""
    for name, layer in list(_adapted(network)):
        base = layer.base_layer
        # in float32, and rounded once where the weight is bf16
        base.weight.data = (base.weight.float() + layer.get_delta_weight(ADAPTER).float()).to(base.weight.dtype)
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, base)
    network.requires_grad_(False).eval()


def save(network: QwenVL, folder: Path, lora: Lora, base: str) -> None:
    """Writes the updates as ``peft`` does for the published model, so that it can put them on there.

    Args:
        network: with adapters.
        folder: made; holds ``adapter_model.safetensors`` and ``adapter_config.json``.
        lora: the table of the stage.
        base: name of the checkpoint they belong to.
    """
    from peft import LoraConfig

    tensors: dict[str, Tensor] = {}
    names = []
    for name, layer in _adapted(network):
        names.append(f"model.{name}")
        for part in ("lora_A", "lora_B"):
            tensors[f"base_model.model.model.{name}.{part}.weight"] = (
                getattr(layer, part)[ADAPTER].weight.detach().float().cpu().contiguous()
            )
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=names,
        base_model_name_or_path=base,
        inference_mode=True,
    ).to_dict()
    config["target_modules"] = names  # peft keeps a set, which has no order
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")


def checkpoint_layers(network: QwenVL) -> None:
    """Layers of both towers keep their inputs only, and are computed once more on the way back."""
    for part in network.modules():
        if isinstance(part, (DecoderLayer, VisionBlock)):
            # the bound methods stand before those of the class; ``plain_layers`` takes them away again
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)  # type: ignore[method-assign]
        if isinstance(part, DecoderLayer):
            part.forward_last = partial(checkpoint, part.forward_last, use_reentrant=False)  # type: ignore[method-assign]


def plain_layers(network: QwenVL) -> None:
    """Takes ``checkpoint_layers`` back."""
    for part in network.modules():
        for name in ("forward", "forward_last"):
            if isinstance(part, (DecoderLayer, VisionBlock)):
                vars(part).pop(name, None)
