"""From a name to a network: finding a checkpoint, refusing what is unsafe, and reading every tensor once.

Safetensors only; no pickle, no code from a checkpoint. The network is built on the meta device and its tensors are
memory-mapped, so loading in the stored dtype costs the weights and little more.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sightline.errors import MissingExtraError, WeightsError
from sightline.model.config import ModelConfig
from sightline.model.vl import QwenVL

PINNED: Final[dict[str, str]] = {
    "Qwen/Qwen3-VL-Embedding-2B": "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda",
    "Qwen/Qwen3-VL-Embedding-8B": "2c4565515e0f265c6511776e7193b22c0968ddc7",
    "Qwen/Qwen3-VL-Reranker-2B": "4bd860ac4f15ad1897a214615cccc700f8f71818",
    "Qwen/Qwen3-VL-Reranker-8B": "407993db318a67dbb333bbeb8b1521fb703a3bb1",
}
"""The commits loaded when no revision is given (as mteb pins them; of the 8B reranker the last whole one)."""

FILES: Final = ("*.json", "*.safetensors", "*.jinja", "*.txt")
"""What is downloaded of a repository: no code, no pickles."""

PICKLES: Final = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}

HEAD: Final = "lm_head.weight"
TABLE: Final = "model.language_model.embed_tokens.weight"
TOWER: Final = "model.visual."
SAMPLE_BYTES: Final = 4096
"""Bytes of each tensor that enter the fingerprint: any training step changes them."""
AT_A_TIME: Final = 8
"""Tensors read from one opening of a file: its pages are in memory until all of them are copied."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint lies.

    Attributes:
        name: as the user gave it.
        revision: commit of a Hub repository, "" for a folder.
        folder: the files on this machine.
    """

    name: str
    revision: str
    folder: Path


def find(name: str, revision: str | None = None) -> Source:
    """The checkpoint of a folder, a Hub id or ``modelscope:ID``; repositories are downloaded once.

    Raises:
        WeightsError: no such folder, or the download failed.
        MissingExtraError: ``modelscope:`` without that package.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(name, "", folder)
    if name.startswith("modelscope:"):
        return _from_modelscope(name, revision)
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise WeightsError(
            f"{name!r} is neither a folder, nor a Hub id such as Qwen/Qwen3-VL-Embedding-2B, nor builtin"
        )
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Source:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = revision or PINNED.get(name)
    try:
        folder = huggingface_hub.snapshot_download(name, revision=wanted, allow_patterns=list(FILES))
    except RepositoryNotFoundError:
        raise WeightsError(f"there is no repository {name} on the Hub, or it is private") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"{name} could not be downloaded ({type(error).__name__}); is this machine online?"
        ) from error
    commit = Path(folder).name
    return Source(name, commit if re.fullmatch("[0-9a-f]{40}", commit) else wanted or "", Path(folder))


def _from_modelscope(name: str, revision: str | None) -> Source:
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise MissingExtraError("modelscope", "modelscope") from None
    try:
        folder = snapshot_download(name.removeprefix("modelscope:"), revision=revision, allow_file_pattern=list(FILES))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{name} could not be downloaded ({type(error).__name__}); is this machine online?"
        ) from error
    return Source(name, revision or "", Path(folder))


