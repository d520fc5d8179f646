"""The shape of the built-in models, as the ``config.json`` that Qwen3-VL writes."""

from __future__ import annotations

from typing import Any, Final

VOCAB_SIZE: Final = 14336
WIDTH: Final = 256


def config_json(added: dict[str, int], vocab_size: int = VOCAB_SIZE) -> dict[str, Any]:
    """``config.json`` of a built-in model.

    Args:
        added: ids of the added tokens.
        vocab_size: rows of the table.
    """
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_token_id": added["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": added["<|endoftext|>"],
            "dtype": "bfloat16",
            "eos_token_id": added["<|im_end|>"],
            "head_dim": 64,
            "hidden_act": "silu",
            "hidden_size": WIDTH,
            "initializer_range": 0.02,
            "intermediate_size": 512,
            "max_position_embeddings": 16384,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default"},
            "rope_theta": 100000,
            "use_cache": True,
            "vocab_size": vocab_size,
        },
        "tie_word_embeddings": True,
        "transformers_version": "4.57.1",
        "use_cache": False,
        "video_token_id": added["<|video_pad|>"],
        "vision_config": {
            "deepstack_visual_indexes": [2],
            "depth": 4,
            "dtype": "bfloat16",
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 192,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 768,
            "model_type": "qwen3_vl",
            "num_heads": 6,
            "num_position_embeddings": 256,
            "out_hidden_size": WIDTH,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": added["<|vision_end|>"],
        "vision_start_token_id": added["<|vision_start|>"],
    }
