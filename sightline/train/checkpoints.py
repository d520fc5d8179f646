"""What a run needs to go on after it was killed: what learns, the optimiser, the random numbers, the step.

A checkpoint is written into a folder of another name and renamed when it is whole and on the disk, and only then the
one before it is deleted: whenever the power fails, the last whole one is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sightline.errors import WeightsError

_WHOLE: Final = re.compile(r"step-(\d{8})")


def learned(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Everything that learns, by name: the module's own name first."""
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield f"{prefix}.{name}", parameter


def kept(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What learns, and what the modules remember beside it: their buffers, but for those that they make anew."""
    buffers = {
        f"{prefix}.{name}": value
        for prefix, module in modules.items()
        for name, value in module.state_dict(keep_vars=True).items()
        if not isinstance(value, nn.Parameter)
    }
    return {**dict(learned(modules)), **buffers}


def save(folder: Path, step: int, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
    """Writes the checkpoint of a step into ``folder`` and drops those before it.

    Args:
        folder: of all checkpoints of a run.
        step: steps that are done.
        modules: what learns.
        optimiser: of it.
    """
    whole, partial = folder / f"step-{step:08}", folder / f"step-{step:08}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in kept(modules).items()}
    save_file(tensors, partial / "learned.safetensors")
    state = optimiser.state_dict()
    rest = {f"{index}.{name}": value for index, held in state["state"].items() for name, value in held.items()}
    rest |= {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        rest["random_cuda"] = torch.cuda.get_rng_state()
    # tensors and JSON, not torch's own format: that one is a pickle
    save_file({name: value.detach().cpu().contiguous() for name, value in rest.items()}, partial / "state.safetensors")
    (partial / "groups.json").write_text(json.dumps(state["param_groups"]), encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        _sync(path)
    shutil.rmtree(whole, ignore_errors=True)
    partial.rename(whole)
    _sync(folder)
    for other in folder.iterdir():
        if other != whole and other.name.startswith("step-"):
            shutil.rmtree(other)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def latest(folder: Path) -> int | None:
    """Steps done by the last whole checkpoint, or None."""
    found = [match for path in folder.glob("step-*") if (match := _WHOLE.fullmatch(path.name))]
    return max((int(match[1]) for match in found), default=None)


def load(folder: Path, step: int, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
    """Puts a checkpoint back into what ``save`` was given.

    Raises:
        WeightsError: it cannot be read, or belongs to something else.
    """
    whole = folder / f"step-{step:08}"
    try:
        tensors: dict[str, Tensor] = load_file(whole / "learned.safetensors")
        rest: dict[str, Tensor] = load_file(whole / "state.safetensors")
        groups: list[dict[str, Any]] = json.loads((whole / "groups.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError):
        raise WeightsError(f"the checkpoint {whole} cannot be read; delete it to begin again") from None
    targets = kept(modules)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != {name: value.shape for name, value in targets.items()}:
        raise WeightsError(f"the checkpoint {whole} is of a run in which something else learned; choose another out")
    with torch.no_grad():
        for name, value in targets.items():
            value.copy_(tensors[name])
    random, random_cuda = rest.pop("random"), rest.pop("random_cuda", None)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in rest.items():
        index, _, what = name.partition(".")
        state.setdefault(int(index), {})[what] = value
    for group in groups:
        group["betas"] = tuple(group["betas"])
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(random)
    if random_cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(random_cuda)
