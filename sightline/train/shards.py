"""Safetensors files written one tensor at a time, and folders that appear whole or not at all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from sightline.errors import ConfigError, WeightsError

SHARD_BYTES: Final = 4_000_000_000
"""Most bytes of one file: the published 8B has four files of about this size."""

CODES: Final = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""How safetensors calls a dtype (its format, and the one that is read everywhere)."""

SIDE_FILES: Final = (".json", ".jinja", ".txt")
"""Endings of the files beside the weights: configurations, tokenizer, templates."""
SIDE_FOLDERS: Final = ("additional_chat_templates", "[0-9]*_*")
"""Folders of such files; the numbered ones are modules of sentence-transformers."""
SIDE_NAMES: Final = ("LICENSE*", "NOTICE*")


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and dtype of a tensor that is to be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(
    folder: Path,
    specs: Mapping[str, Spec],
    tensor_of: Callable[[str], Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes ``model.safetensors``, or numbered files and their index where the tensors are more than one file holds.

    Args:
        folder: exists.
        specs: every tensor by name; files are filled in this order.
        tensor_of: name to values; each is asked for once and let go of before the next.
        shard_bytes: most bytes of tensors in one file (a larger tensor has a file of its own).
        metadata: words kept in the head of each file.

    Raises:
        WeightsError: a tensor is not what its spec says, or holds NaN or infinity.
    """
    plan = shards(specs, shard_bytes)
    if len(plan) == 1:
        _write_file(folder / "model.safetensors", plan[0], specs, tensor_of, metadata or {})
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(plan, 1):
        file = f"model-{number:05}-of-{len(plan):05}.safetensors"
        _write_file(folder / file, names, specs, tensor_of, metadata or {})
        weight_map.update(dict.fromkeys(names, file))
    total = sum(spec.num_bytes for spec in specs.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def shards(specs: Mapping[str, Spec], shard_bytes: int) -> list[list[str]]:
    """Names file by file, filled in order.

    >>> one = Spec((2,), torch.float32)
    >>> shards({"a": one, "b": one, "c": one}, 16)
    [['a', 'b'], ['c']]
    """
    plan: list[list[str]] = [[]]
    left = shard_bytes
    for name, spec in specs.items():
        if plan[-1] and spec.num_bytes > left:
            plan.append([])
            left = shard_bytes
        plan[-1].append(name)
        left -= spec.num_bytes
    return plan


def _write_file(
    path: Path,
    names: Sequence[str],
    specs: Mapping[str, Spec],
    tensor_of: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """One file: eight bytes of the head's length, the head as JSON, the values in its order."""
    head: dict[str, Any] = {"__metadata__": {**metadata, "format": "pt"}}
    offset = 0
    for name in names:
        spec = specs[name]
        head[name] = {
            "dtype": CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.num_bytes],
        }
        offset += spec.num_bytes
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = tensor_of(name)
            if tuple(tensor.shape) != specs[name].shape:
                raise WeightsError(f"{name} is {tuple(tensor.shape)}, not {specs[name].shape}")
            values = tensor.detach().to("cpu", specs[name].dtype).contiguous()
            if not torch.isfinite(values).all():
                raise WeightsError(f"{name} holds NaN or infinity as {specs[name].dtype}")
            file.write(values.reshape(-1).view(torch.uint8).numpy().data)


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill; under its own name it is there when all of it is.

    Args:
        folder: the name it gets at the end.
        overwrite: take the place of a folder of that name; otherwise that is refused before any work.

    Raises:
        ConfigError: there is something of that name already.
    """
    taken = folder.exists() and not (folder.is_dir() and (overwrite or not any(folder.iterdir())))
    if taken:
        raise ConfigError(f"{folder} is there already; take another name or remove it")
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except BaseException:  # whatever it was, the folder that stood here is put back and the error goes on
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def copy_side_files(base: Path, folder: Path, *, dtype: torch.dtype) -> None:
    """Everything of a checkpoint but its weights, as it is; ``config.json`` alone is told the dtype of the new ones."""
    found = [path for path in base.iterdir() if path.suffix in SIDE_FILES or any(map(path.match, SIDE_NAMES))]
    for pattern in SIDE_FOLDERS:
        for inner in base.glob(pattern):
            found += [path for path in inner.iterdir() if path.suffix in SIDE_FILES] if inner.is_dir() else []
    for path in found:
        if path.is_file() and not path.name.endswith(".safetensors.index.json"):
            target = folder / path.relative_to(base)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = str(dtype).removeprefix("torch.")
    changed = [_tell_dtype(part, name) for part in (config, config.get("text_config"), config.get("vision_config"))]
    if any(changed):
        write_json(folder / "config.json", config)


def _tell_dtype(part: Any, name: str) -> bool:
    """Writes the dtype where one is written already; whether it was another."""
    changed = False
    for key in ("dtype", "torch_dtype"):
        if isinstance(part, dict) and key in part and part[key] != name:
            part[key] = name
            changed = True
    return changed


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file as the published checkpoints have it, two spaces a level."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
