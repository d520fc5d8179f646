"""Reading config.json: both spellings, nothing assumed, nothing unknown let through."""

import copy
import json
from typing import Any

import pytest
import torch

from sightline.errors import WeightsError
from sightline.model.config import ModelConfig
from sightline.model.vl import QwenVL

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "image_token_id": 151655,
    "video_token_id": 151656,
    "tie_word_embeddings": True,
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "rope_theta": 5000000,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "num_heads": 16,
        "intermediate_size": 4096,
        "out_hidden_size": 2048,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
        "hidden_act": "gelu_pytorch_tanh",
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
    },
}


def changed(**changes):
    raw = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = raw
        for parent in parents:
            place = place[parent]
        place[key] = value
    return raw


def test_both_spellings_of_the_rotary_settings():
    new = copy.deepcopy(CONFIG)
    rope = new["text_config"].pop("rope_scaling")
    new["text_config"]["rope_parameters"] = {**rope, "rope_theta": new["text_config"].pop("rope_theta")}
    assert ModelConfig.from_dict(new) == ModelConfig.from_dict(CONFIG)
    assert ModelConfig.from_dict(new).text.rope_theta == 5_000_000


def test_the_2b_has_its_exact_number_of_parameters():
    with torch.device("meta"):
        model = QwenVL(ModelConfig.from_dict(CONFIG))
    assert sum(p.numel() for p in model.visual.parameters()) == 406_957_056
    assert sum(p.numel() for p in model.language_model.parameters()) == 1_720_574_976


def test_the_8b_has_every_tensor_of_its_index_and_its_exact_number_of_parameters(shared):
    raw = json.loads((shared / "model" / "config.json").read_text())
    index = json.loads((shared / "model" / "model.safetensors.index.json").read_text())
    with torch.device("meta"):
        model = QwenVL(ModelConfig.from_dict(raw))
    names = {f"model.{name}" for name, _ in model.named_parameters()}
    assert names == set(index["weight_map"]) and len(names) == 749
    assert sum(p.numel() for p in model.parameters()) == 8_144_793_840
    assert sum(p.numel() for p in model.visual.parameters()) == 576_388_336
    assert sum(p.numel() for p in model.parameters()) * 2 == index["metadata"]["total_size"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (changed(model_type="qwen2_vl"), "qwen2_vl"),
        (changed(auto_map={"AutoModel": "evil.Model"}), "auto_map"),
        (changed(text_config__hidden_act="gelu"), "hidden_act"),
        (changed(text_config__attention_bias=True), "attention_bias"),
        (changed(vision_config__patch_size=14), "patch_size"),
        (changed(vision_config__out_hidden_size=4096), "out_hidden_size"),
        (changed(text_config__rope_scaling={"rope_type": "yarn"}), "rope_type"),
        (changed(text_config__head_dim=64), "mrope_section"),
        ({"model_type": "qwen3_vl"}, "text_config"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(raw, words):
    with pytest.raises(WeightsError, match=words):
        ModelConfig.from_dict(raw)
