"""A checkpoint on a device, with what goes with it: network, tokenizer, budgets, and what they are called."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from sightline.engine.features import FeatureFolder
from sightline.engine.towers import cache_of, share_tower
from sightline.errors import ConfigError, WeightsError
from sightline.model.digest import sha256_of
from sightline.model.int8 import can_int8, to_int8
from sightline.model.packed import PackedLinear, can_pack, joined
from sightline.model.vl import QwenVL
from sightline.model.weights import Checkpoint, Source
from sightline.prep.prepare import Budgets
from sightline.prep.prompt import TEMPLATE
from sightline.prep.tokens import Tokenizer
from sightline.settings import Settings
from sightline.types import ModelCard

logger = logging.getLogger(__name__)

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INT8: Final = "int8"
LARGE: Final = 1_000_000_000
"""Parameters from which a CPU that has bf16 arithmetic uses it: half the memory, about twice the speed."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        network: on its device, in its dtype.
        tokenizer, budgets: as the checkpoint and the caller want them.
        checkpoint: the files, for what else is read from them.
        source: what it is called.
        fingerprint: see ``Checkpoint.fingerprint``.
        trust: see ``ModelCard.trust``.
        dtype: name of the arithmetic.
    """

    network: QwenVL
    tokenizer: Tokenizer
    budgets: Budgets
    checkpoint: Checkpoint
    source: Source
    fingerprint: str
    trust: float
    dtype: str


def load(
    source: Source, budgets: Budgets, *, device: str | None = None, dtype: str | torch.dtype | None = None
) -> Loaded:
    """Reads a checkpoint.

    Args:
        source: where it lies.
        budgets: what the caller asked for; a ``sightline.json`` in the checkpoint may lower them.
        device: torch device; None takes a GPU when there is one.
        dtype: float32, bfloat16, float16, or int8 (weights; on CPUs that have the products for it); None takes
            bfloat16 on a GPU, and on a CPU float32, but for models of over a billion parameters on a CPU with bf16
            arithmetic.

    Raises:
        WeightsError: see ``Checkpoint``.
        ConfigError: no such device or dtype.
    """
    # torch on a CPU keeps a team of workers for every thread that ever had one; once there are more than cores they no
    # longer spin between two products but sleep, and whoever runs the model in another thread than this loses a
    # quarter of its speed. The thread that loads ends, and its team with it.
    interrupted = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="sightline-load") as apart:
        try:
            return apart.submit(_load, source, budgets, device, dtype, interrupted).result()
        finally:  # after Ctrl-C the thread would read on to the end, and the program wait for it
            interrupted.set()


def _load(
    source: Source,
    budgets: Budgets,
    device: str | None,
    dtype: str | torch.dtype | None,
    interrupted: threading.Event,
) -> Loaded:
    checkpoint = Checkpoint(source.folder)
    where = pick_device(device)
    whole = _check_int8(where) if dtype == INT8 else False
    arithmetic = _stored(checkpoint) if whole else pick_dtype(dtype, where, checkpoint)
    said = INT8 if whole else str(arithmetic).removeprefix("torch.")
    logger.info("loading %s on %s in %s", source.name, where, said)
    ceilings = own_file(source.folder)
    trust = ceilings.pop("trust", 1.0)
    if not isinstance(trust, (int, float)) or not 0 <= trust <= 1:
        raise WeightsError(f"sightline.json: trust must be a number from 0 to 1, not {trust!r}")
    packed = where.type == "cpu" and not whole and can_pack(arithmetic)
    network = checkpoint.build(where, arithmetic, PackedLinear if packed else None, interrupted)
    if whole:
        to_int8(network)
    elif packed:
        joined(network)
    share_tower(network)
    return Loaded(
        network=network,
        tokenizer=Tokenizer(Path(source.folder) / "tokenizer.json"),
        budgets=budgets.under(ceilings),
        checkpoint=checkpoint,
        source=source,
        fingerprint=checkpoint.fingerprint(),
        trust=float(trust),
        dtype=said,
    )


def keep_features(loaded: Loaded, settings: Settings) -> None:
    """Lets vision features of these weights outlive the process, when the settings name a folder for them."""
    if not settings.feature_cache:
        return
    tower = f"{loaded.checkpoint.fingerprint(tower=True)}-{loaded.dtype}"
    folder = FeatureFolder(Path(settings.feature_cache), tower, settings.feature_cache_bytes)
    cache_of(loaded.network.visual, 0).folder = folder


def own_file(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself in ``sightline.json``: ceilings of budgets, and the trust in its scores.

    The published checkpoints have no such file; the built-in models do, because a small model shown 1,800 tokens
    of a page is slower and no better.
    """
    path = folder / "sightline.json"
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise WeightsError("sightline.json cannot be read") from None
    if not isinstance(said, dict):
        raise WeightsError("sightline.json is not a JSON object")
    return said


def pick_device(device: str | None) -> torch.device:
    """The device of that name, or the best there is.

    Raises:
        ConfigError: it does not exist on this machine.
    """
    if not device:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError):  # torch asserts when it was built without CUDA
        raise ConfigError(f"this machine has no device {device!r}") from None
    return chosen


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device, checkpoint: Checkpoint) -> torch.dtype:
    """The arithmetic of that name, or the best for the device and the size of the model.

    Raises:
        ConfigError: another name.
    """
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype:
        if dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join([*DTYPES, INT8])}, not {dtype!r}")
        return DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "cpu" and checkpoint.num_parameters() > LARGE and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def _check_int8(device: torch.device) -> bool:
    if device.type != "cpu" or not can_int8():
        raise ConfigError("int8 weights are for CPUs with VNNI; take bfloat16 or float32 here")
    return True


def _stored(checkpoint: Checkpoint) -> torch.dtype:
    """bfloat16 where the weights are stored so: what is rounded to int8 need not be widened as a whole before."""
    _, stored = checkpoint.described("model.language_model.norm.weight")
    return torch.bfloat16 if stored == "BF16" else torch.float32


def card(loaded: Loaded, *, dim: int, instruction: str) -> ModelCard:
    """What an index remembers of this model under these budgets."""
    return ModelCard(
        model=loaded.source.name,
        revision=loaded.source.revision,
        fingerprint=loaded.fingerprint,
        dim=dim,
        dtype=loaded.dtype,
        instruction=instruction,
        template=TEMPLATE,
        min_pixels=loaded.budgets.min_pixels,
        max_pixels=loaded.budgets.max_pixels,
        total_pixels=loaded.budgets.total_pixels,
        fps=loaded.budgets.fps,
        max_frames=loaded.budgets.max_frames,
        max_length=loaded.budgets.max_length,
        trust=loaded.trust,
        weights=sha256_of(loaded.checkpoint),
    )
