"""The geometry of a checkpoint, read from its ``config.json``.

Nothing is assumed: the defaults of other libraries are not these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sightline.errors import WeightsError


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionConfig:
    """The vision tower. Keys as in ``vision_config``."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    num_position_embeddings: int
    deepstack_layers: tuple[int, ...]
    in_channels: int = 3
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2

    @property
    def head_dim(self) -> int:
        """Width of one attention head (64 in the 2B, 72 in the 8B)."""
        return self.hidden_size // self.num_heads

    @property
    def merged_size(self) -> int:
        """Width of four patches side by side."""
        return self.hidden_size * self.spatial_merge_size**2


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """The decoder. Keys as in ``text_config``."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A whole checkpoint."""

    text: TextConfig
    vision: VisionConfig
    tie_word_embeddings: bool
    image_token_id: int
    video_token_id: int

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """The configuration in ``config.json``, in the spelling of transformers 4.57 or 5.

        Raises:
            WeightsError: another architecture, a missing key, a value this code does not implement.
        """
        if "auto_map" in raw:
            raise WeightsError("config.json has auto_map: checkpoints that bring their own code are refused")
        if raw.get("model_type") != "qwen3_vl":
            raise WeightsError(f"config.json is of model_type {raw.get('model_type')!r}, not 'qwen3_vl'")
        try:
            config = cls(
                text=_text(raw["text_config"]),
                vision=_vision(raw["vision_config"]),
                tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
                image_token_id=int(raw["image_token_id"]),
                video_token_id=int(raw["video_token_id"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"config.json: {error!r} is missing or malformed") from error
        if config.vision.out_hidden_size != config.text.hidden_size:
            raise WeightsError("config.json: out_hidden_size of the vision tower is not hidden_size of the decoder")
        return config


def _text(raw: Mapping[str, Any]) -> TextConfig:
    # transformers 4.57 writes rope_theta and rope_scaling, 5.x writes rope_parameters with both
    rope = raw.get("rope_parameters") or raw["rope_scaling"]
    _require(raw, "hidden_act", "silu")
    _require(raw, "attention_bias", False)
    _require(rope, "rope_type", "default")
    _require(rope, "mrope_interleaved", True)
    section = tuple(int(part) for part in rope["mrope_section"])
    head_dim = int(raw["head_dim"])
    if len(section) != 3 or sum(section) * 2 != head_dim:
        raise WeightsError(f"config.json: mrope_section {section} does not fill half of head_dim {head_dim}")
    return TextConfig(
        vocab_size=int(raw["vocab_size"]),
        hidden_size=int(raw["hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        num_layers=int(raw["num_hidden_layers"]),
        num_heads=int(raw["num_attention_heads"]),
        num_kv_heads=int(raw["num_key_value_heads"]),
        head_dim=head_dim,
        rms_norm_eps=float(raw["rms_norm_eps"]),
        rope_theta=float(rope["rope_theta"] if "rope_theta" in rope else raw["rope_theta"]),
        mrope_section=(section[0], section[1], section[2]),
    )


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    _require(raw, "hidden_act", "gelu_pytorch_tanh")
    for key, value in {"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}.items():
        _require(raw, key, value)
    return VisionConfig(
        depth=int(raw["depth"]),
        hidden_size=int(raw["hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        num_heads=int(raw["num_heads"]),
        out_hidden_size=int(raw["out_hidden_size"]),
        num_position_embeddings=int(raw["num_position_embeddings"]),
        deepstack_layers=tuple(int(index) for index in raw["deepstack_visual_indexes"]),
    )


def _require(raw: Mapping[str, Any], key: str, value: object) -> None:
    if raw.get(key, value) != value:
        raise WeightsError(f"config.json: {key} is {raw[key]!r}; this code implements {value!r}")