class Checkpoint:
    """The files of one checkpoint: configuration and tensors by name, nothing loaded yet.

    Raises:
        WeightsError: no safetensors, remote code, a damaged file or index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = ModelConfig.from_dict(self._json("config.json"))
        for name in ("tokenizer_config.json", "preprocessor_config.json"):
            if (folder / name).is_file() and "auto_map" in self._json(name):
                raise WeightsError(f"{name} has auto_map: checkpoints that bring their own code are refused")
        self.files = self._locate()
        """tensor name -> file that holds it."""

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise WeightsError(f"the folder {self.folder} has no {name}") from None
        except (OSError, ValueError):
            raise WeightsError(f"{name} cannot be read") from None
        if not isinstance(value, dict):
            raise WeightsError(f"{name} is not a JSON object")
        return value

    def _locate(self) -> dict[str, Path]:
        index, single = self.folder / "model.safetensors.index.json", self.folder / "model.safetensors"
        if index.is_file():
            shards = self._json(index.name).get("weight_map", {})
            if any(Path(shard).name != shard for shard in shards.values()):
                raise WeightsError("the index of the checkpoint points outside its folder")
            files = {name: self.folder / shard for name, shard in shards.items()}
            for path in sorted(set(files.values())):
                with _opened(path) as handle:
                    held = set(handle.keys())
                promised = {name for name, where in files.items() if where == path}
                if held != promised:
                    wrong = min(held ^ promised)
                    raise WeightsError(f"{path.name} and the index disagree about the tensor {wrong}")
            return files
        if single.is_file():
            with _opened(single) as handle:
                return dict.fromkeys(handle.keys(), single)
        if any(path.suffix in PICKLES for path in self.folder.iterdir()):
            raise WeightsError("this checkpoint is a pickle, which can run code; only safetensors are loaded")
        raise WeightsError(f"the folder {self.folder} has no model.safetensors")

    def num_parameters(self) -> int:
        """Parameters of both towers, counted from the configuration."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in QwenVL(self.config).parameters())

    def fingerprint(self, tower: bool = False) -> str:
        """16 hex digits of a sha256 over the configuration and the beginning of every tensor.

        Args:
            tower: of the vision tower alone.
        """
        config = self._json("config.json")
        shown = config.get("vision_config") if tower else config
        digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode())
        for path in sorted(set(self.files.values())):
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
                header.pop("__metadata__", None)
                for name, entry in sorted(header.items()):
                    if tower and not name.startswith(TOWER):
                        continue
                    begin, end = entry["data_offsets"]
                    file.seek(8 + size + begin)
                    digest.update(f"{name}{entry['dtype']}{entry['shape']}".encode())
                    digest.update(file.read(min(SAMPLE_BYTES, end - begin)))
        return digest.hexdigest()[:16]

    def build(
        self,
        device: torch.device,
        dtype: torch.dtype,
        linear: Callable[[nn.Linear], nn.Module] | None = None,
        interrupted: threading.Event | None = None,
    ) -> QwenVL:
        """The network with its weights, in evaluation mode, no gradients.

        Args:
            device, dtype: of its tensors.
            linear: makes of each linear layer what stands in its place, as soon as its weights are read: so that
                they are in memory once.
            interrupted: once it is set by another thread, no further tensor is read.

        Raises:
            WeightsError: a tensor is missing, is of the wrong shape, or has no place in the network; or interrupted.
        """
        with torch.device("meta"):
            model = QwenVL(self.config)
        wanted = {f"model.{name}": parameter.shape for name, parameter in model.named_parameters()}
        missing = sorted(set(wanted) - set(self.files))
        # the tied 2B may carry a redundant head; the 8B embedder has none although its config does not tie
        unused = sorted(set(self.files) - set(wanted) - {HEAD})
        if missing:
            raise WeightsError(f"the checkpoint lacks {len(missing)} tensors, the first is {missing[0]}")
        if unused:
            raise WeightsError(f"the checkpoint has {len(unused)} tensors with no place, the first is {unused[0]}")
        for name, tensor in self._tensors(wanted):
            if interrupted is not None and interrupted.is_set():
                raise WeightsError("loading was interrupted")
            if tensor.shape != wanted[name]:
                raise WeightsError(f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name])}")
            place, _, leaf = name.removeprefix("model.").rpartition(".")
            owner = model.get_submodule(place)
            last = linear is not None and isinstance(owner, nn.Linear) and leaf == "weight"  # a bias comes before
            # what stays as it was read would keep the pages of its file in memory, those of its neighbours too
            value = tensor.to(device, dtype, copy=linear is not None and not last)
            setattr(owner, leaf, nn.Parameter(value, requires_grad=False))
            if linear and last:
                above, _, own = place.rpartition(".")
                setattr(model.get_submodule(above), own, linear(owner))  # type: ignore[arg-type]
        return model.eval()

    def _tensors(self, names: dict[str, torch.Size]) -> Iterator[tuple[str, Tensor]]:
        """Tensors by name; files are opened anew for every few, so that pages already copied can leave memory."""
        by_file: dict[Path, list[str]] = {}
        for name in sorted(names):  # a bias before its weight
            by_file.setdefault(self.files[name], []).append(name)
        for path, held in sorted(by_file.items()):
            for first in range(0, len(held), AT_A_TIME):
                with _opened(path) as handle:
                    for name in held[first : first + AT_A_TIME]:
                        yield name, handle.get_tensor(name)

    def tensor(self, name: str) -> Tensor:
        """One tensor as it is stored; the file is closed again, so that its pages can leave memory."""
        with _opened(self.files[name]) as handle:
            stored: Tensor = handle.get_tensor(name)
            return stored

    def described(self, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a tensor without reading it, the dtype in the words of safetensors (``BF16``)."""
        with _opened(self.files[name]) as handle:
            stored = handle.get_slice(name)
            return tuple(stored.get_shape()), str(stored.get_dtype())

    def head_rows(self, ids: tuple[int, ...]) -> Tensor:
        """Rows of the language-model head, (len(ids), C) float32.

        Raises:
            WeightsError: an untied checkpoint without a head cannot rerank.
        """
        name = TABLE if self.config.tie_word_embeddings else HEAD
        if name not in self.files:
            raise WeightsError("this checkpoint has no lm_head.weight: it is an embedder, not a reranker")
        with _opened(self.files[name]) as handle:
            rows = handle.get_slice(name)
            return torch.cat([rows[index : index + 1] for index in ids]).float()


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError:
        raise WeightsError(f"the checkpoint lacks its file {path.name}") from None
    except (SafetensorError, OSError):
        raise WeightsError(f"{path.name} is not a whole safetensors file") from None
