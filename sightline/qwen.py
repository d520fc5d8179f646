"""Drop-in for the classes of the official repository: same constructor arguments, same ``process`` input and output.

Replace ``from qwen3_vl_embedding import Qwen3VLEmbedder`` by ``from sightline.qwen import Qwen3VLEmbedder``. What
is different on purpose is listed in ``docs/differences.md``: an unreadable picture raises instead of turning the whole
batch into the text "NULL", and addresses on the web are fetched only with ``allow_urls=True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from sightline.embed import Embedder
from sightline.errors import ConfigError, InputError
from sightline.prep.prompt import EMBED_INSTRUCTION, RERANK_INSTRUCTION
from sightline.rerank import Reranker
from sightline.settings import Settings
from sightline.types import Item

IGNORED = {"attn_implementation", "trust_remote_code", "device_map"}
"""Options of ``from_pretrained`` that mean nothing here."""


def _split(options: dict[str, Any]) -> tuple[str | torch.dtype, str | None]:
    """Arithmetic and device out of what the official constructor hands to ``from_pretrained``."""
    options = {name: value for name, value in options.items() if name not in IGNORED}
    dtype = options.pop("dtype", None) or options.pop("torch_dtype", None) or "float32"
    device = options.pop("device", None)
    options.pop("torch_dtype", None)
    if options:
        raise ConfigError(f"unknown option {min(options)!r}")
    return dtype, device


class Qwen3VLEmbedder:
    """The official embedder's face on Sightline's engine. float32 unless ``dtype`` says otherwise, as officially."""

    def __init__(
        self,
        model_name_or_path: str,
        max_length: int = 8192,
        min_pixels: int = 4096,
        max_pixels: int = 1_843_200,
        total_pixels: int = 7_864_320,
        fps: float = 1,
        max_frames: int = 64,
        default_instruction: str = EMBED_INSTRUCTION,
        *,
        allow_urls: bool = False,
        **kwargs: Any,
    ) -> None:
        dtype, device = _split(kwargs)
        self.default_instruction = default_instruction
        self.embedder = Embedder.load(
            model_name_or_path,
            device=device,
            dtype=dtype,
            max_length=max_length,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            total_pixels=total_pixels,
            fps=fps,
            max_frames=max_frames,
            settings=Settings(allow_urls=allow_urls),
        )

    def process(self, inputs: Sequence[Mapping[str, Any]], normalize: bool = True) -> torch.Tensor:
        """Embeddings of a list of dicts with text, image, video, instruction, fps, max_frames.

        Returns:
            (N, E) tensor in float32; of length 1 when ``normalize``.

        Raises:
            ItemError: the first input that cannot be read.
        """
        given = [_given(entry) for entry in inputs]
        states = torch.from_numpy(self.embedder.hidden(given, instruction=self.default_instruction))
        return F.normalize(states, p=2, dim=-1) if normalize else states


class Qwen3VLReranker:
    """The official reranker's face on Sightline's engine."""

    def __init__(
        self,
        model_name_or_path: str,
        max_length: int = 10_240,
        min_pixels: int = 4096,
        max_pixels: int = 1_843_200,
        total_pixels: int = 7_864_320,
        fps: float = 1,
        max_frames: int = 64,
        default_instruction: str = RERANK_INSTRUCTION,
        *,
        allow_urls: bool = False,
        **kwargs: Any,
    ) -> None:
        dtype, device = _split(kwargs)
        self.default_instruction = default_instruction
        self.reranker = Reranker.load(
            model_name_or_path,
            device=device,
            dtype=dtype,
            max_length=max_length,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            total_pixels=total_pixels,
            fps=fps,
            max_frames=max_frames,
            settings=Settings(allow_urls=allow_urls),
        )

    def process(self, inputs: Mapping[str, Any]) -> list[float]:
        """Scores in [0, 1] of ``{"instruction", "query", "documents", "fps", "max_frames"}``.

        The query's text may be a tuple (instruction, text), as officially.

        Raises:
            ItemError: the first document that cannot be read.
        """
        known = {"instruction", "query", "documents", "fps", "max_frames"}
        unknown = sorted(set(inputs) - known)
        if unknown:
            raise InputError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
        query, documents = inputs.get("query"), inputs.get("documents")
        if not query or not documents:
            return []
        sampling = {name: inputs[name] for name in ("fps", "max_frames") if inputs.get(name) is not None}
        instruction = inputs.get("instruction") or self.default_instruction
        question = _given(query)
        if isinstance(question.get("text"), tuple):
            instruction, question["text"] = question["text"]
        given = [_given(document) | sampling for document in documents]
        return self.reranker.score(Item.of(question | sampling), given, instruction=instruction).tolist()  # type: ignore[no-any-return]


def _given(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry without its empty values, which the official code treats as absent."""
    return {name: value for name, value in entry.items() if value is not None}
