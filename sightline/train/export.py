"""A trained network as a folder in the published layout.

The names are the published ones (``model.language_model.…``, ``model.visual.…``, and ``lm_head.weight`` where the
tables are not tied), so that ``Embedder.load``, ``Reranker.load`` and transformers read the folder alike.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sightline.errors import ConfigError, WeightsError
from sightline.model.vl import QwenVL
from sightline.model.weights import HEAD, Checkpoint
from sightline.train.shards import (
    CODES,
    SHARD_BYTES,
    Spec,
    copy_side_files,
    whole_folder,
    write_tensors,
)


def export_checkpoint(
    model: QwenVL,
    base: Path,
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    head: Tensor | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
) -> None:
    """Writes a network with the tokenizer, configuration and templates of the checkpoint it was trained from.

    The folder appears under its name when it is whole. Tensors are brought to the CPU one at a time.

    Args:
        model: the network; adapters must have been merged into its weights.
        base: folder of the checkpoint it came from.
        folder: to be made; its parents too.
        dtype: of the written weights: float32, bfloat16 or float16.
        head: ``lm_head.weight`` (V, C) of a reranker whose tables are not tied; None takes that of ``base``.
        shard_bytes: most bytes in one file.
        overwrite: take the place of a folder of that name; ``base`` itself may be that folder.

    Raises:
        WeightsError: the network is not of the geometry of ``base``, or a weight is not finite.
        ConfigError: another dtype, a head for tied tables, or ``folder`` is there already.
    """
    if dtype not in CODES:
        raise ConfigError(f"weights are written in float32, bfloat16 or float16, not {dtype}")
    checkpoint = Checkpoint(base)
    if model.config != checkpoint.config:
        raise WeightsError(f"the network is not of the geometry that config.json in {base} tells")
    tensors: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in model.named_parameters()}
    with torch.device("meta"):
        wanted = {f"model.{name}" for name, _ in QwenVL(checkpoint.config).named_parameters()}
    if set(tensors) != wanted:
        odd = min(set(tensors) ^ wanted)
        raise WeightsError(f"the network has other tensors than the published layout ({odd}); merge its adapters first")
    if head is not None:
        if checkpoint.config.tie_word_embeddings:
            raise ConfigError("this checkpoint ties its head to the table of tokens: it has no head of its own")
        tensors[HEAD] = head
    specs = {name: Spec(tuple(tensor.shape), dtype) for name, tensor in tensors.items()}
    # a head that only repeats the tied table would no longer be true
    kept_head = head is None and HEAD in checkpoint.files and not checkpoint.config.tie_word_embeddings
    if kept_head:
        specs[HEAD] = Spec(checkpoint.described(HEAD)[0], dtype)
    with whole_folder(folder, overwrite=overwrite) as partial:
        copy_side_files(base, partial, dtype=dtype)
        write_tensors(
            partial,
            specs,
            lambda name: tensors[name] if name in tensors else checkpoint.tensor(name),
            shard_bytes=shard_bytes,
        )
